//! Workers that trap, stand still or are replaced while the Envoy that they are in goes on.

mod lost;
mod outage;
mod panics;
mod reload;
mod requests;
mod trap;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::harness::{Answer, Fleet, SOON, wait_for};

/// Whom traps are sprung as: a tenant of its own, so that counts of others are not disturbed.
const BAIT: &str = "bait";

/// When a VM trapped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trap {
    pub(crate) sent: Instant,
    pub(crate) answered: Instant,
}

/// Sends requests to a gateway until one makes a VM trap, which is `any`, that of the `refresher`, or
/// any `other`.
pub(crate) async fn spring(fleet: &Fleet, gateway: usize, who: &str) -> Result<Trap> {
    let url = fleet.stack.gateways[gateway].url();
    for _ in 0..100 {
        // A connection of its own, so that it gets to any worker.
        let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?;
        let sent = Instant::now();
        let request = client.get(&url).header("x-tenant-id", BAIT).header("x-weir-trap", who);
        let answer = Answer::of(request).await?;
        // Envoy's own answer, without a reason of the filter; or that of a native module.
        let reason = answer.header("x-weir-reason");
        if answer.status == 503 && ["", "worker_failed"].contains(&reason) {
            return Ok(Trap { sent, answered: Instant::now() });
        }
    }
    bail!("no VM trapped as `{who}`")
}

/// How many VMs of a gateway Envoy has replaced.
async fn reloads(fleet: &Fleet, gateway: usize) -> Result<u64> {
    let stats = fleet.stack.gateways[gateway].stats().await?;
    Ok(stats.iter().filter(|(name, _)| name.ends_with("vm_reload_success")).map(|(_, n)| n).sum())
}

/// Waits until so many workers of a gateway were found to be lost.
async fn are_missed(fleet: &Fleet, gateway: usize, workers: u64) -> Result<()> {
    wait_for("lost workers to be missed", SOON, async || {
        let lost = fleet.stack.gateways[gateway].weir_stat("lost_workers").await?;
        Ok((lost >= workers).then_some(()))
    })
    .await
}

/// Lets a time pass.
async fn passes(time: Duration) -> Result<()> {
    let ends = Instant::now() + time;
    wait_for("time to pass", time + SOON, async || Ok((Instant::now() >= ends).then_some(()))).await
}
