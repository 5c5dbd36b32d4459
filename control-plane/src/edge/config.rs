//! `GET /edge/v1/config`: waits for changes that gateways must hear of.

use std::time::Duration;

use axum::{Json, extract::State};
use serde::Deserialize;
use weir_domain::protocol::ConfigAnswer;

use super::changes::{self, Since};
use crate::{app::App, edge, extract::Query, problem::ApiError};

/// How long a call waits for a change.
const WAIT: Duration = Duration::from_secs(20);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    version: u32,
    /// The revision that the gateway knows; 0 for none.
    after: u64,
}

/// Answers when there is a revision other than `after`, or unchanged after [`WAIT`].
pub async fn config(
    State(app): State<App>,
    Query(wait): Query<Wait>,
) -> Result<Json<ConfigAnswer>, ApiError> {
    edge::check_version(wait.version)?;
    let since = changes::since(&app.db, wait.after).await?;
    if since.revision != wait.after {
        return Ok(Json(answer(since, wait.after)));
    }
    let (mut changed, mut stopping) = (app.changes.clone(), app.stopping.clone());
    tokio::select! {
        () = changed.newer_than(wait.after) => {}
        () = tokio::time::sleep(WAIT) => {}
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
    Ok(Json(answer(changes::since(&app.db, wait.after).await?, wait.after)))
}

fn answer(since: Since, after: u64) -> ConfigAnswer {
    ConfigAnswer {
        revision: since.revision,
        // Revisions larger than ours are of another database, or of one that was restored.
        reset: since.tenants.is_none() || since.revision < after,
        tenants: since.tenants.unwrap_or_default(),
    }
}
