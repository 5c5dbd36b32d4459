//! What must hold at the end of a run, whatever struck.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{
    customers::{Adjusted, COSTS, CUSTOMERS, Changes, Observed, Rate, SPENT},
    faults::Kill,
};
use crate::{
    fleet::trace::{Seen, Trace},
    harness::Fleet,
};

/// A change may take so long to end what was leased before it, at a gateway that hears nothing: a
/// second until each replica knows of it, two that a lease lives, and one for a busy machine.
const HEARD_WITHIN: Duration = Duration::from_secs(4);
/// Envoy's counters show what was admitted that much earlier.
const COUNTED_WITHIN: Duration = Duration::from_millis(500);

/// Checks all laws.
pub(super) async fn check(fleet: &Fleet, observed: &Observed, kills: &[Kill]) -> Result<()> {
    let mut lost = 0;
    for (tenant, trace) in &observed.traces {
        every_answer_is_understood(trace, kills).with_context(|| (*tenant).to_owned())?;
        lost += billed(fleet, tenant, trace, kills).await?;
        let of_rate = CUSTOMERS.iter().find(|(name, _)| name == tenant).and_then(|(_, rate)| *rate);
        if let Some(Rate { capacity, per_second }) = of_rate {
            trace
                .keeps_the_law_at(capacity, per_second, cost)
                .with_context(|| (*tenant).to_owned())?;
        }
        match *tenant {
            "spent" => never_above_the_limit(trace, &observed.changes.adjusted)?,
            "paused" => nothing_while_suspended(trace, &observed.changes)?,
            _ => {}
        }
    }
    let may_be_lost: u64 = kills.iter().map(|kill| may_be_lost(kill, &observed.traces)).sum();
    println!("{lost} requests of {} killed gateways are lost, {may_be_lost} may be", kills.len());
    ensure!(lost <= may_be_lost, "{lost} are lost, {may_be_lost} may be: {kills:?}");
    Ok(())
}

fn cost(seen: &Seen) -> u64 {
    COSTS[seen.gateway]
}

fn admitted_tokens(trace: &Trace) -> u64 {
    trace.of(200).map(cost).sum()
}

/// No client is left without an answer but by a gateway that is killed.
fn every_answer_is_understood(trace: &Trace, kills: &[Kill]) -> Result<()> {
    let by_kill = |seen: &Seen| {
        kills.iter().any(|kill| {
            let until = kill.back.unwrap_or(kill.killed);
            seen.gateway == kill.gateway && seen.answered >= kill.struck && seen.sent <= until
        })
    };
    for seen in &trace.0 {
        match seen.status {
            200 | 403 | 429 | 503 => {}
            0 => ensure!(by_kill(seen), "{seen:?} has no answer"),
            _ => anyhow::bail!("{seen:?} is not understood"),
        }
    }
    Ok(())
}

/// What the ledger has of a tenant is what clients saw admitted, and what the invoice charges. But
/// for what was lost with gateways: how many requests that were admitted it lacks.
async fn billed(fleet: &Fleet, tenant: &str, trace: &Trace, kills: &[Kill]) -> Result<u64> {
    // Admitted or not, they saw no answer to tell.
    let under_way = |seen: &&Seen| {
        kills.iter().any(|kill| {
            (seen.status == 0 || kill.is_worker && seen.status == 503)
                && seen.gateway == kill.gateway
                && seen.sent <= kill.killed
                && seen.answered >= kill.struck
        })
    };
    let unanswered: Vec<_> = trace.0.iter().filter(under_way).collect();
    let unanswered_tokens: u64 = unanswered.iter().map(|seen| cost(seen)).sum();
    let (tokens, requests) = fleet.ledger(tenant).await?;
    let (admitted, admitted_tokens) = (trace.admitted(), admitted_tokens(trace));
    println!(
        "{tenant}: {admitted} admitted ({admitted_tokens} tokens), {requests} ({tokens}) in the \
         ledger, {} unanswered",
        unanswered.len()
    );
    ensure!(
        requests <= admitted + unanswered.len() as u64
            && tokens <= admitted_tokens + unanswered_tokens,
        "{tenant} is billed what was not admitted"
    );
    let most = COSTS.iter().max().copied().unwrap_or(1);
    let lost = admitted.saturating_sub(requests);
    ensure!(
        tokens + most * (lost + unanswered.len() as u64) >= admitted_tokens,
        "tokens of {tenant} are missing"
    );
    let preview = fleet.admin.get(&format!("/tenants/{tenant}/invoices/preview")).await?.ok()?;
    let total = format!("{}.{:02}", tokens / 100, tokens % 100);
    ensure!(preview["total"] == total.as_str(), "{tenant}: {total} in {preview}");
    Ok(lost)
}

/// What a gateway had counted and not stored when it was killed, in requests: what it said, and what
/// clients saw it admit since.
fn may_be_lost(kill: &Kill, traces: &[(&str, Trace)]) -> u64 {
    let since = kill.asked - COUNTED_WITHIN;
    let recent = |seen: &&Seen| {
        seen.gateway == kill.gateway && seen.answered >= since && seen.sent <= kill.killed
    };
    let recent: usize = traces.iter().map(|(_, trace)| trace.of(200).filter(recent).count()).sum();
    kill.unstored + recent as u64
}

/// At any moment: no more than the capacity and what was added by then; and some time after a cut no
/// more than that less the cut, unless it was admitted before.
fn never_above_the_limit(trace: &Trace, adjusted: &[Adjusted]) -> Result<()> {
    let mut steps: Vec<(Instant, i64)> = Vec::new();
    for change in adjusted {
        if change.by > 0 {
            steps.push((change.sent, change.by));
        } else if change.confirmed {
            steps.push((change.answered + HEARD_WITHIN, change.by));
        }
    }
    steps.sort_by_key(|(at, _)| *at);
    let mut steps = steps.into_iter().peekable();
    let (mut allowed, mut admitted) = (i64::try_from(SPENT)?, 0);
    for seen in trace.of(200) {
        while let Some((_, by)) = steps.next_if(|(at, _)| *at <= seen.answered) {
            // What was admitted before a cut stays so.
            allowed = if by > 0 { allowed + by } else { (allowed + by).max(admitted) };
        }
        admitted += i64::try_from(cost(seen))?;
        ensure!(admitted <= allowed, "{admitted} tokens are admitted of {allowed}");
    }
    println!("spent: {admitted} of {allowed} tokens");
    Ok(())
}

fn nothing_while_suspended(trace: &Trace, changes: &Changes) -> Result<()> {
    for suspended in &changes.suspended {
        let since = suspended.told + HEARD_WITHIN;
        let until = suspended.resumed.context("it was not resumed")?;
        let admitted = trace.of(200).find(|seen| seen.sent >= since && seen.answered <= until);
        ensure!(admitted.is_none(), "{admitted:?} while suspended");
    }
    Ok(())
}
