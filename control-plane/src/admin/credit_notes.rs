//! Credit notes, and voiding invoices.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use rust_decimal::Decimal;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_domain::id::TenantId;

use super::{
    input::Name,
    invoices::{FormatQuery, stored},
    page::{Cursor, Page, PageLimit, PageQuery},
};
use crate::{
    app::App,
    extract::{JsonBody, Path, Query},
    invoice::{
        Invoice,
        credit::{self, CreditNote, Filter},
    },
    print,
    problem::ApiError,
};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(create))
        .routes(routes!(void))
}

/// Which credit notes are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CreditNoteQuery {
    /// Only this tenant's.
    #[param(value_type = Option<TenantId>)]
    tenant: Option<TenantId>,
    /// Only those of the invoice with this id.
    invoice: Option<i64>,
    /// The most items in the answer.
    #[serde(default)]
    #[param(value_type = Option<u16>, minimum = 1, maximum = 500, default = 50)]
    limit: PageLimit,
    /// The `next` of the page before; the first page without it.
    #[param(value_type = Option<String>)]
    after: Option<Cursor>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreditNoteCreate {
    /// More than 0, and at most what is left of the invoice.
    #[serde(with = "rust_decimal::serde::str")]
    #[schema(value_type = String, examples("12.50"))]
    amount: Decimal,
    #[schema(value_type = String, min_length = 1, max_length = 200)]
    reason: Name,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct InvoiceVoid {
    #[schema(value_type = String, min_length = 1, max_length = 200)]
    reason: Name,
}

/// All credit notes, newest first.
#[utoipa::path(get, path = "/credit-notes", tag = "invoices", params(CreditNoteQuery), responses((status = 200, body = Page<CreditNote>)))]
async fn list(
    State(app): State<App>,
    Query(query): Query<CreditNoteQuery>,
) -> Result<Json<Page<CreditNote>>, ApiError> {
    let CreditNoteQuery { tenant, invoice, limit, after } = query;
    let page = PageQuery { limit, after };
    let filter = Filter { tenant: tenant.as_ref(), invoice, before: page.after()?, id: None };
    let notes = credit::list(&app.db, &filter, page.fetch()).await?;
    Ok(Json(Page::new(notes, &page, |note| note.id)))
}

/// One credit note, as JSON, printable HTML or PDF.
#[utoipa::path(
    get, path = "/credit-notes/{note}", tag = "invoices", params(("note" = i64, Path), FormatQuery),
    responses((status = 200, content((CreditNote = "application/json"), (String = "text/html"), (Vec<u8> = "application/pdf")))),
)]
async fn get(
    State(app): State<App>,
    Path(id): Path<i64>,
    headers: HeaderMap,
    Query(format): Query<FormatQuery>,
) -> Result<Response, ApiError> {
    let note = found(&app, id).await?;
    match format.medium(&headers) {
        None => Ok(Json(note).into_response()),
        Some(medium) => print::credit_note(&mut *app.db.acquire().await?, &note, medium).await,
    }
}

/// Takes an amount off an invoice, at most what is left of it.
#[utoipa::path(
    post, path = "/invoices/{invoice}/credit-notes", tag = "invoices",
    params(("invoice" = i64, Path)), request_body = CreditNoteCreate,
    responses((status = 201, body = CreditNote), (status = 409, body = crate::problem::Problem, content_type = "application/problem+json", description = "The invoice is void, or less of it is left.")),
)]
async fn create(
    State(app): State<App>,
    Path(invoice): Path<i64>,
    JsonBody(new): JsonBody<CreditNoteCreate>,
) -> Result<(StatusCode, Json<CreditNote>), ApiError> {
    let id = credit::credit(&app.db, invoice, new.amount, new.reason.as_str()).await?;
    tracing::info!(invoice, credit_note = id, "an invoice was credited in part");
    Ok((StatusCode::CREATED, Json(found(&app, id).await?)))
}

/// Voids an invoice that is not paid: a credit note takes off what is left of it. Its usage stays
/// billed, and is not charged again.
#[utoipa::path(
    post, path = "/invoices/{invoice}/void", tag = "invoices",
    params(("invoice" = i64, Path)), request_body = InvoiceVoid,
    responses((status = 200, body = Invoice, description = "It is void, now or since before."), (status = 409, body = crate::problem::Problem, content_type = "application/problem+json", description = "The invoice is paid.")),
)]
async fn void(
    State(app): State<App>,
    Path(invoice): Path<i64>,
    JsonBody(why): JsonBody<InvoiceVoid>,
) -> Result<Json<Invoice>, ApiError> {
    credit::void(&app.db, invoice, why.reason.as_str()).await?;
    tracing::info!(invoice, "an invoice was voided by an operator");
    Ok(Json(stored(&app, invoice).await?))
}

async fn found(app: &App, id: i64) -> Result<CreditNote, ApiError> {
    credit::get(&app.db, id)
        .await?
        .ok_or_else(|| ApiError::NotFound { what: "credit note", id: id.to_string() })
}
