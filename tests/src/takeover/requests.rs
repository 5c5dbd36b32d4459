//! What clients see whose requests were in a VM that trapped.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::json;

use super::spring;
use crate::harness::{Answer, Fleet, SOON, monthly, wait_for};

/// A request that waits for a lease in the VM that traps ends by Envoy's stream timeout, one that is
/// with the upstream gets a 503, and the next one gets a new VM.
#[tokio::test]
async fn no_request_of_a_trapped_vm_hangs() -> Result<()> {
    let fleet = Fleet::that_traps(|stack| {
        stack
            .concurrency(1)
            .plugin(json!({ "max_wait_ms": 60_000 }))
            .variable("WEIR_LEASE_TTL_MS", "10000")
            .edit("stream_idle_timeout: 60s", "stream_idle_timeout: 4s")
    })
    .await?;
    fleet.tenant("acme", &[monthly(100)], &[]).await?;
    fleet.tenant("late", &[monthly(100)], &[]).await?;
    ensure!(fleet.call("acme", "/").await?.status == 200);
    let ask = |tenant: &str, path: &str| {
        let request = fleet.request(Method::GET, path).header("x-tenant-id", tenant);
        tokio::spawn(async move {
            let sent = Instant::now();
            Answer::of(request).await.map(|answer| (answer, sent.elapsed()))
        })
    };
    fleet.stack.control_planes[0].kill();
    let waiting = ask("late", "/");
    let under_way = ask("acme", "/slow");
    let gateway = &fleet.stack.gateways[0];
    wait_for("both to be in the VM", SOON, async || {
        let waits = gateway.weir_stat("waited").await? >= 2;
        Ok((waits && fleet.stack.upstream.requests() == 2).then_some(()))
    })
    .await?;
    spring(&fleet, 0, "any").await?;

    let (under_way, _) = under_way.await??;
    ensure!(under_way.status == 503, "{under_way:?}");
    let (waiting, after) = waiting.await??;
    eprintln!("the one that waited got {} after {after:?}", waiting.status);
    ensure!(waiting.status == 503 && after >= Duration::from_secs(3), "{waiting:?}");
    fleet.stack.control_planes[0].restart().await?;
    wait_for("a new VM", SOON, async || {
        Ok((fleet.call("late", "/").await?.status == 200).then_some(()))
    })
    .await
}
