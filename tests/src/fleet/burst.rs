//! Leases in hand, and a burst at all gateways.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{
    three_gateways,
    trace::{Trace, Traffic},
};
use crate::{
    harness::{Fleet, SOON, continuous, wait_for},
    leases::bucket,
};

const CAPACITY: u64 = 100;
const PER_SECOND: u64 = 50;

/// A gateway gets a lease by one request and idles while the bucket refills around it; then a burst
/// at all gateways takes what it can, so that the lease is spent on top of a full bucket if anything
/// lets it. Twice: the second time on leases that were spent and given back.
#[tokio::test]
async fn an_idle_lease_does_not_add_to_a_burst() -> Result<()> {
    let fleet = three_gateways().await?;
    let limit = continuous("rate", "tokens", CAPACITY, PER_SECOND, 1_000);
    fleet.tenant("acme", &[limit], &[]).await?;
    let mut bursts = Vec::new();
    for _ in 0..2 {
        let lease = Traffic::start(&fleet, "acme", &[1], Duration::from_secs(1))?;
        wait_for("a lease, and a bucket that is full but for it", SOON, async || {
            is_full_around_a_lease(&fleet).await.map(|is_full| is_full.then_some(()))
        })
        .await?;
        let burst = Traffic::start(&fleet, "acme", &[4, 4, 4], Duration::from_millis(2))?;
        wait_for("refusals at the end of the burst", SOON, async || {
            Ok((burst.count(429) >= 300).then_some(()))
        })
        .await?;
        bursts.extend([lease.stop().await?, burst.stop().await?]);
    }
    let trace = Trace::merged(bursts);

    trace.only_admits_and_limits()?;
    trace.keeps_the_law(CAPACITY, PER_SECOND)?;
    ensure!(trace.admitted() >= CAPACITY, "{} are admitted", trace.admitted());
    fleet.ledger_reaches("acme", trace.admitted()).await
}

async fn is_full_around_a_lease(fleet: &Fleet) -> Result<bool> {
    let bucket = bucket(fleet, "acme", "rate").await?;
    let held = bucket["held"].as_object().context("no held")?;
    let held: u64 = held.values().filter_map(serde_json::Value::as_u64).sum();
    Ok(held > 0 && bucket["remaining"] == CAPACITY)
}
