//! `/v1/policies`: policies as OPA's tools put and get them.

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::StatusCode,
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_domain::id::PolicyId;

use super::answer::{ErrorAnswer, OpaError};
use crate::{app::App, extract::Path, problem::ApiError, rating};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, put, delete))
}

/// A policy.
#[derive(Debug, Serialize, ToSchema)]
struct PolicyText {
    #[schema(value_type = PolicyId)]
    id: String,
    /// Rego.
    raw: String,
    /// Names this text, in usage records too.
    version: i32,
}

/// As OPA wraps what it answers.
#[derive(Debug, Serialize, ToSchema)]
struct Answer<T> {
    result: T,
}

/// What a call answers that has nothing to say.
#[derive(Debug, Serialize, ToSchema)]
struct Nothing {}

/// All policies.
#[utoipa::path(get, path = "/policies", tag = "policies", responses((status = 200, body = Answer<Vec<PolicyText>>)))]
async fn list(State(app): State<App>) -> Result<Json<Answer<Vec<PolicyText>>>, OpaError> {
    let result = sqlx::query_as!(
        PolicyText,
        "select policy.id, source as raw, policy_version.version
         from policy join policy_version on policy_version.version = policy.version order by policy.id",
    )
    .fetch_all(&app.db)
    .await?;
    Ok(Json(Answer { result }))
}

/// A policy at its version.
#[utoipa::path(
    get, path = "/policies/{policy}", tag = "policies", params(("policy" = PolicyId, Path)),
    responses((status = 200, body = Answer<PolicyText>), (status = 404, body = ErrorAnswer, description = "There is none.")),
)]
async fn get(
    State(app): State<App>,
    id: Result<Path<PolicyId>, ApiError>,
) -> Result<Json<Answer<PolicyText>>, OpaError> {
    let Path(id) = id?;
    let mut db = app.db.acquire().await?;
    let text = rating::find(&mut db, &id, None).await?.ok_or_else(|| rating::unknown(&id))?;
    let result = PolicyText { id: id.into(), raw: text.source, version: text.version };
    Ok(Json(Answer { result }))
}

/// Makes a policy, or gives it a new text. Where it is active, every gateway has it within a second.
/// A text that does not compile changes nothing.
#[utoipa::path(
    put, path = "/policies/{policy}", tag = "policies", params(("policy" = PolicyId, Path)),
    request_body(content = String, content_type = "text/plain", description = "Rego in the package weir.rating."),
    responses((status = 200, body = Nothing), (status = 400, body = ErrorAnswer, description = "It does not compile: `errors` say where and why.")),
)]
async fn put(
    State(app): State<App>,
    id: Result<Path<PolicyId>, ApiError>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Nothing>, OpaError> {
    let Path(id) = id?;
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge,
        _ => ApiError::bad_request(rejection.body_text()),
    })?;
    let source = String::from_utf8(body.into())
        .map_err(|_| ApiError::bad_request("the body is not text in UTF-8; send Rego"))?;
    rating::put(&app.db, &id, source)
        .await
        .map_err(|refused| OpaError::of(id.as_str(), refused))?;
    Ok(Json(Nothing {}))
}

/// Deletes a policy that is not active. Its versions are kept.
#[utoipa::path(
    delete, path = "/policies/{policy}", tag = "policies", params(("policy" = PolicyId, Path)),
    responses((status = 200, body = Nothing), (status = 404, body = ErrorAnswer, description = "There is none."), (status = 409, body = ErrorAnswer, description = "It is active.")),
)]
async fn delete(
    State(app): State<App>,
    id: Result<Path<PolicyId>, ApiError>,
) -> Result<Json<Nothing>, OpaError> {
    let Path(id) = id?;
    rating::delete(&app.db, &id).await?;
    Ok(Json(Nothing {}))
}
