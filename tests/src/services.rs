//! Services that are not behind Envoy: they report usage, or ask before they use something.

mod at_once;
mod data_api;
mod kills;
mod sdk;
mod usage;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::*;

/// The API for services of the first control plane, with a token of the role `usage`.
pub(crate) async fn service(fleet: &Fleet) -> Result<Api> {
    Ok(services(fleet).await?.swap_remove(0))
}

/// Those of all replicas.
pub(crate) async fn services(fleet: &Fleet) -> Result<Vec<Api>> {
    let token = json!({ "role": "usage", "name": "batch jobs" });
    let made = fleet.admin.post("/access-tokens", &token).await?.ok()?;
    let token = made["token"].as_str().context("no token")?;
    ensure!(token.starts_with("weir_usage_"), "{token}");
    let client = reqwest::Client::builder().timeout(SOON).build()?;
    let urls = fleet.stack.control_planes.iter().map(|replica| format!("{}/v1", replica.url()));
    Ok(urls.map(|url| Api::new(&client, url, token)).collect())
}

/// What becomes of all of them, carried out at once.
async fn all<T: Send + 'static>(
    works: impl IntoIterator<Item = impl Future<Output = Result<T>> + Send + 'static>,
) -> Result<Vec<T>> {
    JoinSet::from_iter(works).join_all().await.into_iter().collect()
}

/// Tokens and requests of a tenant in the records and in the rollup, which must agree: `tokens|requests`.
async fn stored(fleet: &Fleet, tenant: &str) -> Result<String> {
    // One statement sees both at the same moment.
    let sums = |table| {
        format!(
            "(select coalesce(sum(tokens), 0) || '|' || coalesce(sum(requests), 0) from {table}
              where tenant_id = '{tenant}')"
        )
    };
    let both = format!("select {}, {}", sums("usage_record"), sums("usage_rollup"));
    let both = fleet.stack.database.query(&both).await?;
    let fields: Vec<_> = both.split('|').collect();
    ensure!(fields[..2] == fields[2..], "records and rollup have {both}");
    Ok(fields[..2].join("|"))
}

/// A call of the data API for one request.
fn request(tenant: &str, id: &str) -> Value {
    json!({ "input": { "tenant_id": tenant, "request_id": id } })
}

const ALLOW: &str = "/data/openclaw/rate_limit/allow";
const DECISION: &str = "/data/openclaw/rate_limit/decision";
