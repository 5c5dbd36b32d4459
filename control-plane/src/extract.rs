//! Input that says what is wrong with it: bodies, queries and paths whose errors are problems.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;

use crate::problem::{ApiError, FieldError};

/// A JSON body. An error names the field.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes =
            Bytes::from_request(request, state).await.map_err(|rejection| {
                match rejection.status() {
                    StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge,
                    _ => ApiError::bad_request(rejection.body_text()),
                }
            })?;
        parse_json(&bytes).map(Self)
    }
}

/// Parses `bytes` as JSON; the error names the field.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let field = error.path().to_string();
        let cause = error.into_inner();
        let detail = cause.to_string();
        let expected = if cause.is_data() {
            "the body is not the JSON that is expected here"
        } else {
            "the body is not JSON"
        };
        // The body as a whole, or where a name should be.
        if field == "." || field.ends_with('?') {
            return ApiError::bad_request(format!("{expected}: {detail}"));
        }
        ApiError::BadRequest {
            detail: format!("{expected}: {field}: {detail}"),
            errors: vec![FieldError { field, detail }],
        }
    })?;
    deserializer.end().map_err(|error| {
        ApiError::bad_request(format!("the body has more than one JSON value: {error}"))
    })?;
    Ok(value)
}

/// The query string.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        axum::extract::Query::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|rejection| ApiError::bad_request(rejection.body_text()))
    }
}

/// The parameters in the path.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        axum::extract::Path::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(path)| Self(path))
            .map_err(|rejection| ApiError::bad_request(rejection.body_text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Body {
        #[allow(dead_code, reason = "only its errors count here")]
        amount: u64,
    }

    fn told(text: &str) -> (String, Vec<String>) {
        match parse_json::<Body>(text.as_bytes()) {
            Err(ApiError::BadRequest { detail, errors }) => {
                (detail, errors.into_iter().map(|error| error.field).collect())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_field_is_named_where_there_is_one() {
        for text in ["", "{{", r#"{"amount":"#, r#"{"amount":}"#] {
            let (detail, fields) = told(text);
            assert!(detail.starts_with("the body is not JSON: "), "{text}: {detail}");
            let named: &[&str] = if text.contains("amount") { &["amount"] } else { &[] };
            assert_eq!(fields, named, "{text}");
        }
        assert_eq!(told(r#"{"amount":-1}"#).1, ["amount"]);
        assert!(told("{}").0.contains("missing field `amount`"));
    }
}
