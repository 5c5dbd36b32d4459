//! Errors as callers see them: `application/problem+json` (RFC 9457).
//!
//! What a caller did wrong is said in full, with the field. What went wrong inside goes to the log.

use axum::{
    Json,
    extract::OriginalUri,
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use thiserror::Error;

/// One thing that is wrong with an input.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// Where it is, such as `limits[0].capacity`.
    pub field: String,
    pub detail: String,
}

/// The body of every error answer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub title: &'static str,
    pub status: u16,
    /// What was wrong and what to do.
    pub detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// Why a call was not carried out.
#[derive(Debug, Error)]
pub enum ApiError {
    #[error("{detail}")]
    BadRequest { detail: String, errors: Vec<FieldError> },
    #[error("{0}")]
    Unauthorized(&'static str),
    #[error("{0}")]
    Forbidden(String),
    #[error("there is no {what} {id:?}")]
    NotFound { what: &'static str, id: String },
    #[error("{method} is not possible at {path}; the header Allow says what is")]
    MethodNotAllowed { method: Method, path: String },
    #[error("{0}")]
    Conflict(String),
    #[error("{0}; try again")]
    Busy(&'static str),
    #[error("the body is larger than is allowed here; send less")]
    TooLarge,
    #[error("{0} cannot be reached at the moment; try again")]
    Unavailable(&'static str, #[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("an internal error; the control plane's log has the details")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ApiError {
    /// One field of the input is wrong.
    pub fn field(field: impl Into<String>, detail: impl ToString) -> Self {
        let error = FieldError { field: field.into(), detail: detail.to_string() };
        Self::BadRequest {
            detail: format!("{}: {}", error.field, error.detail),
            errors: vec![error],
        }
    }

    /// The input as a whole is wrong.
    pub fn bad_request(detail: impl ToString) -> Self {
        Self::BadRequest { detail: detail.to_string(), errors: Vec::new() }
    }

    /// Something that the caller can't mend.
    pub fn internal(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Internal(Box::new(error))
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest { .. } => StatusCode::BAD_REQUEST,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Busy(_) | Self::Unavailable(..) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
                Self::Unavailable("Postgres", Box::new(error))
            }
            sqlx::Error::Database(ref cause) if cause.code().is_some_and(is_outage) => {
                Self::Unavailable("Postgres", Box::new(error))
            }
            other => Self::internal(other),
        }
    }
}

/// Whether a SQLSTATE says that the server is starting, stopping, full or cut off.
fn is_outage(code: std::borrow::Cow<'_, str>) -> bool {
    ["57P", "53", "08"].iter().any(|class| code.starts_with(class))
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        if let Self::Unavailable(_, source) | Self::Internal(source) = &self {
            tracing::error!(error = source.as_ref(), "{self}");
        }
        let detail = self.to_string();
        let errors = match self {
            Self::BadRequest { errors, .. } => errors,
            _ => Vec::new(),
        };
        let problem = Problem {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail,
            errors,
        };
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// For paths that nothing answers.
pub async fn no_such_endpoint(OriginalUri(uri): OriginalUri) -> ApiError {
    ApiError::NotFound { what: "endpoint", id: uri.path().to_owned() }
}

/// For methods that a path does not have.
pub async fn wrong_method(method: Method, OriginalUri(uri): OriginalUri) -> ApiError {
    ApiError::MethodNotAllowed { method, path: uri.path().to_owned() }
}
