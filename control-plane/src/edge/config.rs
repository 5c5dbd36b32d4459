//! `GET /edge/v1/config`: waits for changes that gateways must hear of.

use std::time::Duration;

use axum::{Json, extract::State};
use serde::Deserialize;
use weir_domain::protocol::{ConfigAnswer, RatingPolicy};

use super::changes;
use crate::{
    app::App,
    edge,
    extract::Query,
    problem::ApiError,
    rating::{self, Door},
};

/// How long a call waits for a change.
const WAIT: Duration = Duration::from_secs(20);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    version: u32,
    /// The revision that the gateway knows; 0 for none.
    after: u64,
    /// Who asks.
    gateway: Option<String>,
    /// The version of the policy by which it rates requests; 0 for none. Left out, it is not known yet,
    /// and requests wait for it.
    policy: Option<u32>,
}

/// Answers when there is a revision other than `after`, or another policy, or unchanged after [`WAIT`].
pub async fn config(
    State(app): State<App>,
    Query(wait): Query<Wait>,
) -> Result<Json<ConfigAnswer>, ApiError> {
    edge::check_version(wait.version)?;
    if let Some(gateway) = &wait.gateway {
        edge::check_id("gateway", gateway)?;
        app.gateways.saw(&app.db, gateway, wait.policy).await;
    }
    let first = answer(&app, &wait).await?;
    if first.revision != wait.after || first.policy.is_some() {
        return Ok(Json(first));
    }
    let (mut changed, mut stopping) = (app.changes.clone(), app.stopping.clone());
    tokio::select! {
        () = changed.newer_than(wait.after) => {}
        () = tokio::time::sleep(WAIT) => {}
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
    Ok(Json(answer(&app, &wait).await?))
}

/// The policy is looked up after the changes, so a gateway that has heard of a change of it gets it.
async fn answer(app: &App, wait: &Wait) -> Result<ConfigAnswer, ApiError> {
    let since = changes::since(&app.db, wait.after).await?;
    // Revisions larger than ours are of another database, or of one that was restored.
    let reset = since.tenants.is_none() || since.revision < wait.after;
    // There a version may have another text.
    let has = wait.policy.filter(|_| !reset);
    Ok(ConfigAnswer {
        revision: since.revision,
        reset,
        tenants: since.tenants.unwrap_or_default(),
        policy: policy(app, has).await?,
        now_ms: app.redis.now_ms(),
    })
}

/// The policy that a gateway should have, unless it has it.
async fn policy(app: &App, has: Option<u32>) -> Result<Option<RatingPolicy>, ApiError> {
    let active = rating::active(&app.db, Door::Gateways, has).await?;
    Ok(match active {
        Some(active) if Some(active.version) == has => None,
        Some(active) => Some(active),
        None if has == Some(0) => None,
        None => Some(RatingPolicy::default()),
    })
}
