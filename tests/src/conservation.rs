//! The law: what clients saw admitted = the ledger, and never more than the limit.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::json;
use xtask::load::{Counts, Until};

use crate::harness::{Fleet, SOON, continuous, monthly, periodic, wait_for};

/// 32 clients and two workers get exactly what the bucket holds: not one more, not one less.
#[tokio::test]
async fn a_tenant_is_limited_exactly_at_its_capacity() -> Result<()> {
    let fleet = Fleet::start().await?;
    fleet.tenant("acme", &[monthly(100)], &[]).await?;
    let counts = drive_until(&fleet, "acme", 100).await?;
    ensure!(counts.of(200) == 100, "{} of 100 were admitted", counts.of(200));
    ensure!(counts.of(200) + counts.of(429) == counts.total(), "{}", counts.of(200));
    fleet.ledger_reaches("acme", 100).await?;
    ensure!(fleet.stack.upstream.requests() == 100);
    Ok(())
}

/// The same with a limit that counts requests, and several gateways.
#[tokio::test]
async fn gateways_share_a_limit_exactly() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(2)).await?;
    fleet.tenant("acme", &[periodic("daily", "requests", 500, json!("day"))], &[]).await?;
    let counts = drive_until(&fleet, "acme", 500).await?;
    ensure!(counts.of(200) == 500, "{} of 500 were admitted", counts.of(200));
    fleet.ledger_reaches("acme", 500).await
}

/// Keeps 32 clients asking until `expected` were admitted, and a little longer to see one too many.
async fn drive_until(fleet: &Fleet, tenant: &str, expected: u64) -> Result<Arc<Counts>> {
    let counts = Arc::new(Counts::default());
    let started = Instant::now();
    while counts.of(200) < expected && started.elapsed() < SOON {
        fleet.load(tenant, 32).run(Until::requests(400), &counts).await?;
    }
    fleet.load(tenant, 32).run(Until::requests(400), &counts).await?;
    Ok(counts)
}

/// A continuous bucket gives its burst at once, then its rate: in any span T, capacity + rate × T.
#[tokio::test]
async fn a_continuous_limit_refills_at_its_rate() -> Result<()> {
    const CAPACITY: f64 = 50.0;
    const PER_S: f64 = 100.0;
    let fleet = Fleet::start().await?;
    fleet.tenant("acme", &[continuous("burst", "tokens", 50, 100, 1_000)], &[]).await?;
    let counts = Arc::new(Counts::default());
    let started = Instant::now();
    fleet.load("acme", 8).run(Until::elapsed(Duration::from_secs(4)), &counts).await?;
    let seconds = started.elapsed().as_secs_f64();
    let admitted = f64::from(u32::try_from(counts.of(200))?);
    let law = CAPACITY + PER_S * seconds;
    ensure!(admitted <= law, "{admitted} in {seconds} s is more than {law}");
    ensure!(admitted >= 0.9 * law, "{admitted} in {seconds} s is far less than {law}");
    fleet.ledger_reaches("acme", counts.of(200)).await
}

/// A plan without limits admits and counts everything.
#[tokio::test]
async fn without_limits_everything_is_counted() -> Result<()> {
    let fleet = Fleet::start().await?;
    fleet.tenant("acme", &[], &[]).await?;
    let counts = fleet.drive("acme", 16, 2_000).await?;
    ensure!(counts.of(200) == 2_000, "{}", counts.of(200));
    fleet.ledger_reaches("acme", 2_000).await
}

/// Killing the control plane in the middle of traffic loses nothing and counts nothing twice.
#[tokio::test]
async fn a_restart_of_the_control_plane_loses_and_duplicates_nothing() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(2)).await?;
    fleet.tenant("acme", &[monthly(1_000_000)], &[]).await?;
    fleet.tenant("dry", &[monthly(1_000)], &[]).await?;
    let counts = Arc::new(Counts::default());
    let dry = Arc::new(Counts::default());
    let load = |tenant: &str, counts: &Arc<Counts>| {
        let (load, counts) = (fleet.load(tenant, 8), Arc::clone(counts));
        tokio::spawn(async move { load.run(Until::elapsed(Duration::from_secs(8)), &counts).await })
    };
    let running = [load("acme", &counts), load("dry", &dry)];
    for _ in 0..3 {
        let before = counts.of(200);
        wait_for("traffic", SOON, async || Ok((counts.of(200) > before + 200).then_some(())))
            .await?;
        fleet.stack.control_planes[0].kill();
        fleet.stack.control_planes[0].restart().await?;
    }
    for load in running {
        load.await??;
    }
    ensure!(counts.of(200) > 600, "{}", counts.of(200));
    ensure!(dry.of(200) <= 1_000, "{} of 1000 were admitted", dry.of(200));
    fleet.ledger_reaches("acme", counts.of(200)).await?;
    fleet.ledger_reaches("dry", dry.of(200)).await
}

/// An idle gateway gives its lease back, so that nothing of a limit is stranded with it.
#[tokio::test]
async fn an_idle_gateway_strands_nothing() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(2)).await?;
    fleet.tenant("acme", &[monthly(100)], &[]).await?;
    // One request leases more than it needs at the first gateway, which then idles.
    ensure!(fleet.call("acme", "/").await?.status == 200);
    let counts = Arc::new(Counts::default());
    let only_second = || {
        let mut load = fleet.load("acme", 4);
        load.urls.remove(0);
        load
    };
    wait_for("all 99 at the other gateway", SOON, async || {
        only_second().run(Until::requests(50), &counts).await?;
        Ok((counts.of(200) >= 99).then_some(()))
    })
    .await?;
    ensure!(counts.of(200) == 99, "{}", counts.of(200));
    fleet.ledger_reaches("acme", 100).await
}

/// An Envoy that is drained before it stops loses nothing, and gives its leases back.
#[tokio::test]
async fn a_drained_gateway_loses_nothing() -> Result<()> {
    let fleet = Fleet::start().await?;
    fleet.tenant("acme", &[monthly(10_000)], &[]).await?;
    let gateway = &fleet.stack.gateways[0];
    let counts = Arc::new(Counts::default());
    let (load, counted) = (fleet.load("acme", 8), Arc::clone(&counts));
    let load = tokio::spawn(async move { load.run(Until::requests(3_000), &counted).await });
    wait_for("traffic", SOON, async || Ok((counts.of(200) > 500).then_some(()))).await?;

    let drain = format!("{}/drain_listeners?graceful", gateway.admin_url());
    reqwest::Client::new().post(drain).send().await?.error_for_status()?;
    load.await??;
    wait_for("all usage to be stored", SOON, async || {
        let (admitted, stored) =
            (gateway.weir_stat("admitted").await?, gateway.weir_stat("stored").await?);
        Ok((admitted == counts.of(200) && stored == admitted).then_some(()))
    })
    .await?;
    wait_for("the leases to go back", SOON, async || {
        let buckets = fleet.admin.get("/tenants/acme/buckets").await?.ok()?;
        let bucket = &buckets["items"][0];
        let held = bucket["held"].as_object().is_some_and(|held| held.values().any(|n| n != 0));
        let left = bucket["remaining"].as_u64();
        Ok((!held && left == Some(10_000 - counts.of(200))).then_some(()))
    })
    .await?;
    gateway.stop();
    fleet.ledger_reaches("acme", counts.of(200)).await
}

/// A ledger that was restored from a backup has forgotten which batch comes next. Gateways go on all
/// the same, and what they had not sent yet is counted.
#[tokio::test]
async fn a_ledger_that_forgot_goes_on() -> Result<()> {
    let fleet = Fleet::start().await?;
    fleet.tenant("acme", &[monthly(1_000)], &[]).await?;
    let before = fleet.drive("acme", 4, 100).await?;
    ensure!(before.of(200) == 100, "{} of 100", before.of(200));
    fleet.ledger_reaches("acme", 100).await?;

    fleet.stack.database.query("delete from usage_worker").await?;
    // Each worker has sent a batch, so that its next one is not the first.
    let after = fleet.drive("acme", 8, 100).await?;
    ensure!(after.of(200) == 100, "{} of 100", after.of(200));
    fleet.ledger_reaches("acme", 200).await
}
