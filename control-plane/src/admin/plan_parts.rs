//! The limits and the prices of a plan, each alone. A change makes a new version with the other
//! half kept.

use axum::{Json, extract::State};
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_domain::{
    id::PlanId,
    limit::Limit,
    plan::{PlanError, PlanTerms},
    price::Price,
};

use super::plans;
use crate::{
    app::App,
    extract::{JsonBody, Path},
    problem::ApiError,
};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_limits, put_limits))
        .routes(routes!(get_prices, put_prices))
}

/// The limits of a plan.
#[utoipa::path(get, path = "/plans/{plan}/limits", tag = "plans", params(("plan" = PlanId, Path)), responses((status = 200, body = Vec<Limit>)))]
async fn get_limits(
    State(app): State<App>,
    Path(id): Path<PlanId>,
) -> Result<Json<Vec<Limit>>, ApiError> {
    Ok(Json(read(&app, &id).await?.terms.limits))
}

/// The prices of a plan.
#[utoipa::path(get, path = "/plans/{plan}/prices", tag = "plans", params(("plan" = PlanId, Path)), responses((status = 200, body = Vec<Price>)))]
async fn get_prices(
    State(app): State<App>,
    Path(id): Path<PlanId>,
) -> Result<Json<Vec<Price>>, ApiError> {
    Ok(Json(read(&app, &id).await?.terms.prices))
}

/// Replaces the limits of a plan, at once for all tenants on it.
#[utoipa::path(put, path = "/plans/{plan}/limits", tag = "plans", params(("plan" = PlanId, Path)), request_body = Vec<Limit>, responses((status = 200, body = Vec<Limit>)))]
async fn put_limits(
    State(app): State<App>,
    Path(id): Path<PlanId>,
    JsonBody(limits): JsonBody<Vec<Limit>>,
) -> Result<Json<Vec<Limit>>, ApiError> {
    let plan = change(&app, &id, |terms| PlanTerms { limits, ..terms }).await?;
    Ok(Json(plan.terms.limits))
}

/// Replaces the prices of a plan, from the next quarter hour for all tenants on it.
#[utoipa::path(put, path = "/plans/{plan}/prices", tag = "plans", params(("plan" = PlanId, Path)), request_body = Vec<Price>, responses((status = 200, body = Vec<Price>)))]
async fn put_prices(
    State(app): State<App>,
    Path(id): Path<PlanId>,
    JsonBody(prices): JsonBody<Vec<Price>>,
) -> Result<Json<Vec<Price>>, ApiError> {
    let plan = change(&app, &id, |terms| PlanTerms { prices, ..terms }).await?;
    Ok(Json(plan.terms.prices))
}

async fn read(app: &App, id: &PlanId) -> Result<plans::Plan, ApiError> {
    let mut db = app.db.acquire().await?;
    plans::newest(&mut db, id).await?.ok_or_else(|| plans::unknown(id))
}

async fn change(
    app: &App,
    id: &PlanId,
    edit: impl FnOnce(PlanTerms) -> PlanTerms,
) -> Result<plans::Plan, ApiError> {
    let mut tx = app.db.begin().await?;
    plans::lock(&mut tx, id).await?;
    let before = plans::newest(&mut tx, id).await?.ok_or_else(|| plans::unknown(id))?;
    let terms = edit(before.terms.clone());
    // The body is the array alone, so its fields are named without it.
    terms.check().map_err(|PlanError { field, cause }| {
        let place = field.trim_start_matches("limits").trim_start_matches("prices");
        ApiError::field(if place.is_empty() { &field } else { place }, cause)
    })?;
    let plan = plans::store(&mut tx, id, Some(before), terms).await?;
    tx.commit().await?;
    Ok(plan)
}
