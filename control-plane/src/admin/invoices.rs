//! Invoices: those that come next, the stored ones, and making them before their time.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_domain::id::TenantId;

use super::{
    negotiation,
    page::{Cursor, Page, PageLimit, PageQuery},
};
use crate::{
    app::App,
    delivery::resend,
    extract::{Path, Query},
    invoice::{
        Invoice, InvoiceState, close, payment,
        preview::{self, Upcoming},
        read,
    },
    print::{self, Medium},
    problem::ApiError,
};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(preview))
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(end_period))
        .routes(routes!(finalize))
        .routes(routes!(resend_invoice))
        .routes(routes!(mark_paid))
}

/// Which invoices are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct InvoiceQuery {
    /// Only this tenant's.
    #[param(value_type = Option<TenantId>)]
    tenant: Option<TenantId>,
    /// Only those in this state. Those in `draft` and `grace` are not stored: see the preview.
    #[param(value_type = Option<InvoiceState>, inline)]
    state: Option<InvoiceState>,
    /// The most items in the answer.
    #[serde(default)]
    #[param(value_type = Option<u16>, minimum = 1, maximum = 500, default = 50)]
    limit: PageLimit,
    /// The `next` of the page before; the first page without it.
    #[param(value_type = Option<String>)]
    after: Option<Cursor>,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Format {
    Json,
    /// To be printed; it needs nothing else.
    Html,
    Pdf,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FormatQuery {
    /// By the header `Accept` where it is not given.
    #[param(value_type = Option<Format>, inline)]
    format: Option<Format>,
}

impl FormatQuery {
    /// What is to be printed; `None` where JSON is asked for.
    pub(super) fn medium(self, headers: &HeaderMap) -> Option<Medium> {
        let known = [
            ("application/json", Format::Json),
            ("text/html", Format::Html),
            ("application/pdf", Format::Pdf),
        ];
        match negotiation::format(self.format, headers, &known, Format::Json) {
            Format::Json => None,
            Format::Html => Some(Medium::Html),
            Format::Pdf => Some(Medium::Pdf),
        }
    }

    /// The invoice in the format that is asked for.
    async fn answer(
        self,
        app: &App,
        headers: &HeaderMap,
        invoice: Invoice,
    ) -> Result<Response, ApiError> {
        match self.medium(headers) {
            None => Ok(Json(invoice).into_response()),
            Some(medium) => print::invoice(&mut *app.db.acquire().await?, &invoice, medium).await,
        }
    }
}

/// Which invoice is asked for, and how it is to be shown.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PreviewQuery {
    #[serde(default)]
    #[param(value_type = Option<Upcoming>, inline)]
    invoice: Upcoming,
    /// By the header `Accept` where it is not given.
    #[param(value_type = Option<Format>, inline)]
    format: Option<Format>,
}

/// The invoice that the tenant gets next, as it would be now: a `draft` while its period runs, then in
/// `grace` until `final_at`.
#[utoipa::path(
    get, path = "/tenants/{tenant}/invoices/preview", tag = "invoices",
    params(("tenant" = TenantId, Path), PreviewQuery),
    responses((status = 200, content((Invoice = "application/json"), (String = "text/html"), (Vec<u8> = "application/pdf")))),
)]
async fn preview(
    State(app): State<App>,
    Path(tenant): Path<TenantId>,
    headers: HeaderMap,
    Query(query): Query<PreviewQuery>,
) -> Result<Response, ApiError> {
    let invoice = preview::preview(&app, &tenant, query.invoice).await?;
    FormatQuery { format: query.format }.answer(&app, &headers, invoice).await
}

/// All invoices, newest first.
#[utoipa::path(get, path = "/invoices", tag = "invoices", params(InvoiceQuery), responses((status = 200, body = Page<Invoice>)))]
async fn list(
    State(app): State<App>,
    Query(query): Query<InvoiceQuery>,
) -> Result<Json<Page<Invoice>>, ApiError> {
    let InvoiceQuery { tenant, state, limit, after } = query;
    let page = PageQuery { limit, after };
    let filter = read::Filter { tenant: tenant.as_ref(), state, before: page.after()?, id: None };
    let invoices = read::list(&app.db, &filter, page.fetch()).await?;
    Ok(Json(Page::new(invoices, &page, |invoice| invoice.id.unwrap_or_default())))
}

/// One invoice, as JSON, printable HTML or PDF.
#[utoipa::path(
    get, path = "/invoices/{invoice}", tag = "invoices", params(("invoice" = i64, Path), FormatQuery),
    responses((status = 200, content((Invoice = "application/json"), (String = "text/html"), (Vec<u8> = "application/pdf")))),
)]
async fn get(
    State(app): State<App>,
    Path(id): Path<i64>,
    headers: HeaderMap,
    Query(format): Query<FormatQuery>,
) -> Result<Response, ApiError> {
    let invoice = stored(&app, id).await?;
    format.answer(&app, &headers, invoice).await
}

/// Ends the current billing period with the current quarter hour and makes its invoice at once. What
/// is used in the rest of the quarter hour comes as an adjustment line of the next invoice.
#[utoipa::path(post, path = "/tenants/{tenant}/billing-period/end", tag = "invoices", params(("tenant" = TenantId, Path)), responses((status = 201, body = Invoice), (status = 409, body = crate::problem::Problem, content_type = "application/problem+json", description = "The period was ended in this quarter hour already.")))]
async fn end_period(
    State(app): State<App>,
    Path(tenant): Path<TenantId>,
) -> Result<(StatusCode, Json<Invoice>), ApiError> {
    let id = close::end_now(&app.db, &tenant).await?;
    tracing::info!(%tenant, invoice = id, "billing period ended by an operator");
    Ok((StatusCode::CREATED, Json(stored(&app, id).await?)))
}

/// Makes the invoices of all periods of the tenant that have ended, without waiting for their grace to
/// pass; oldest first.
#[utoipa::path(post, path = "/tenants/{tenant}/invoices/finalize", tag = "invoices", params(("tenant" = TenantId, Path)), responses((status = 201, body = Page<Invoice>), (status = 409, body = crate::problem::Problem, content_type = "application/problem+json", description = "All periods that have ended have their invoices.")))]
async fn finalize(
    State(app): State<App>,
    Path(tenant): Path<TenantId>,
) -> Result<(StatusCode, Json<Page<Invoice>>), ApiError> {
    let mut items = Vec::new();
    for id in close::finalize(&app.db, &tenant).await? {
        tracing::info!(%tenant, invoice = id, "an invoice was made by an operator");
        items.push(stored(&app, id).await?);
    }
    Ok((StatusCode::CREATED, Json(Page { items, next: None })))
}

/// Sends an invoice again that is to be paid. A delivery that has stopped is tried again; for one that is
/// done, Stripe sends its mail again; an invoice that was made when the tenant had no provider goes to the
/// one that it has now.
#[utoipa::path(post, path = "/invoices/{invoice}/resend", tag = "invoices", params(("invoice" = i64, Path)), responses((status = 202), (status = 409, body = crate::problem::Problem, content_type = "application/problem+json", description = "It is on its way, paid or void, or there is nobody who sends it.")))]
async fn resend_invoice(
    State(app): State<App>,
    Path(id): Path<i64>,
) -> Result<StatusCode, ApiError> {
    resend::resend(&app.db, id).await?;
    tracing::info!(invoice = id, "an invoice is sent again by an operator");
    Ok(StatusCode::ACCEPTED)
}

/// Notes that an invoice is paid which no provider has. Of those at a provider, that says so itself.
#[utoipa::path(post, path = "/invoices/{invoice}/paid", tag = "invoices", params(("invoice" = i64, Path)), responses((status = 200, body = Invoice), (status = 409, body = crate::problem::Problem, content_type = "application/problem+json", description = "It is void, or at a provider.")))]
async fn mark_paid(State(app): State<App>, Path(id): Path<i64>) -> Result<Json<Invoice>, ApiError> {
    payment::mark_paid(&app.db, id).await?;
    tracing::info!(invoice = id, "an invoice is paid, as an operator says");
    Ok(Json(stored(&app, id).await?))
}

/// The invoice, or a 404.
pub(super) async fn stored(app: &App, id: i64) -> Result<Invoice, ApiError> {
    read::get(&app.db, id)
        .await?
        .ok_or_else(|| ApiError::NotFound { what: "invoice", id: id.to_string() })
}
