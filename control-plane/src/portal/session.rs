//! Who is signed in: a random token in a cookie, of which Postgres keeps the hash.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use sqlx::PgConnection;
use weir_domain::id::TenantId;

use crate::{auth, problem::ApiError};

/// A session lasts this long, however much it is used.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// The most sessions of one key; another one ends the oldest.
const MAX_PER_KEY: i64 = 20;
const COOKIE: &str = "weir_session";

/// Signs in with an API key: the token for the cookie, or `None` if there is no such key in force.
pub(super) async fn start(
    db: &mut PgConnection,
    api_key: &str,
) -> Result<Option<String>, ApiError> {
    let token = auth::new_secret("");
    let (token_hash, key_hash) = (auth::hash(&token), auth::hash(api_key));
    let key_id = sqlx::query_scalar!(
        "insert into portal_session (hash, api_key_id, expires_at)
         select $1, id, now() + make_interval(secs => $2) from api_key
         where hash = $3 and revoked_at is null
         returning api_key_id",
        token_hash.as_slice(),
        LIFETIME.as_secs_f64(),
        key_hash.as_slice(),
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(key_id) = key_id else { return Ok(None) };
    sqlx::query!(
        "delete from portal_session where expires_at <= now() or hash in
             (select hash from portal_session where api_key_id = $1 order by expires_at desc offset $2)",
        key_id,
        MAX_PER_KEY,
    )
    .execute(db)
    .await?;
    Ok(Some(token))
}

/// The tenant that is signed in with this cookie, while its key is in force.
pub(super) async fn tenant(
    db: &mut PgConnection,
    headers: &HeaderMap,
) -> Result<Option<TenantId>, ApiError> {
    let Some(hash) = token(headers).map(auth::hash) else { return Ok(None) };
    let tenant = sqlx::query_scalar!(
        "select tenant_id from portal_session join api_key on api_key.id = api_key_id
         where portal_session.hash = $1 and expires_at > now() and revoked_at is null",
        hash.as_slice(),
    )
    .fetch_optional(db)
    .await?;
    tenant.map(|id| TenantId::new(id).map_err(ApiError::internal)).transpose()
}

/// Signs out.
pub(super) async fn end(db: &mut PgConnection, headers: &HeaderMap) -> Result<(), ApiError> {
    if let Some(hash) = token(headers).map(auth::hash) {
        sqlx::query!("delete from portal_session where hash = $1", hash.as_slice())
            .execute(db)
            .await?;
    }
    Ok(())
}

/// The `Set-Cookie` that starts a session; without a token, the one that ends it.
pub(super) fn cookie(token: Option<&str>, request: &HeaderMap) -> Result<HeaderValue, ApiError> {
    let secure = if is_https(request) { "; Secure" } else { "" };
    let max_age = token.map_or(0, |_| LIFETIME.as_secs());
    let token = token.unwrap_or_default();
    HeaderValue::try_from(format!(
        "{COOKIE}={token}; Path=/portal; Max-Age={max_age}; HttpOnly; SameSite=Strict{secure}"
    ))
    .map_err(ApiError::internal)
}

/// Whether the browser spoke https to the proxy in front of us.
fn is_https(request: &HeaderMap) -> bool {
    request
        .get("x-forwarded-proto")
        .is_some_and(|scheme| scheme.as_bytes().eq_ignore_ascii_case(b"https"))
}

fn token(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|cookies| cookies.to_str().ok())
        .flat_map(|cookies| cookies.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_closed_to_scripts_and_other_sites() {
        let mut request = HeaderMap::new();
        assert_eq!(
            cookie(Some("abc"), &request).unwrap(),
            "weir_session=abc; Path=/portal; Max-Age=43200; HttpOnly; SameSite=Strict"
        );
        request.insert("x-forwarded-proto", HeaderValue::from_static("https"));
        assert_eq!(
            cookie(None, &request).unwrap(),
            "weir_session=; Path=/portal; Max-Age=0; HttpOnly; SameSite=Strict; Secure"
        );
    }

    #[test]
    fn the_token_is_found_among_other_cookies() {
        let mut request = HeaderMap::new();
        assert_eq!(token(&request), None);
        request.append(header::COOKIE, HeaderValue::from_static("a=b; not_weir_session=x"));
        request.append(header::COOKIE, HeaderValue::from_static("c=d; weir_session=abc;e"));
        assert_eq!(token(&request), Some("abc"));
    }
}
