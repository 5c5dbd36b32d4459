//! `POST /edge/v1/leases`: what a gateway may spend.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use axum::{Json, extract::State};
use weir_domain::{
    protocol::{LeaseRequest, LeaseResponse, MAX_LEASES_PER_CALL},
    quantity::Quantity,
};

use crate::{app::App, edge, extract::JsonBody, problem::ApiError};

/// The longest stamp that a gateway may send back.
const MAX_STAMP_LEN: usize = 64;

/// How long a call waits for that. Postgres may be away, and a gateway know of what a restored database
/// does not.
const CATCH_UP_WITHIN: Duration = Duration::from_millis(300);

pub async fn lease(
    State(app): State<App>,
    JsonBody(request): JsonBody<LeaseRequest>,
) -> Result<Json<LeaseResponse>, ApiError> {
    check(&request)?;
    // Another replica told the gateway of a change that this one is yet to hear of.
    if let Some(before) = request.revision.checked_sub(1) {
        let mut changes = app.changes.clone();
        let _ = tokio::time::timeout(CATCH_UP_WITHIN, changes.newer_than(before)).await;
    }
    let started = Instant::now();
    let leases = app.leases.answer(&request).await;
    metrics::histogram!("weir_lease_call_seconds").record(started.elapsed().as_secs_f64());
    Ok(Json(LeaseResponse { leases: leases? }))
}

fn check(request: &LeaseRequest) -> Result<(), ApiError> {
    edge::check_version(request.version)?;
    edge::check_id("gateway", &request.gateway)?;
    edge::check_id("worker", &request.worker)?;
    if request.leases.len() > MAX_LEASES_PER_CALL {
        return Err(ApiError::field(
            "leases",
            format!(
                "{} leases are asked for, at most {MAX_LEASES_PER_CALL} are allowed in one call",
                request.leases.len()
            ),
        ));
    }
    let mut tenants = HashSet::new();
    for (index, ask) in request.leases.iter().enumerate() {
        let wrong = |field: &str, detail: &str| {
            Err(ApiError::field(format!("leases[{index}].{field}"), detail))
        };
        if !ask.want.covers(ask.need) {
            return wrong("want", "must be at least need, in both units");
        }
        if ask.call == 0 || ask.call > Quantity::MAX.get() {
            return wrong("call", "must be 1 to 2^53 - 1");
        }
        if ask.stamp.len() > MAX_STAMP_LEN {
            return wrong("stamp", "is longer than any stamp that was given out");
        }
        if !tenants.insert(&ask.tenant) {
            return wrong("tenant", "is asked for twice in this call");
        }
    }
    Ok(())
}
