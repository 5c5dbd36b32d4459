//! Parts that are killed in the middle of fleet load, and come back.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{
    busy::{Busy, DRY, RECOVERS_WITHIN, Traces},
    trace::Trace,
};
use crate::harness::{Fleet, SOON, wait_for};

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    ControlPlane,
    /// It comes back empty.
    Redis,
    Postgres,
}

/// When a part was away, and what may strand by that.
#[derive(Debug)]
struct Outage {
    #[allow(dead_code, reason = "errors show it")]
    part: Part,
    killed: Instant,
    back: Instant,
    /// Of the limit `dry`: claimed from Postgres when it began, and not seen admitted before.
    at_stake: u64,
}

impl Busy {
    /// Kills a part, waits until every gateway has felt it, and starts it again.
    async fn kill(&self, part: Part) -> Result<Outage> {
        let stack = &self.fleet.stack;
        let feels = match part {
            Part::ControlPlane | Part::Redis => "lease_call_failures",
            Part::Postgres => "usage_batch_failures",
        };
        let before = self.failures(feels).await?;
        let admitted = u64::try_from(self.dry.count(200))?;
        let killed = Instant::now();
        match part {
            Part::ControlPlane => stack.control_planes[0].kill(),
            Part::Redis => stack.redis.kill(),
            Part::Postgres => stack.database.postgres.kill(),
        }
        wait_for("every gateway to feel it", SOON, async || {
            let now = self.failures(feels).await?;
            Ok(now.iter().zip(&before).all(|(now, before)| now > before).then_some(()))
        })
        .await?;
        let at_stake = match part {
            Part::Redis => self.claimed().await?.saturating_sub(admitted),
            // A block on its way, which is a quarter of what was unclaimed at most.
            Part::ControlPlane | Part::Postgres => (DRY.saturating_sub(admitted)).div_ceil(4),
        };
        match part {
            Part::ControlPlane => stack.control_planes[0].restart().await?,
            Part::Redis => stack.redis.restart().await?,
            Part::Postgres => stack.database.postgres.restart().await?,
        }
        let back = Instant::now();
        self.is_served_since(back).await?;
        Ok(Outage { part, killed, back, at_stake })
    }
}

/// Kills the parts in turn, and checks at the end: what clients saw admitted is in the ledger, no
/// limit is exceeded, what is stranded is bounded, and only an outage explains a 503.
async fn survives(parts: &[Part]) -> Result<()> {
    // As shipped: a call that hangs is given up and repeated well before its clients give up.
    let as_shipped = json!({ "control_plane": { "timeout_ms": 1_000 } });
    let fleet = Fleet::with_own_postgres(|stack| stack.gateways(3).plugin(as_shipped)).await?;
    let busy = Busy::start(fleet).await?;
    busy.is_served_since(Instant::now()).await?;
    let mut outages = Vec::new();
    for part in parts {
        outages.push(busy.kill(*part).await?);
    }
    let (fleet, traces) = busy.finish().await?;

    for (tenant, trace) in traces.by_tenant() {
        fails_only_in(&outages, trace)?;
        fleet.ledger_reaches(tenant, trace.admitted()).await?;
    }
    let Traces { wide, dry, rate } = traces;
    ensure!(wide.of(429).next().is_none(), "a wide limit refuses");
    ensure!(dry.admitted() <= DRY, "{} of {DRY} are admitted", dry.admitted());
    let may_strand: u64 = outages.iter().map(|outage| outage.at_stake).sum();
    let stranded = DRY - dry.admitted();
    ensure!(stranded <= may_strand, "{stranded} are stranded, {may_strand} may be");
    rate.keeps_the_law(100, 50)
}

/// Only who asked in an outage may be told so, or before its gateway knew that it was over.
fn fails_only_in(outages: &[Outage], trace: &Trace) -> Result<()> {
    for seen in trace.0.iter().filter(|seen| ![200, 429].contains(&seen.status)) {
        let explained = outages.iter().any(|outage| {
            seen.answered >= outage.killed && seen.sent <= outage.back + RECOVERS_WITHIN
        });
        ensure!(seen.status == 503 && explained, "{seen:?} with {outages:?}");
    }
    Ok(())
}

/// The control plane is killed and comes back: its callers repeat what it did not answer.
#[tokio::test]
async fn the_control_plane_is_killed() -> Result<()> {
    survives(&[Part::ControlPlane]).await
}

/// Redis is killed and comes back empty: what it had of a limit strands, and nothing is minted.
#[tokio::test]
async fn redis_is_killed() -> Result<()> {
    survives(&[Part::Redis]).await
}

/// Postgres is killed and comes back: usage waits for it in the gateways.
#[tokio::test]
async fn postgres_is_killed() -> Result<()> {
    survives(&[Part::Postgres]).await
}

/// All three in turn, in one run.
#[tokio::test]
async fn everything_is_killed_in_turn() -> Result<()> {
    survives(&[Part::ControlPlane, Part::Redis, Part::Postgres]).await
}
