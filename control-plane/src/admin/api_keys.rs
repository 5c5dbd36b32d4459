//! The API keys of a tenant. A key is shown once, when it is made; only its hash is kept.

use axum::{Json, extract::State, http::StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_domain::id::TenantId;

use super::{
    input::Name,
    page::{Page, PageQuery},
    tenants,
};
use crate::{
    app::App,
    auth,
    database::on_constraint,
    extract::{JsonBody, Path, Query},
    problem::ApiError,
};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(revoke))
}

/// A key of a tenant that is in force.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApiKey {
    pub id: i64,
    pub name: String,
    /// The first characters of the key, to tell keys apart.
    pub hint: String,
    pub created_at: Timestamp,
}

/// A key that was just made.
#[derive(Debug, Serialize, ToSchema)]
struct NewApiKey {
    #[serde(flatten)]
    stored: ApiKey,
    /// The key itself. It is not shown again.
    key: String,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ApiKeyCreate {
    /// What the key is for.
    #[schema(value_type = String, min_length = 1, max_length = 200)]
    name: Name,
}

/// The keys of a tenant that are in force.
#[utoipa::path(
    get, path = "/tenants/{tenant}/api-keys", tag = "credentials",
    params(("tenant" = TenantId, Path), PageQuery), responses((status = 200, body = Page<ApiKey>)),
)]
async fn list(
    State(app): State<App>,
    Path(tenant): Path<TenantId>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<ApiKey>>, ApiError> {
    let after: Option<i64> = page.after()?;
    let mut db = app.db.acquire().await?;
    tenants::find(&mut db, &tenant).await?;
    let keys = sqlx::query_as!(
        ApiKey,
        "select id, name, hint, created_at from api_key
         where tenant_id = $1 and revoked_at is null and id > $2 order by id limit $3",
        tenant.as_str(),
        after.unwrap_or(0),
        page.fetch(),
    )
    .fetch_all(&mut *db)
    .await?;
    Ok(Json(Page::new(keys, &page, |key: &ApiKey| key.id)))
}

/// Makes a key for a tenant.
#[utoipa::path(
    post, path = "/tenants/{tenant}/api-keys", tag = "credentials", params(("tenant" = TenantId, Path)),
    request_body = ApiKeyCreate, responses((status = 201, body = NewApiKey)),
)]
async fn create(
    State(app): State<App>,
    Path(tenant): Path<TenantId>,
    JsonBody(new): JsonBody<ApiKeyCreate>,
) -> Result<(StatusCode, Json<NewApiKey>), ApiError> {
    let key = auth::new_secret(auth::API_KEY_PREFIX);
    let hash = auth::hash(&key);
    let stored = sqlx::query_as!(
        ApiKey,
        "insert into api_key (tenant_id, name, hash, hint) values ($1, $2, $3, $4)
         returning id, name, hint, created_at",
        tenant.as_str(),
        new.name.as_str(),
        hash.as_slice(),
        auth::hint(&key, auth::API_KEY_PREFIX),
    )
    .fetch_one(&app.db)
    .await
    .map_err(|error| {
        on_constraint(error, "api_key_tenant_id_fkey", || tenants::unknown(&tenant))
    })?;
    tracing::info!(tenant = tenant.as_str(), id = stored.id, "a new API key");
    Ok((StatusCode::CREATED, Json(NewApiKey { stored, key })))
}

/// Revokes a key, at once.
#[utoipa::path(
    delete, path = "/tenants/{tenant}/api-keys/{key}", tag = "credentials",
    params(("tenant" = TenantId, Path), ("key" = i64, Path)), responses((status = 204)),
)]
async fn revoke(
    State(app): State<App>,
    Path((tenant, key)): Path<(TenantId, i64)>,
) -> Result<StatusCode, ApiError> {
    let revoked = sqlx::query!(
        "update api_key set revoked_at = now()
         where tenant_id = $1 and id = $2 and revoked_at is null",
        tenant.as_str(),
        key,
    )
    .execute(&app.db)
    .await?;
    if revoked.rows_affected() == 0 {
        return Err(ApiError::NotFound { what: "API key", id: key.to_string() });
    }
    tracing::info!(tenant = tenant.as_str(), id = key, "an API key was revoked");
    Ok(StatusCode::NO_CONTENT)
}
