//! VMs that trap under load.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use xtask::stack::Builder;

use super::{BAIT, Trap, are_missed, passes, reloads, spring};
use crate::{
    fleet::trace::{Trace, Traffic},
    harness::{Fleet, SOON, continuous, monthly, wait_for},
};

const DRY: u64 = 1_500;
const TRAPS: usize = 3;
/// Envoy replaces a VM that traps again so soon only after that time.
const BACKOFF: Duration = Duration::from_millis(1_500);
/// `flush_ms`, a tick, and the time of a call that is under way; on a busy machine.
const UNFLUSHED: Duration = Duration::from_millis(1_000);

/// Traps at both gateways under load: each VM is replaced, no limit is exceeded, what was not admitted
/// is not billed, and what is lost was admitted at that gateway since the last flush.
#[tokio::test]
async fn a_trap_loses_what_was_not_flushed_and_nothing_else() -> Result<()> {
    let fleet = Fleet::that_traps(two_gateways).await?;
    loses_what_was_not_flushed(&fleet).await?;
    each_is_replaced(&fleet, &[2, 1]).await
}

/// The same where workers of a native module panic.
#[tokio::test]
async fn a_panic_loses_what_was_not_flushed_and_nothing_else() -> Result<()> {
    let fleet = Fleet::that_panics(two_gateways).await?;
    loses_what_was_not_flushed(&fleet).await?;
    let failed = fleet.stack.gateways[0].weir_stat("refused.worker_failed").await?;
    ensure!(failed >= 2, "{failed} were refused as their worker panicked");
    Ok(())
}

fn two_gateways(stack: Builder<'_>) -> Builder<'_> {
    stack.gateways(2).edit("stream_idle_timeout: 60s", "stream_idle_timeout: 6s")
}

async fn loses_what_was_not_flushed(fleet: &Fleet) -> Result<()> {
    fleet.tenant("wide", &[monthly(1_000_000)], &[]).await?;
    fleet.tenant("dry", &[monthly(DRY)], &[]).await?;
    fleet.tenant("rate", &[continuous("rate", "tokens", 100, 50, 1_000)], &[]).await?;
    fleet.tenant(BAIT, &[], &[]).await?;
    let pause = Duration::from_millis(10);
    let start = |tenant, clients| Traffic::start(fleet, tenant, &[clients; 2], pause);
    let (wide, dry, rate) = (start("wide", 4)?, start("dry", 2)?, start("rate", 2)?);
    let mut traps: Vec<(usize, Trap)> = Vec::new();
    for number in 0..TRAPS {
        passes(BACKOFF).await?;
        let gateway = number % 2;
        let trap = spring(fleet, gateway, "any").await?;
        traps.push((gateway, trap));
        wait_for("the gateways to serve", SOON, async || {
            Ok(wide.is_served_since(trap.answered, 2).then_some(()))
        })
        .await?;
    }
    are_missed(fleet, 0, 2).await?;
    are_missed(fleet, 1, 1).await?;

    let (wide, dry, rate) = (wide.stop().await?, dry.stop().await?, rate.stop().await?);
    ensure!(dry.admitted() <= DRY, "{} of {DRY} are admitted", dry.admitted());
    rate.keeps_the_law(100, 50)?;
    let mut billed = fleet.ledger(BAIT).await?.1;
    for (tenant, trace) in [("wide", &wide), ("dry", &dry), ("rate", &rate)] {
        fails_only_by(&traps, trace)?;
        let may_be_lost = unflushed(&traps, trace);
        let ledger = wait_for("the ledger", SOON, async || {
            let (admitted, ledger) = (trace.admitted(), fleet.ledger(tenant).await?.1);
            ensure!(
                ledger + may_be_lost >= admitted,
                "{tenant}: {ledger} of {admitted} are in the ledger, {may_be_lost} may be missing"
            );
            Ok(Some(ledger))
        })
        .await?;
        billed += ledger;
        eprintln!(
            "{tenant}: {} admitted, {ledger} stored, {may_be_lost} may be lost",
            trace.admitted()
        );
    }
    // What a VM passed on whose answer it did not live to see, its client saw fail.
    ensure!(billed <= fleet.stack.upstream.requests(), "{billed} are billed");
    Ok(())
}

/// Each VM that trapped is replaced, at the next request that gets to its thread: those of clients on
/// connections of their own get to any.
async fn each_is_replaced(fleet: &Fleet, traps: &[u64]) -> Result<()> {
    for (gateway, traps) in traps.iter().enumerate() {
        wait_for("trapped VMs to be replaced", SOON, async || {
            let client = reqwest::Client::new();
            let url = fleet.stack.gateways[gateway].url();
            client.get(url).header("x-tenant-id", BAIT).send().await?;
            let replaced = reloads(fleet, gateway).await?;
            ensure!(replaced <= *traps, "{replaced} VMs are replaced, {traps} trapped");
            Ok((replaced == *traps).then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// What a gateway whose VM trapped had admitted and, as far as clients know, not flushed.
fn unflushed(traps: &[(usize, Trap)], trace: &Trace) -> u64 {
    let lost = trace.of(200).filter(|seen| {
        traps.iter().any(|(gateway, trap)| {
            seen.gateway == *gateway
                && seen.answered + UNFLUSHED >= trap.sent
                && seen.sent <= trap.answered
        })
    });
    u64::try_from(lost.count()).unwrap_or(u64::MAX)
}

/// Only a trap explains a failure, at its gateway and until its VM could be replaced. Who waited in
/// that VM waits for the end of its stream.
fn fails_only_by(traps: &[(usize, Trap)], trace: &Trace) -> Result<()> {
    for seen in trace.0.iter().filter(|seen| ![200, 429].contains(&seen.status)) {
        let explained = traps.iter().any(|(gateway, trap)| {
            seen.gateway == *gateway
                && seen.answered >= trap.sent
                && seen.sent <= trap.answered + BACKOFF
        });
        ensure!(seen.status == 503 && explained, "{seen:?} with {traps:?}");
    }
    Ok(())
}

/// The refresher traps: another worker hears of changes from then on, for all. Leases are long, so
/// that nobody hears of it otherwise.
#[tokio::test]
async fn the_refreshers_office_passes_on() -> Result<()> {
    let fleet = Fleet::that_traps(|stack| stack.variable("WEIR_LEASE_TTL_MS", "10000")).await?;
    fleet.tenant("acme", &[monthly(1_000_000)], &[]).await?;
    fleet.tenant(BAIT, &[], &[]).await?;
    let gateway = &fleet.stack.gateways[0];
    let terms = async |count| {
        wait_for("a refresher", SOON, async || {
            Ok((gateway.weir_stat("refresher_terms").await? >= count).then_some(()))
        })
        .await
    };
    let traffic = Traffic::start(&fleet, "acme", &[6], Duration::from_millis(100))?;
    terms(1).await?;
    spring(&fleet, 0, "refresher").await?;
    terms(2).await?;

    fleet.admin.post("/tenants/acme/suspend", &json!({})).await?.ok()?;
    let suspended = std::time::Instant::now();
    let refused = traffic.count(403);
    let heard = Duration::from_secs(5);
    wait_for("every client to be refused", heard, async || {
        let admitted = traffic.count(200);
        // Every client has asked since the last one that was admitted.
        Ok((traffic.count(403) >= refused + 12 && admitted == traffic.count(200)).then_some(()))
    })
    .await?;
    let trace = traffic.stop().await?;
    let last = trace.of(200).last().map(|seen| seen.answered.duration_since(suspended));
    eprintln!("the last one was admitted {last:?} after the suspension");
    ensure!(last.is_none_or(|after| after <= heard), "admitted {last:?} after the suspension");
    ensure!(fleet.ledger("acme").await?.1 <= fleet.stack.upstream.requests());
    Ok(())
}
