//! Requests that cost much, among many that cost little.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::trace::{Seen, Traffic};
use crate::harness::{Answer, Fleet, SOON, continuous, wait_for};

const CAPACITY: u64 = 100;
const PER_SECOND: u64 = 50;
const COST: u64 = 50;
/// How many large requests are made, and how often each may have to come back.
const LARGE: usize = 3;
const TRIES: usize = 6;

/// Small requests take each token as it comes, so that 50 are never there at once. Large ones, which
/// come back when they are told to, are admitted all the same, and the small ones go on meanwhile.
#[tokio::test]
async fn small_requests_do_not_starve_large_ones() -> Result<()> {
    let mut fleet = Fleet::start().await?;
    let large =
        json!({ "cost": COST, "max_wait_ms": 5_000, "control_plane": { "timeout_ms": 3_000 } });
    fleet.stack.add_gateway(&large).await?;
    let limit = continuous("rate", "tokens", CAPACITY, PER_SECOND, 1_000);
    fleet.tenant("acme", &[limit], &[]).await?;
    let small = Traffic::start(&fleet, "acme", &[6], Duration::from_millis(5))?;
    wait_for("the burst to be spent", SOON, async || Ok((small.count(429) > 100).then_some(())))
        .await?;
    let (mut admitted, mut refused) = (Vec::new(), 0);
    for _ in 0..LARGE {
        let (seen, tries) = come_back_until_admitted(&fleet).await?;
        admitted.push(seen);
        refused += tries - 1;
    }
    let before = small.count(200);
    wait_for("small requests to go on", SOON, async || {
        Ok((small.count(200) > before).then_some(()))
    })
    .await?;
    let small = small.stop().await?;

    ensure!(refused > 0, "nothing stood in the way of the large ones");
    small.only_admits_and_limits()?;
    let between = |seen: &&Seen| admitted.iter().any(|large| seen.answered < large.answered);
    ensure!(small.of(200).filter(between).count() > LARGE, "the small ones starve");
    let small: Vec<Seen> = small.of(200).copied().collect();
    keeps_the_law(&small, &admitted)?;
    let requests = u64::try_from(small.len() + admitted.len())?;
    let tokens = u64::try_from(small.len())? + COST * u64::try_from(admitted.len())?;
    wait_for("the ledger", SOON, async || {
        let ledger = fleet.ledger("acme").await?;
        ensure!(ledger.0 <= tokens && ledger.1 <= requests, "{ledger:?} of {tokens}, {requests}");
        Ok((ledger == (tokens, requests)).then_some(()))
    })
    .await
}

/// One large request; how often it was tried.
async fn come_back_until_admitted(fleet: &Fleet) -> Result<(Seen, usize)> {
    let client = reqwest::Client::new();
    let url = fleet.stack.gateways[1].url();
    for tries in 1..=TRIES {
        let sent = Instant::now();
        let answer = Answer::of(client.get(&url).header("x-tenant-id", "acme")).await?;
        let seen = Seen { gateway: 1, sent, answered: Instant::now(), status: answer.status };
        match answer.status {
            200 => return Ok((seen, tries)),
            429 => {
                let retry_after =
                    answer.header("retry-after").parse::<u64>().context("Retry-After")?;
                ensure!((1..=4).contains(&retry_after), "Retry-After: {retry_after}");
                tokio::time::sleep(Duration::from_secs(retry_after)).await;
            }
            status => anyhow::bail!("{status}: {}", answer.body),
        }
    }
    anyhow::bail!("refused {TRIES} times")
}

/// In any span, capacity + rate × span, by what requests cost.
fn keeps_the_law(small: &[Seen], large: &[Seen]) -> Result<()> {
    let of_cost = |seen: &[Seen], cost| seen.iter().map(|seen| (*seen, cost)).collect::<Vec<_>>();
    let mut all = [of_cost(small, 1), of_cost(large, COST)].concat();
    all.sort_by_key(|(seen, _)| seen.answered);
    for (first, _) in &all {
        let mut sum = 0;
        for (last, cost) in all.iter().filter(|(seen, _)| seen.sent >= first.sent) {
            sum += cost;
            let span_ms = u64::try_from((last.answered - first.sent).as_millis())? + 2;
            let allowed = CAPACITY + PER_SECOND * span_ms / 1_000 + 1;
            ensure!(sum <= allowed, "{sum} in {span_ms} ms, {allowed} are allowed");
        }
    }
    Ok(())
}
