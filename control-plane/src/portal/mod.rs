//! The portal, `/portal`: what a tenant sees of itself, signed in with its API key. HTML from the
//! server, without scripts.
//!
//! | module | subject |
//! |---|---|
//! | [`session`] | who is signed in |
//! | [`guard`] | response headers, and forms that only our own pages may send |
//! | [`account`] | what the page shows, read in one snapshot |
//! | [`invoices`] | one invoice as a page or a file |
//! | [`view`] | the templates, and what they are filled with |
//! | [`words`] | what an invoice says, in words |
//! | [`format`] | how numbers and times are written for people |

mod account;
pub(crate) mod format;
mod guard;
mod invoices;
mod session;
mod view;
pub(crate) mod words;

use axum::{
    Form, Router,
    extract::{DefaultBodyLimit, State, rejection::FormRejection},
    http::{HeaderMap, StatusCode, header},
    middleware,
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::Deserialize;

use self::view::{Failure, SignIn, html};
use crate::{app::App, problem::ApiError};

/// The largest form, in bytes.
const MAX_FORM: usize = 4096;

pub fn router() -> Router<App> {
    let forms = Router::new()
        .route("/portal/sign-in", post(sign_in))
        .route("/portal/sign-out", post(sign_out))
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .layer(middleware::from_fn(guard::own_forms_only));
    Router::new()
        .route("/portal", get(show))
        .route("/portal/invoices/{invoice}", get(invoices::show))
        .route("/portal/style.css", get(style))
        .merge(forms)
        .layer(middleware::from_fn(guard::headers))
}

/// An error as a page.
struct PageError(ApiError);

impl<E: Into<ApiError>> From<E> for PageError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let detail = self.0.to_string();
        // For the status, and for what goes to the log.
        let status = self.0.into_response().status();
        html(status, &Failure { status: status.as_u16(), detail })
    }
}

async fn show(State(app): State<App>, headers: HeaderMap) -> Result<Response, PageError> {
    let mut db = app.db.acquire().await?;
    let Some(tenant) = session::tenant(&mut db, &headers).await? else {
        return Ok(html(StatusCode::OK, &SignIn { message: None }));
    };
    drop(db);
    let account = account::read(&app, &tenant).await?;
    Ok(html(StatusCode::OK, &view::Page::of(account)))
}

#[derive(Deserialize)]
struct SignInForm {
    key: String,
}

async fn sign_in(
    State(app): State<App>,
    headers: HeaderMap,
    form: Result<Form<SignInForm>, FormRejection>,
) -> Result<Response, PageError> {
    let key = match &form {
        Ok(Form(form)) => form.key.trim(),
        Err(_) => "",
    };
    if key.is_empty() {
        let message = Some("Enter one of your API keys.");
        return Ok(html(StatusCode::BAD_REQUEST, &SignIn { message }));
    }
    let mut db = app.db.acquire().await?;
    let Some(token) = session::start(&mut db, key).await? else {
        let message = Some(
            "This API key is not known, or has been revoked. Check that you copied all of it.",
        );
        return Ok(html(StatusCode::UNAUTHORIZED, &SignIn { message }));
    };
    let cookie = session::cookie(Some(&token), &headers)?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/portal")).into_response())
}

async fn sign_out(State(app): State<App>, headers: HeaderMap) -> Result<Response, PageError> {
    let mut db = app.db.acquire().await?;
    session::end(&mut db, &headers).await?;
    let cookie = session::cookie(None, &headers)?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/portal")).into_response())
}

async fn style() -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "max-age=300")];
    (headers, include_str!("../../templates/portal/style.css")).into_response()
}
