//! What a gateway holds of a long lease after a burst.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{three_gateways, trace::Traffic};
use crate::{
    harness::{Fleet, SOON, monthly, wait_for},
    leases::bucket,
};

/// Far more than the burst takes, so that leases are long.
const LIMIT: u64 = 10_000_000;
/// What a gateway may hold for long of a tenant that comes rarely.
const LITTLE: u64 = 64;

/// A gateway gets a long lease by one request, and a burst makes much of it. When the burst is over,
/// the gateway gives back what it has no use for, though another tenant keeps its workers busy and the
/// lease has long to live.
#[tokio::test]
async fn what_a_burst_leaves_goes_back_from_a_busy_gateway() -> Result<()> {
    let fleet = three_gateways().await?;
    fleet.tenant("acme", &[monthly(LIMIT)], &[]).await?;
    fleet.tenant("other", &[monthly(LIMIT)], &[]).await?;
    let other = Traffic::start(&fleet, "other", &[8, 0, 0], Duration::from_millis(5))?;
    ensure!(fleet.call("acme", "/").await?.status == 200);
    wait_for("a lease that holds little", SOON, async || {
        Ok((1..=LITTLE).contains(&held(&fleet).await?).then_some(()))
    })
    .await?;
    let burst = Traffic::start(&fleet, "acme", &[12, 0, 0], Duration::ZERO)?;
    wait_for("a lease that holds much", SOON, async || {
        Ok((held(&fleet).await? > 4 * LITTLE).then_some(()))
    })
    .await?;
    let burst = burst.stop().await?;
    wait_for("the gateway to give back", SOON, async || {
        let held = held(&fleet).await?;
        ensure!(held <= LITTLE, "{held} are held");
        Ok(Some(()))
    })
    .await?;
    burst.only_admits_and_limits()?;
    ensure!(burst.of(429).count() == 0, "nobody is refused");
    other.stop().await?.only_admits_and_limits()?;
    fleet.ledger_reaches("acme", burst.admitted() + 1).await
}

/// What all gateways hold of acme's limit.
async fn held(fleet: &Fleet) -> Result<u64> {
    let bucket = bucket(fleet, "acme", "monthly").await?;
    let held = bucket["held"].as_object().context("no held")?;
    Ok(held.values().filter_map(serde_json::Value::as_u64).sum())
}
