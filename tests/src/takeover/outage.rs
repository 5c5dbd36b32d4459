//! A worker traps while the control plane is away.

use anyhow::{Result, ensure};
use serde_json::json;
use xtask::stack::Network;

use super::spring;
use crate::harness::{Fleet, SOON, monthly, wait_for};

/// The worker whose calls failed is gone when the control plane is back. Another one calls, so that
/// the tenant is served again; what its outage contract admitted meanwhile is stored.
#[tokio::test]
async fn an_outage_ends_without_the_worker_that_noticed_it() -> Result<()> {
    for then in ["deny", "allow"] {
        let plugin = json!({ "max_wait_ms": 300, "outage": { "then": then } });
        let fleet = Fleet::that_traps(|stack| stack.concurrency(1).links().plugin(plugin)).await?;
        fleet.tenant("acme", &[monthly(1_000)], &[]).await?;
        let reason = async |expected: &str| {
            wait_for(&format!("`{expected}`"), SOON, async || {
                let answer = fleet.call("acme", "/").await?;
                ensure!(answer.header("x-weir-reason") == expected, "{answer:?}");
                Ok(Some(answer.status))
            })
            .await
        };
        ensure!(reason("").await? == 200);
        fleet.stack.links[0].set(Network::Cut);
        let outage = if then == "allow" { "outage_allowed" } else { "control_plane_unreachable" };
        reason(outage).await?;
        spring(&fleet, 0, "any").await?;
        fleet.stack.links[0].set(Network::Up);
        wait_for("an answer under a lease", SOON, async || {
            let answer = fleet.call("acme", "/").await?;
            let leased = answer.status == 200 && answer.header("x-weir-reason").is_empty();
            ensure!(leased, "{answer:?}");
            Ok(Some(()))
        })
        .await?;
    }
    Ok(())
}
