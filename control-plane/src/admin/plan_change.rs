//! The plan to which a tenant moves with its next billing period.

use axum::{Json, extract::State, http::StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_domain::id::{PlanId, TenantId};

use super::tenants::{self, AccountState};
use crate::{
    app::App,
    extract::{JsonBody, Path},
    invoice::period,
    plan_change::{self, Planned},
    problem::ApiError,
};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get, put, withdraw))
}

/// A plan to which a tenant will move.
#[derive(Debug, Serialize, ToSchema)]
struct PlanChange {
    #[schema(value_type = PlanId)]
    plan: String,
    /// The start of the next billing period. Prices and limits change then.
    starts_at: Timestamp,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PlanChangeWrite {
    plan: PlanId,
    starts: Starts,
}

/// When a tenant moves. At once, it does by `PATCH /tenants/{tenant}`.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Starts {
    NextPeriod,
}

/// What is planned.
#[utoipa::path(get, path = "/tenants/{tenant}/plan-change", tag = "tenants", params(("tenant" = TenantId, Path)), responses((status = 200, body = PlanChange)))]
async fn get(
    State(app): State<App>,
    Path(tenant): Path<TenantId>,
) -> Result<Json<PlanChange>, ApiError> {
    let mut db = app.db.acquire().await?;
    tenants::find(&mut db, &tenant).await?;
    plan_change::find(&mut db, &tenant).await?.map(view).ok_or_else(|| nothing(&tenant))
}

/// Plans that the tenant moves to another plan when its current billing period ends, instead of what
/// was planned before.
#[utoipa::path(
    put, path = "/tenants/{tenant}/plan-change", tag = "tenants", params(("tenant" = TenantId, Path)), request_body = PlanChangeWrite,
    responses((status = 200, body = PlanChange), (status = 409, body = crate::problem::Problem, content_type = "application/problem+json", description = "The tenant is closed, or the plan is in another currency.")),
)]
async fn put(
    State(app): State<App>,
    Path(tenant): Path<TenantId>,
    JsonBody(write): JsonBody<PlanChangeWrite>,
) -> Result<Json<PlanChange>, ApiError> {
    let PlanChangeWrite { plan, starts: Starts::NextPeriod } = write;
    let mut tx = app.db.begin().await?;
    let before = tenants::lock(&mut tx, &tenant).await?;
    if before.state == AccountState::Closed {
        return Err(ApiError::Conflict(format!("{tenant} is closed: its plan stays as it is")));
    }
    if before.plan == plan.as_str() {
        return Err(ApiError::field(
            "plan",
            format!("{tenant} is on {plan} already; DELETE withdraws a change that is planned"),
        ));
    }
    tenants::joinable(&mut tx, &tenant, &before, &plan).await?;
    let starts_at = period::next_start(&mut tx, &tenant).await?;
    plan_change::plan(&mut tx, &tenant, &plan, starts_at).await?;
    tx.commit().await?;
    tracing::info!(%tenant, %plan, %starts_at, "a change of plan is planned");
    Ok(view(Planned { plan: plan.to_string(), starts_at }))
}

/// Withdraws what is planned: the tenant stays on its plan.
#[utoipa::path(delete, path = "/tenants/{tenant}/plan-change", tag = "tenants", params(("tenant" = TenantId, Path)), responses((status = 204)))]
async fn withdraw(
    State(app): State<App>,
    Path(tenant): Path<TenantId>,
) -> Result<StatusCode, ApiError> {
    let mut tx = app.db.begin().await?;
    tenants::lock(&mut tx, &tenant).await?;
    let was_planned = plan_change::withdraw(&mut tx, &tenant).await?;
    tx.commit().await?;
    if !was_planned {
        return Err(nothing(&tenant));
    }
    tracing::info!(%tenant, "a planned change of plan is withdrawn");
    Ok(StatusCode::NO_CONTENT)
}

fn view(planned: Planned) -> Json<PlanChange> {
    Json(PlanChange { plan: planned.plan, starts_at: planned.starts_at })
}

fn nothing(tenant: &TenantId) -> ApiError {
    ApiError::NotFound { what: "planned change of plan of the tenant", id: tenant.to_string() }
}
