//! Deliveries: invoices on their way to billing providers, and those that stopped.

use axum::{Json, extract::State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_domain::id::TenantId;

use super::page::{Cursor, Page, PageLimit, PageQuery};
use crate::{
    app::App,
    delivery::outbox,
    extract::{Path, Query},
    problem::ApiError,
    provider::Kind,
};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get)).routes(routes!(retry))
}

/// How far an invoice is on its way to the tenant's provider.
#[derive(Debug, Serialize, ToSchema)]
pub struct Delivery {
    /// The id of the invoice.
    pub invoice: i64,
    pub number: Option<String>,
    #[schema(value_type = TenantId)]
    pub tenant: String,
    pub provider: Kind,
    pub state: DeliveryState,
    /// What is done next, or was done last.
    pub step: String,
    /// How often that has been tried.
    pub attempts: i32,
    /// When it is tried next.
    pub next_attempt_at: Timestamp,
    /// What went wrong last at this step, and what to do.
    pub last_error: Option<String>,
    /// The provider's id of the invoice, once it is known.
    pub provider_invoice: Option<String>,
    /// The provider's number of it.
    pub provider_number: Option<String>,
    pub payment: Payment,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum DeliveryState {
    Open,
    Done,
    /// Stopped, until it is retried.
    Failed,
}

/// What the provider said of the payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Payment {
    /// Nothing yet.
    Open,
    /// It was tried, and failed.
    Failed,
    Overdue,
    Paid,
    Void,
}

/// Which deliveries are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DeliveryQuery {
    /// Only this tenant's.
    #[param(value_type = Option<TenantId>)]
    tenant: Option<TenantId>,
    /// Only those in this state.
    #[param(value_type = Option<DeliveryState>, inline)]
    state: Option<DeliveryState>,
    /// The most items in the answer.
    #[serde(default)]
    #[param(value_type = Option<u16>, minimum = 1, maximum = 500, default = 50)]
    limit: PageLimit,
    /// The `next` of the page before; the first page without it.
    #[param(value_type = Option<String>)]
    after: Option<Cursor>,
}

/// All deliveries, newest invoice first.
#[utoipa::path(get, path = "/deliveries", tag = "deliveries", params(DeliveryQuery), responses((status = 200, body = Page<Delivery>)))]
async fn list(
    State(app): State<App>,
    Query(query): Query<DeliveryQuery>,
) -> Result<Json<Page<Delivery>>, ApiError> {
    let DeliveryQuery { tenant, state, limit, after } = query;
    let page = PageQuery { limit, after };
    let before: Option<i64> = page.after()?;
    let tenant = tenant.as_ref().map(TenantId::as_str);
    let rows = read(&app, (tenant, state, before, None), page.fetch()).await?;
    Ok(Json(Page::new(rows, &page, |delivery| delivery.invoice)))
}

/// The delivery of one invoice.
#[utoipa::path(get, path = "/deliveries/{invoice}", tag = "deliveries", params(("invoice" = i64, Path)), responses((status = 200, body = Delivery)))]
async fn get(State(app): State<App>, Path(invoice): Path<i64>) -> Result<Json<Delivery>, ApiError> {
    find(&app, invoice).await.map(Json)
}

/// Tries a delivery again that has stopped. What is at the provider already is found there.
#[utoipa::path(post, path = "/deliveries/{invoice}/retry", tag = "deliveries", params(("invoice" = i64, Path)), responses((status = 200, body = Delivery), (status = 409, body = crate::problem::Problem, content_type = "application/problem+json", description = "It has not stopped.")))]
async fn retry(
    State(app): State<App>,
    Path(invoice): Path<i64>,
) -> Result<Json<Delivery>, ApiError> {
    if !outbox::retry(&app.db, invoice).await? {
        let delivery = find(&app, invoice).await?;
        return Err(ApiError::Conflict(format!(
            "the delivery of the invoice with id {invoice} has not stopped, it is {}",
            if delivery.state == DeliveryState::Done { "done" } else { "under way" }
        )));
    }
    tracing::info!(invoice, "a delivery is tried again by an operator");
    find(&app, invoice).await.map(Json)
}

async fn find(app: &App, invoice: i64) -> Result<Delivery, ApiError> {
    let found = read(app, (None, None, None, Some(invoice)), 1).await?.pop();
    found.ok_or_else(|| ApiError::NotFound {
        what: "delivery of an invoice with the id",
        id: invoice.to_string(),
    })
}

type Filter<'a> = (Option<&'a str>, Option<DeliveryState>, Option<i64>, Option<i64>);

async fn read(
    app: &App,
    (tenant, state, before, invoice): Filter<'_>,
    limit: i64,
) -> Result<Vec<Delivery>, ApiError> {
    let rows = sqlx::query_as!(
        Delivery,
        r#"select invoice_id as invoice, invoice.number, delivery.tenant_id as tenant,
                  provider as "provider: _", delivery.state as "state: _", step, attempts,
                  next_attempt_at, last_error, provider_invoice_id as provider_invoice,
                  provider_number, payment as "payment: _", delivery.created_at, delivery.updated_at
           from delivery join invoice on invoice.id = invoice_id
           where ($1::text is null or delivery.tenant_id = $1)
             and ($2::text is null or delivery.state = $2)
             and ($3::bigint is null or invoice_id < $3)
             and ($4::bigint is null or invoice_id = $4)
           order by invoice_id desc limit $5"#,
        tenant,
        state as _,
        before,
        invoice,
        limit,
    )
    .fetch_all(&app.db)
    .await?;
    Ok(rows)
}
