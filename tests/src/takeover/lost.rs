//! What a lost worker leaves: usage that it had frozen, and tokens that it had drawn.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::{BAIT, are_missed, passes, reloads};
use crate::{
    fleet::trace::{Trace, Traffic},
    harness::{Answer, Fleet, SOON, continuous, monthly, wait_for},
    leases::{Worker, amount, bucket},
};

/// A worker traps whose batch is not acknowledged: another posts it. Once, and also to a ledger that
/// has forgotten which batch comes next.
async fn frozen_usage_is_posted(ledger_forgets: bool) -> Result<()> {
    // Rarely flushed, so that there is time to kill the control plane before.
    let fleet = Fleet::that_traps(|stack| {
        stack.variable("WEIR_LEASE_TTL_MS", "10000").plugin(json!({ "flush_ms": 2_000 }))
    })
    .await?;
    fleet.tenant("acme", &[monthly(100)], &[]).await?;
    fleet.tenant(BAIT, &[], &[]).await?;
    // One connection, so one worker.
    ensure!(fleet.call("acme", "/").await?.status == 200);
    fleet.ledger_reaches("acme", 1).await?;
    ensure!(fleet.call("acme", "/").await?.status == 200);
    fleet.stack.control_planes[0].kill();
    let gateway = &fleet.stack.gateways[0];
    wait_for("a batch that is not acknowledged", SOON, async || {
        Ok((gateway.weir_stat("usage_batch_failures").await? > 0).then_some(()))
    })
    .await?;
    let trap = fleet.request(Method::GET, "/").header("x-tenant-id", "acme");
    let trapped = Answer::of(trap.header("x-weir-trap", "any")).await?;
    ensure!(trapped.status == 503, "{trapped:?}");
    if ledger_forgets {
        fleet.stack.database.query("delete from usage_worker").await?;
    }
    fleet.stack.control_planes[0].restart().await?;
    // A new VM, which may become the refresher.
    wait_for("a worker", SOON, async || {
        Ok((fleet.call(BAIT, "/").await?.status == 200).then_some(()))
    })
    .await?;
    fleet.ledger_reaches("acme", 2).await?;
    wait_for("the orphan to be noted", SOON, async || {
        Ok((gateway.weir_stat("orphans_posted").await? == 1).then_some(()))
    })
    .await?;
    ensure!(fleet.ledger("acme").await? == (2, 2));
    Ok(())
}

#[tokio::test]
async fn what_a_lost_worker_had_frozen_is_posted_by_another() -> Result<()> {
    frozen_usage_is_posted(false).await
}

#[tokio::test]
async fn what_a_lost_worker_had_frozen_is_posted_to_a_ledger_that_forgot() -> Result<()> {
    frozen_usage_is_posted(true).await
}

const CAPACITY: u64 = 5_000;
/// More than a few requests hold, and less than what is lost.
const MUCH: u64 = 100;

/// A VM traps when a lease is on its way to it, so that what was granted is lost, and its tenant stays
/// busy, so that the lease is renewed again and again. What is lost comes back to the bucket all the
/// same.
#[tokio::test]
async fn what_a_lost_worker_had_drawn_comes_back_to_the_bucket() -> Result<()> {
    let fleet = Fleet::that_traps(|stack| stack.variable("WEIR_LEASE_TTL_MS", "8000")).await?;
    fleet.tenant("acme", &[continuous("rate", "tokens", CAPACITY, CAPACITY, 1_000)], &[]).await?;
    let busy = Traffic::start(&fleet, "acme", &[8], Duration::ZERO)?;
    wait_for("traffic", SOON, async || Ok((busy.count(200) >= 1_500).then_some(()))).await?;
    // On a connection of its own: the others may all be the other worker's, and this one never call.
    let armed = reqwest::Client::new();
    let request = || armed.get(fleet.stack.gateways[0].url()).header("x-tenant-id", "acme");
    Answer::of(request().header("x-weir-trap", "answer")).await?;
    wait_for("the VM to be replaced", SOON, async || {
        if reloads(&fleet, 0).await? > 0 {
            return Ok(Some(()));
        }
        for _ in 0..20 {
            Answer::of(request()).await?;
        }
        Ok(None)
    })
    .await?;
    let busy = busy.stop().await?;
    // What is not lost goes back when it idles.
    let lost = wait_for("what is lost to count as held", SOON, async || {
        let before = held(&fleet).await?;
        passes(Duration::from_millis(700)).await?;
        let now = held(&fleet).await?;
        ensure!(now == before && now > MUCH, "{before} were held, {now} are");
        Ok(Some(now))
    })
    .await?;
    // A few requests keep the lease alive.
    let trickle = Traffic::start(&fleet, "acme", &[1], Duration::from_millis(100))?;
    wait_for("them", SOON, async || Ok((trickle.count(200) >= 3).then_some(()))).await?;
    let still = held(&fleet).await?;
    let missed = fleet.stack.gateways[0].weir_stat("lost_workers").await? > 0;
    ensure!(still > MUCH || missed, "the lease has ended");
    are_missed(&fleet, 0, 1).await?;
    let held = wait_for("what was lost not to count as held", SOON * 2, async || {
        let held = held(&fleet).await?;
        ensure!(held <= MUCH, "{held} are held, {lost} are lost");
        Ok(Some(held))
    })
    .await?;
    eprintln!("{lost} were lost, {held} are held in the end");
    // And it can be spent again: by another gateway here.
    let other = Worker::new(&fleet, "other", "w");
    wait_for("a full bucket", SOON, async || {
        let need = amount(CAPACITY - MUCH, 1);
        Ok((other.ask("acme", need, need).await?.granted == need).then_some(()))
    })
    .await?;
    let trace = Trace::merged(vec![busy, trickle.stop().await?]);
    ensure!(fleet.ledger("acme").await?.1 <= fleet.stack.upstream.requests());
    trace.keeps_the_law(CAPACITY, CAPACITY)
}

async fn held(fleet: &Fleet) -> Result<u64> {
    let bucket = bucket(fleet, "acme", "rate").await?;
    let held = bucket["held"].as_object().context("no held")?;
    Ok(held.values().filter_map(Value::as_u64).sum())
}

/// One worker stands still for so long that others take it for gone: its place and its outbox are
/// theirs then. When it goes on, it does so at another place; nothing is counted twice or not at all.
#[tokio::test]
async fn a_worker_that_stood_still_counts_once() -> Result<()> {
    let fleet = Fleet::that_traps(|stack| stack).await?;
    let (acme, rate) = busy(&fleet, 1).await?;
    let stall = fleet.request(Method::GET, "/").header("x-tenant-id", "acme");
    let stalled = Answer::of(stall.header("x-weir-trap", "stall")).await?;
    ensure!(stalled.status == 200, "{stalled:?}");
    are_missed(&fleet, 0, 1).await?;
    let served = acme.count(200);
    wait_for("traffic", SOON, async || Ok((acme.count(200) >= served + 500).then_some(()))).await?;
    let (acme, rate) = (acme.stop().await?, rate.stop().await?);
    rate.keeps_the_law(100, 50)?;
    fleet.ledger_reaches("acme", acme.admitted() + 1).await?;
    fleet.ledger_reaches("rate", rate.admitted()).await
}

/// A whole Envoy stands still for as long, and all its workers may find each other gone.
#[tokio::test]
async fn an_envoy_that_stood_still_counts_once() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(2)).await?;
    let (acme, rate) = busy(&fleet, 2).await?;
    let gateway = &fleet.stack.gateways[0];
    let paused = Instant::now();
    gateway.pause();
    passes(Duration::from_secs(6)).await?;
    let went_on = Instant::now();
    gateway.go_on();
    wait_for("traffic at both", SOON, async || Ok(acme.is_served_since(went_on, 2).then_some(())))
        .await?;
    passes(Duration::from_secs(1)).await?;
    let (acme, rate) = (acme.stop().await?, rate.stop().await?);
    for seen in acme.0.iter().chain(&rate.0).filter(|seen| ![200, 429].contains(&seen.status)) {
        // Calls to the control plane have taken too long when it goes on, and are repeated first.
        let repeated = went_on + Duration::from_secs(2);
        let waited = seen.gateway == 0 && seen.sent <= repeated && seen.answered >= paused;
        ensure!(seen.status == 503 && waited, "{seen:?}");
    }
    rate.keeps_the_law(100, 50)?;
    fleet.ledger_reaches("acme", acme.admitted()).await?;
    fleet.ledger_reaches("rate", rate.admitted()).await
}

/// Two tenants with traffic at all gateways: `acme`, which has enough, and `rate`.
async fn busy(fleet: &Fleet, gateways: usize) -> Result<(Traffic, Traffic)> {
    fleet.tenant("acme", &[monthly(1_000_000)], &[]).await?;
    fleet.tenant("rate", &[continuous("rate", "tokens", 100, 50, 1_000)], &[]).await?;
    let pause = Duration::from_millis(5);
    let acme = Traffic::start(fleet, "acme", &vec![6; gateways], pause)?;
    let rate = Traffic::start(fleet, "rate", &vec![2; gateways], pause)?;
    wait_for("traffic", SOON, async || Ok((acme.count(200) >= 500).then_some(()))).await?;
    Ok((acme, rate))
}
