//! Tokens of operators, gateways and services, beside those in the configuration. A token is shown
//! once, when it is made; only its hash is kept.

use axum::{Json, extract::State, http::StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    input::Name,
    page::{Page, PageQuery},
};
use crate::{
    app::App,
    auth::{self, Role},
    extract::{JsonBody, Path, Query},
    problem::ApiError,
};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(revoke))
}

/// A token that is in force.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccessToken {
    pub id: i64,
    pub role: Role,
    pub name: String,
    /// The first characters of the token, to tell tokens apart.
    pub hint: String,
    pub created_at: Timestamp,
}

/// A token that was just made.
#[derive(Debug, Serialize, ToSchema)]
struct NewAccessToken {
    #[serde(flatten)]
    stored: AccessToken,
    /// The token itself. It is not shown again.
    token: String,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AccessTokenCreate {
    role: Role,
    /// Whose token it is.
    #[schema(value_type = String, min_length = 1, max_length = 200)]
    name: Name,
}

/// The tokens in force, without those in the configuration.
#[utoipa::path(get, path = "/access-tokens", tag = "credentials", params(PageQuery), responses((status = 200, body = Page<AccessToken>)))]
async fn list(
    State(app): State<App>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<AccessToken>>, ApiError> {
    let after: Option<i64> = page.after()?;
    let tokens = sqlx::query_as!(
        AccessToken,
        r#"select id, role as "role: _", name, hint, created_at from access_token
           where revoked_at is null and id > $1 order by id limit $2"#,
        after.unwrap_or(0),
        page.fetch(),
    )
    .fetch_all(&app.db)
    .await?;
    Ok(Json(Page::new(tokens, &page, |token: &AccessToken| token.id)))
}

/// Makes a token for an operator, a gateway, or a service that reports usage.
#[utoipa::path(post, path = "/access-tokens", tag = "credentials", request_body = AccessTokenCreate, responses((status = 201, body = NewAccessToken)))]
async fn create(
    State(app): State<App>,
    JsonBody(new): JsonBody<AccessTokenCreate>,
) -> Result<(StatusCode, Json<NewAccessToken>), ApiError> {
    let prefix = auth::token_prefix(new.role);
    let token = auth::new_secret(prefix);
    let hash = auth::hash(&token);
    let stored = sqlx::query_as!(
        AccessToken,
        r#"insert into access_token (role, name, hash, hint) values ($1, $2, $3, $4)
           returning id, role as "role: _", name, hint, created_at"#,
        new.role as _,
        new.name.as_str(),
        hash.as_slice(),
        auth::hint(&token, prefix),
    )
    .fetch_one(&app.db)
    .await?;
    tracing::info!(role = new.role.as_str(), id = stored.id, "a new access token");
    Ok((StatusCode::CREATED, Json(NewAccessToken { stored, token })))
}

/// Revokes a token, at once.
#[utoipa::path(delete, path = "/access-tokens/{token}", tag = "credentials", params(("token" = i64, Path)), responses((status = 204)))]
async fn revoke(State(app): State<App>, Path(id): Path<i64>) -> Result<StatusCode, ApiError> {
    let revoked = sqlx::query!(
        "update access_token set revoked_at = now() where id = $1 and revoked_at is null",
        id,
    )
    .execute(&app.db)
    .await?;
    if revoked.rows_affected() == 0 {
        return Err(ApiError::NotFound { what: "access token", id: id.to_string() });
    }
    tracing::info!(id, "an access token was revoked");
    Ok(StatusCode::NO_CONTENT)
}
