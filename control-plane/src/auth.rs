//! Credentials: bearer tokens of operators, gateways and services, and tenants' API keys.
//!
//! Only hashes are stored and compared.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::Response,
};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use subtle::ConstantTimeEq;
use utoipa::ToSchema;
use weir_domain::id::TenantId;

use crate::{app::App, config::Config, problem::ApiError};

/// The SHA-256 of a token or key.
pub type Hash = [u8; 32];

pub fn hash(secret: &str) -> Hash {
    Sha256::digest(secret.as_bytes()).into()
}

/// A new secret with 256 random bits: `prefix` and 64 hex digits.
pub fn new_secret(prefix: &str) -> String {
    let bytes: [u8; 32] = rand::rng().random();
    bytes.iter().fold(prefix.to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// The prefix of tenants' keys.
pub const API_KEY_PREFIX: &str = "weir_key_";

/// The prefix of access tokens, which says whose they are to somebody who finds one.
pub fn token_prefix(role: Role) -> &'static str {
    match role {
        Role::Admin => "weir_admin_",
        Role::Gateway => "weir_gateway_",
        Role::Usage => "weir_usage_",
    }
}

/// What may be shown of a secret, for people to tell it from others: the prefix and four digits.
pub fn hint(secret: &str, prefix: &str) -> String {
    let shown: String = secret.chars().take(prefix.len() + 4).collect();
    format!("{shown}…")
}

/// What a bearer token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Role {
    Admin,
    Gateway,
    /// Reports usage, and asks before using something, for any tenant.
    Usage,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Gateway => "gateway",
            Self::Usage => "usage",
        }
    }
}

/// Checks credentials: those in the configuration, then those in the database.
#[derive(Clone)]
pub struct Credentials {
    db: PgPool,
    admin: Hash,
    gateway: Hash,
}

impl Credentials {
    pub fn new(config: &Config, db: PgPool) -> Self {
        Self {
            db,
            admin: hash(config.admin_token.reveal()),
            gateway: hash(config.gateway_token.reveal()),
        }
    }

    async fn allows(&self, role: Role, token: &str) -> Result<bool, ApiError> {
        let presented = hash(token);
        let configured = match role {
            Role::Admin => Some(&self.admin),
            Role::Gateway => Some(&self.gateway),
            Role::Usage => None,
        };
        if configured.is_some_and(|configured| bool::from(configured.ct_eq(&presented))) {
            return Ok(true);
        }
        let known = sqlx::query_scalar!(
            "select true from access_token where hash = $1 and role = $2 and revoked_at is null",
            presented.as_slice(),
            role.as_str(),
        )
        .fetch_optional(&self.db)
        .await?;
        Ok(known.is_some())
    }

    /// The tenant whose API key this is.
    pub async fn tenant_of(&self, api_key: &str) -> Result<Option<TenantId>, ApiError> {
        let presented = hash(api_key);
        let tenant = sqlx::query_scalar!(
            "select tenant_id from api_key where hash = $1 and revoked_at is null",
            presented.as_slice(),
        )
        .fetch_optional(&self.db)
        .await?;
        tenant.map(|id| TenantId::new(id).map_err(ApiError::internal)).transpose()
    }
}

/// Lets only operators through.
pub async fn require_admin(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    require(&app, Role::Admin, request, next).await
}

/// Lets only gateways through.
pub async fn require_gateway(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    require(&app, Role::Gateway, request, next).await
}

/// Lets only services through that report usage.
pub async fn require_usage(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    require(&app, Role::Usage, request, next).await
}

async fn require(
    app: &App,
    role: Role,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    check(app, role, request.headers()).await?;
    Ok(next.run(request).await)
}

/// An error unless the bearer token is of this role.
pub async fn check(app: &App, role: Role, headers: &HeaderMap) -> Result<(), ApiError> {
    let token = bearer(headers).ok_or(ApiError::Unauthorized(
        "a token is missing; send the header Authorization: Bearer <token>",
    ))?;
    if !app.credentials.allows(role, token).await? {
        return Err(ApiError::Unauthorized("this token is unknown, revoked, or not for this API"));
    }
    Ok(())
}

/// The token in `Authorization: Bearer <token>`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
