//! Suspending tenants, letting them go on, and closing them for good.

use axum::{Json, extract::State};
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_domain::id::TenantId;

use super::tenants::{self, AccountState, Tenant};
use crate::{app::App, change, extract::Path, invoice::close, plan_change, problem::ApiError};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(suspend))
        .routes(routes!(resume))
        .routes(routes!(close_account))
}

/// Stops a tenant at once: gateways that hear of it refuse it with 403.
#[utoipa::path(post, path = "/tenants/{tenant}/suspend", tag = "tenants", params(("tenant" = TenantId, Path)), responses((status = 200, body = Tenant), (status = 409, body = crate::problem::Problem, content_type = "application/problem+json", description = "The tenant is closed.")))]
async fn suspend(
    State(app): State<App>,
    Path(id): Path<TenantId>,
) -> Result<Json<Tenant>, ApiError> {
    set_state(&app, &id, AccountState::Suspended).await.map(Json)
}

/// Lets a suspended tenant use the API again.
#[utoipa::path(post, path = "/tenants/{tenant}/resume", tag = "tenants", params(("tenant" = TenantId, Path)), responses((status = 200, body = Tenant), (status = 409, body = crate::problem::Problem, content_type = "application/problem+json", description = "The tenant is closed.")))]
async fn resume(
    State(app): State<App>,
    Path(id): Path<TenantId>,
) -> Result<Json<Tenant>, ApiError> {
    set_state(&app, &id, AccountState::Active).await.map(Json)
}

/// Closes a tenant for good: it is refused like one that is suspended, its billing period ends with the
/// current quarter hour, and its invoice is made. After that it pays no fees and minimums. Usage that
/// arrives later has one more invoice, at the end of a billing period. A planned change of plan is withdrawn.
#[utoipa::path(post, path = "/tenants/{tenant}/close", tag = "tenants", params(("tenant" = TenantId, Path)), responses((status = 200, body = Tenant)))]
async fn close_account(
    State(app): State<App>,
    Path(id): Path<TenantId>,
) -> Result<Json<Tenant>, ApiError> {
    let tenant = set_state(&app, &id, AccountState::Closed).await?;
    // Where this fails, the call may be repeated, and the next run does it too.
    if let Some(invoice) = close::close_account(&app.db, &id).await? {
        tracing::info!(tenant = %id, invoice, "the last invoice of a closed tenant was made");
    }
    Ok(Json(tenant))
}

async fn set_state(app: &App, id: &TenantId, state: AccountState) -> Result<Tenant, ApiError> {
    let mut tx = app.db.begin().await?;
    let before = tenants::lock(&mut tx, id).await?;
    if before.state == state {
        return Ok(before);
    }
    if before.state == AccountState::Closed {
        return Err(ApiError::Conflict(format!("{id} is closed for good; make another tenant")));
    }
    if state == AccountState::Closed {
        plan_change::withdraw(&mut tx, id).await?;
    }
    sqlx::query!(
        "update tenant
         set state = $2, updated_at = now(),
             closed_at = case when $2 = 'closed'
               then to_timestamp((floor(extract(epoch from statement_timestamp()) / 900) + 1) * 900) end
         where id = $1",
        id.as_str(),
        state as _,
    )
    .execute(&mut *tx)
    .await?;
    change::announce_tenant(&mut tx, id).await?;
    let tenant = tenants::find(&mut tx, id).await?;
    tx.commit().await?;
    tracing::info!(tenant = id.as_str(), ?state, "a tenant was suspended, resumed or closed");
    Ok(tenant)
}
