//! What clients see whose requests were with a worker of a native module that panicked.

use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::json;

use super::spring;
use crate::harness::{Answer, Fleet, SOON, monthly, wait_for};

/// A request that waits for a lease is told at once that its worker failed, one that is with the upstream
/// gets its answer, and the next one gets a new worker.
#[tokio::test]
async fn no_request_of_a_worker_that_panicked_hangs() -> Result<()> {
    let fleet = Fleet::that_panics(|stack| {
        stack
            .concurrency(1)
            .plugin(json!({ "max_wait_ms": 60_000 }))
            .variable("WEIR_LEASE_TTL_MS", "10000")
    })
    .await?;
    fleet.tenant("acme", &[monthly(100)], &[]).await?;
    fleet.tenant("late", &[monthly(100)], &[]).await?;
    ensure!(fleet.call("acme", "/").await?.status == 200);
    let ask = |tenant: &str, path: &str| {
        let request = fleet.request(Method::GET, path).header("x-tenant-id", tenant);
        tokio::spawn(Answer::of(request))
    };
    fleet.stack.control_planes[0].kill();
    let waiting = ask("late", "/");
    let under_way = ask("acme", "/slow");
    let gateway = &fleet.stack.gateways[0];
    wait_for("both to be with the worker", SOON, async || {
        let waits = gateway.weir_stat("waited").await? >= 2;
        Ok((waits && fleet.stack.upstream.requests() == 2).then_some(()))
    })
    .await?;
    spring(&fleet, 0, "any").await?;

    let waiting = waiting.await??;
    ensure!(waiting.status == 503, "{waiting:?}");
    ensure!(waiting.header("x-weir-reason") == "worker_failed", "{waiting:?}");
    let under_way = under_way.await??;
    ensure!(under_way.status == 200, "{under_way:?}");
    fleet.stack.control_planes[0].restart().await?;
    wait_for("a new worker", SOON, async || {
        Ok((fleet.call("late", "/").await?.status == 200).then_some(()))
    })
    .await
}
