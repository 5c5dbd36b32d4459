//! Reconciliation: whether ledger, invoices and billing providers agree.

use std::time::Duration;

use axum::{Json, extract::State};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::timeout;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_domain::id::TenantId;

use super::{page::PageLimit, tenants};
use crate::{
    app::App,
    extract::Query,
    problem::ApiError,
    reconciliation::{Error, Scope, at_provider, in_postgres, report::Report},
};

/// How long it may take in all, and a statement of it: less than any call may.
const LONGEST: Duration = Duration::from_secs(25);
const STATEMENT_MS: u32 = 20_000;
/// What Postgres says where a statement took longer (`query_canceled`).
const CANCELED: &str = "57014";

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get))
}

/// What is compared.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ReconciliationQuery {
    /// Only this tenant.
    #[param(value_type = Option<TenantId>)]
    tenant: Option<TenantId>,
    /// Only quarter hours and billing periods that end after this time.
    from: Option<Timestamp>,
    /// Only those that begin before this time.
    to: Option<Timestamp>,
    /// Whether Stripe and Chargebee are asked, too.
    #[serde(default)]
    providers: bool,
    /// How many differences of each kind are told; all are counted.
    #[serde(default)]
    #[param(value_type = Option<u16>, minimum = 1, maximum = 500, default = 50)]
    limit: PageLimit,
}

/// Compares the ledger with its sums, those with what invoices have billed, invoices with their lines,
/// credits and credit notes, and with `providers` all that was delivered with what Stripe and Chargebee
/// have. Changes nothing.
///
/// What takes longer than 25 seconds is refused; `weir reconcile` takes as long as it needs.
#[utoipa::path(
    get, path = "/reconciliation", tag = "invoices", params(ReconciliationQuery),
    responses((status = 200, body = Report), (status = 503, body = crate::problem::Problem, content_type = "application/problem+json", description = "A billing provider can't be reached.")),
)]
async fn get(
    State(app): State<App>,
    Query(query): Query<ReconciliationQuery>,
) -> Result<Json<Report>, ApiError> {
    let ReconciliationQuery { tenant, from, to, providers, limit } = query;
    if let Some((from, to)) = from.zip(to)
        && from >= to
    {
        return Err(ApiError::field("to", format!("{to} must be after from ({from})")));
    }
    if let Some(tenant) = &tenant {
        tenants::find(&mut *app.db.acquire().await?, tenant).await?;
    }
    let scope = Scope { tenant, from, to, limit: limit.get() };
    let compared = timeout(LONGEST, compare(&app, &scope, providers)).await;
    match compared {
        Err(_) => Err(too_much()),
        Ok(Err(Error::Sql(error))) if is_canceled(&error) => Err(too_much()),
        Ok(report) => Ok(Json(report?)),
    }
}

async fn compare(app: &App, scope: &Scope, providers: bool) -> Result<Report, Error> {
    let mut report = in_postgres(&app.db, scope, STATEMENT_MS).await?;
    for provider in app.calls.kinds().into_iter().filter(|_| providers) {
        report.sections.push(at_provider(&app.db, &app.calls, provider, scope).await?);
    }
    Ok(report)
}

fn is_canceled(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(cause) if cause.code().as_deref() == Some(CANCELED))
}

fn too_much() -> ApiError {
    ApiError::bad_request(
        "this is more than can be compared in one call; narrow it down with tenant, from and to, or run weir reconcile",
    )
}
