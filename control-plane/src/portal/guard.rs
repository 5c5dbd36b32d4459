//! What keeps other sites out: response headers, and forms that only our own pages may send.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::view::{Failure, html};

/// Nothing but our own stylesheet is loaded, and nothing is kept by caches.
const HEADERS: [(header::HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // Not no-referrer: with that, browsers hide the Origin of our own forms.
    (header::REFERRER_POLICY, "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
];

pub(super) async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Refuses forms that a page of another site sends. (The cookie's SameSite=Strict does so too; this
/// also keeps others from signing somebody in.)
pub(super) async fn own_forms_only(request: Request, next: Next) -> Response {
    if is_own(request.headers()) {
        return next.run(request).await;
    }
    let detail = "this form was sent from another site; open the portal and use its own".to_owned();
    let status = StatusCode::FORBIDDEN;
    html(status, &Failure { status: status.as_u16(), detail }).into_response()
}

/// Browsers say where a form comes from; what is not a browser has no cookies to abuse.
fn is_own(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let origin_host =
        origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    origin_host.is_some() && origin_host == host
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_pages_send_forms() {
        let own = |origin: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("weir.example:8080"));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            }
            is_own(&headers)
        };
        assert!(own(None));
        assert!(own(Some("https://weir.example:8080")));
        for origin in
            ["null", "", "https://evil.example", "https://weir.example", "weir.example:8080"]
        {
            assert!(!own(Some(origin)), "{origin}");
        }
    }
}
