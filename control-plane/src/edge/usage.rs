//! `POST /edge/v1/usage`: a worker hands over a frozen batch; answered after the commit.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::StatusCode,
    routing::post,
};
use metrics::{counter, histogram};
use tokio::time::Instant;
use weir_domain::{
    protocol,
    usage::{MAX_BATCH_BYTES, UsageAnswer},
};

use crate::{
    app::App,
    ledger::{Incoming, Refused, commit::Outcome},
    problem::ApiError,
};

pub(super) fn router() -> Router<App> {
    Router::new()
        .route(protocol::USAGE_PATH, post(store))
        .layer(DefaultBodyLimit::max(MAX_BATCH_BYTES))
}

/// 200 when the batch is stored, was stored before, or is quarantined: the worker may forget it.
/// 409 when earlier batches of the worker are missing. 400 when it can't be told whose batch it is.
/// 503 when it can't be stored now.
async fn store(
    State(app): State<App>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<UsageAnswer>, ApiError> {
    let started = Instant::now();
    let answer = async {
        let batch = Incoming::read(body.map_err(unreadable)?)?;
        let sequence = batch.sequence;
        let outcome = app.ledger.store(batch).await.map_err(refused)?;
        answer_to(sequence, &outcome)
    }
    .await;
    match &answer {
        Err(ApiError::BadRequest { .. } | ApiError::TooLarge) => {
            counter!("weir_usage_batches_total", "outcome" => "unreadable").increment(1);
        }
        _ => histogram!("weir_usage_answer_seconds").record(started.elapsed()),
    }
    answer
}

fn answer_to(sequence: i64, outcome: &Outcome) -> Result<Json<UsageAnswer>, ApiError> {
    match outcome {
        Outcome::Stored | Outcome::Repeat | Outcome::Quarantined(_) => {
            Ok(Json(UsageAnswer { sequence: sequence.cast_unsigned() }))
        }
        Outcome::Gap { expected } => Err(ApiError::Conflict(format!(
            "batch {sequence} leaves a gap: the next batch of this worker is {expected}; send the \
             batches in order"
        ))),
    }
}

fn unreadable(rejection: BytesRejection) -> ApiError {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return ApiError::TooLarge;
    }
    ApiError::bad_request(rejection.body_text())
}

fn refused(refused: Refused) -> ApiError {
    match refused {
        Refused::Full => {
            counter!("weir_usage_batches_total", "outcome" => "refused").increment(1);
            ApiError::Busy("too many usage batches wait to be stored")
        }
        Refused::Failed => {
            ApiError::Busy("the batch could not be stored: Postgres failed or can't be reached")
        }
    }
}
