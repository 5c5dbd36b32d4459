//! Errors in OPA's form: `{"code", "message", "errors": [{"code", "message", "location"}]}`.

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;
use weir_policy::CompileError;

use crate::{problem::ApiError, rating::Refused};

/// Why a call was not carried out.
#[derive(Debug)]
pub enum OpaError {
    /// The text of the policy of this name is wrong.
    Compile {
        file: String,
        error: CompileError,
    },
    Api(ApiError),
}

/// The body of every error answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorAnswer {
    /// `invalid_parameter`, `unauthorized`, `resource_not_found`, `resource_conflict` or `internal_error`.
    pub code: &'static str,
    pub message: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Mistake>,
}

/// One mistake in a policy.
#[derive(Debug, Serialize, ToSchema)]
pub struct Mistake {
    pub code: &'static str,
    pub message: String,
    pub location: Location,
}

/// Where it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Location {
    /// The policy's id.
    pub file: String,
    /// 1 for the first line.
    pub row: u32,
    /// 1 for the first character of the line.
    pub col: u32,
}

impl OpaError {
    /// Of what was sent for the policy `file`.
    pub fn of(file: &str, refused: Refused) -> Self {
        match refused {
            Refused::Compile(error) => Self::Compile { file: file.to_owned(), error },
            Refused::Api(error) => Self::Api(error),
        }
    }
}

impl From<ApiError> for OpaError {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl From<sqlx::Error> for OpaError {
    fn from(error: sqlx::Error) -> Self {
        Self::Api(error.into())
    }
}

impl IntoResponse for OpaError {
    fn into_response(self) -> Response {
        let error = match self {
            Self::Compile { file, error } => {
                let location = Location { file, row: error.line, col: error.column };
                let mistake =
                    Mistake { code: "rego_compile_error", message: error.message, location };
                let answer = ErrorAnswer {
                    code: "invalid_parameter",
                    message: "error(s) occurred while compiling module(s)".to_owned(),
                    errors: vec![mistake],
                };
                return (StatusCode::BAD_REQUEST, Json(answer)).into_response();
            }
            Self::Api(error) => error,
        };
        let code = match error.status() {
            StatusCode::UNAUTHORIZED => "unauthorized",
            StatusCode::NOT_FOUND => "resource_not_found",
            StatusCode::CONFLICT => "resource_conflict",
            status if status.is_client_error() => "invalid_parameter",
            _ => "internal_error",
        };
        let answer = ErrorAnswer { code, message: error.to_string(), errors: Vec::new() };
        // It logs what is to be logged, and says when to come again.
        let problem = error.into_response();
        let mut response = (problem.status(), Json(answer)).into_response();
        for name in [header::RETRY_AFTER, header::WWW_AUTHENTICATE] {
            if let Some(value) = problem.headers().get(&name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
        response
    }
}
