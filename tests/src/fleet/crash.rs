//! A gateway that ends without notice.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use super::{
    busy::{Busy, DRY, Traces},
    trace::{Seen, Trace},
};
use crate::{
    harness::{Fleet, SOON, wait_for},
    leases::bucket,
};

/// As shipped.
const FLUSH_MS: u64 = 500;
/// A call that takes longer has failed.
const CALL_MS: u64 = 1_000;
const KILLED: usize = 0;

/// What clients saw of one tenant at the gateway that was killed.
#[derive(Debug)]
struct Lost {
    /// Admitted by the whole fleet.
    admitted: u64,
    /// Under way when it was killed: nobody knows whether it had admitted them.
    unanswered: u64,
    /// Admitted by it within a flush interval and a call before it was killed.
    recent: u64,
}

impl Lost {
    fn of(trace: &Trace, killed: Instant) -> Result<Self> {
        let here = |seen: &&Seen| seen.gateway == KILLED && seen.sent <= killed;
        let since = killed - Duration::from_millis(FLUSH_MS + CALL_MS);
        let recent = trace.of(200).filter(here).filter(|seen| seen.answered >= since).count();
        Ok(Self {
            admitted: trace.admitted(),
            unanswered: u64::try_from(trace.of(0).filter(here).count())?,
            recent: u64::try_from(recent)?,
        })
    }
}

/// All that the gateways that run now have admitted is stored.
pub(super) async fn all_is_stored(fleet: &Fleet) -> Result<()> {
    wait_for("all usage to be stored", SOON, async || {
        for gateway in &fleet.stack.gateways {
            if gateway.weir_stat("stored").await? != gateway.weir_stat("admitted").await? {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await
}

/// An Envoy is killed under load. What it had admitted and not sent is lost to the ledger: at most
/// that of one flush interval and the time of a call. Nothing is billed that was not admitted, the
/// other gateways go on, and it joins again.
#[tokio::test]
async fn an_envoy_is_killed() -> Result<()> {
    let plugin = json!({ "flush_ms": FLUSH_MS, "control_plane": { "timeout_ms": CALL_MS } });
    let fleet = Fleet::with(|stack| stack.gateways(3).plugin(plugin)).await?;
    let busy = Busy::start(fleet).await?;
    busy.is_served_since(Instant::now()).await?;
    let gateway = &busy.fleet.stack.gateways[KILLED];
    wait_for("usage of each gateway in the ledger", SOON, async || {
        for gateway in &busy.fleet.stack.gateways {
            if gateway.weir_stat("stored").await? <= 50 {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await?;

    let killed = Instant::now();
    gateway.kill();
    let held = bucket(&busy.fleet, "dry", "monthly").await?;
    let names = busy.fleet.stack.database.query("select count(distinct gateway) from usage_worker");
    ensure!(names.await? == "3", "three gateways have sent usage");
    wait_for("the others to go on", SOON, async || {
        Ok([1, 2]
            .iter()
            .all(|other| busy.wide.count_since(*other, 200, killed) > 100)
            .then_some(()))
    })
    .await?;
    gateway.restart().await?;
    busy.is_served_since(Instant::now()).await?;
    let (fleet, traces) = busy.finish().await?;
    all_is_stored(&fleet).await?;
    for (tenant, trace) in traces.by_tenant() {
        let others = trace.0.iter().filter(|seen| seen.gateway != KILLED);
        let others: Vec<_> = others.filter(|seen| ![200, 429].contains(&seen.status)).collect();
        ensure!(others.is_empty(), "the other gateways are disturbed: {others:?}");
        let lost = Lost::of(trace, killed)?;
        let (tokens, requests) = fleet.ledger(tenant).await?;
        ensure!(tokens == requests, "{tokens} tokens for {requests} requests of {tenant}");
        println!("{tenant}: {lost:?}; the ledger has {tokens}");
        ensure!(tokens <= lost.admitted + lost.unanswered, "{tenant} is billed {tokens}, {lost:?}");
        ensure!(
            tokens + lost.recent >= lost.admitted,
            "{} of {tenant} are lost, {lost:?}",
            lost.admitted - tokens
        );
    }
    let Traces { wide, dry, rate } = traces;
    ensure!(wide.of(429).next().is_none(), "a wide limit refuses");
    rate.keeps_the_law(100, 50)?;
    let held = held["held"].as_object().map(|held| held.values().filter_map(|n| n.as_u64()).sum());
    strands_a_lease_at_most(&dry, held.unwrap_or(0))?;
    the_rate_comes_back(&fleet).await
}

/// A periodic limit loses what the gateway held when it was killed.
fn strands_a_lease_at_most(dry: &Trace, held: u64) -> Result<()> {
    ensure!(dry.admitted() <= DRY, "{} of {DRY} are admitted", dry.admitted());
    let stranded = DRY - dry.admitted();
    println!("{stranded} of {DRY} are stranded, {held} may be");
    ensure!(stranded <= held, "{stranded} are stranded, {held} were held");
    Ok(())
}

/// A continuous limit loses nothing: when the lease has ended, the bucket fills up.
async fn the_rate_comes_back(fleet: &Fleet) -> Result<()> {
    wait_for("a full bucket", SOON, async || {
        let rate = bucket(fleet, "rate", "rate").await?;
        let held = rate["held"].as_object().is_some_and(|held| held.values().any(|n| *n != 0));
        Ok((!held && rate["remaining"] == 100).then_some(()))
    })
    .await
}
