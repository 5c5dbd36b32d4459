//! Continuous limits: in any span, at most capacity + rate × span.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use super::{Numbers, Worker, adjust, amount, bucket, control_planes};
use crate::harness::{Fleet, SOON, continuous, wait_for};

/// What was granted, and between which instants.
struct Grant {
    sent: Instant,
    answered: Instant,
    tokens: u64,
}

/// Four workers take all they can for a while, and say at once that it is spent. Each span between
/// two grants keeps the law.
#[tokio::test]
async fn no_span_holds_more_than_the_law_allows() -> Result<()> {
    const CAPACITY: u64 = 50;
    const PER_SECOND: u64 = 400;
    let fleet = control_planes(2).await?;
    fleet.tenant("acme", &[continuous("rate", "tokens", CAPACITY, PER_SECOND, 1_000)], &[]).await?;
    let ends = Instant::now() + Duration::from_secs(3);
    let workers: Vec<_> = (0..4usize)
        .map(|number| {
            let worker = Worker::of(&fleet, number % 2, &format!("g{number}"), "w");
            tokio::spawn(async move { take(&worker, u64::try_from(number)?, ends).await })
        })
        .collect();
    let mut grants = Vec::new();
    for worker in workers {
        grants.extend(worker.await??);
    }

    let sum: u64 = grants.iter().map(|grant| grant.tokens).sum();
    assert!(sum >= CAPACITY + PER_SECOND, "{sum} are far too few for three seconds");
    // From each call on, all that was asked for since and is answered by then.
    grants.retain(|grant| grant.tokens > 0);
    grants.sort_by_key(|grant| grant.answered);
    for first in &grants {
        let mut sum = 0;
        for last in grants.iter().filter(|grant| grant.sent >= first.sent) {
            sum += last.tokens;
            let span = last.answered.saturating_duration_since(first.sent);
            // Redis' clock shows whole ms.
            let span_ms = u64::try_from(span.as_millis())? + 2;
            let allowed = CAPACITY + PER_SECOND * span_ms / 1_000 + 1;
            assert!(sum <= allowed, "{sum} in {span_ms} ms, {allowed} are allowed");
        }
    }
    Ok(())
}

async fn take(worker: &Worker, seed: u64, ends: Instant) -> Result<Vec<Grant>> {
    let (mut numbers, mut grants) = (Numbers(seed), Vec::new());
    let (mut stamp, mut spent) = (String::new(), amount(0, 0));
    while Instant::now() < ends {
        let need = 1 + numbers.below(5);
        let mut ask = worker.next("acme", amount(need, 1), amount(need + numbers.below(60), 1));
        (ask.stamp, ask.spent) = (stamp, spent);
        let sent = Instant::now();
        let answer = worker.send_until_decided(&ask).await?;
        grants.push(Grant { sent, answered: Instant::now(), tokens: answer.granted.tokens.get() });
        (stamp, spent) = (answer.stamp, answer.granted);
    }
    Ok(grants)
}

/// Leases of 10 s, so that none ends while a test looks at it.
async fn long_leases() -> Result<Fleet> {
    Fleet::with(|stack| stack.gateways(0).variable("WEIR_LEASE_TTL_MS", "10000")).await
}

/// What a gateway holds is no room to refill: else a lease in hand would add to the burst.
#[tokio::test]
async fn a_lease_in_hand_does_not_refill() -> Result<()> {
    let fleet = long_leases().await?;
    fleet.tenant("acme", &[continuous("rate", "tokens", 100, 10_000, 1_000)], &[]).await?;
    let (holder, other) = (Worker::new(&fleet, "g1", "w"), Worker::new(&fleet, "g2", "w"));
    let lease = holder.ask("acme", amount(100, 1), amount(100, 1)).await?;
    assert_eq!(lease.granted, amount(100, 1));

    // In the time of a call, 100 would be back.
    let refused = other.ask("acme", amount(50, 1), amount(50, 1)).await?;
    assert_eq!(refused.granted, amount(0, 0));
    let mut say = holder.next("acme", amount(0, 0), amount(0, 0));
    (say.stamp, say.spent) = (lease.stamp, amount(60, 0));
    holder.send(&say).await?;
    wait_for("what was spent to refill", SOON, async || {
        let answer = other.ask("acme", amount(50, 1), amount(50, 1)).await?;
        Ok((answer.granted == amount(50, 1)).then_some(()))
    })
    .await?;
    assert_eq!(other.ask("acme", amount(50, 1), amount(50, 1)).await?.granted, amount(0, 0));
    // The first lease ends with 40 unspent, the second with 50.
    wait_for("the leases to end", SOON, async || {
        let answer = holder.ask("acme", amount(100, 1), amount(100, 1)).await?;
        Ok((answer.granted == amount(100, 1)).then_some(()))
    })
    .await
}

/// Other terms replace a lease, but what was dealt under the old ones counts until its end: the
/// gateway may spend it until it hears of the new ones.
#[tokio::test]
async fn a_change_of_terms_does_not_double_the_burst() -> Result<()> {
    let fleet = long_leases().await?;
    let rate = |amount| [continuous("rate", "tokens", 100, amount, 1_000)];
    fleet.tenant("acme", &rate(10_000), &[]).await?;
    let (holder, other) = (Worker::new(&fleet, "g1", "w"), Worker::new(&fleet, "g2", "w"));
    let lease = holder.ask("acme", amount(100, 1), amount(100, 1)).await?;
    assert_eq!(lease.granted, amount(100, 1));
    let base = |stamp: &str| stamp.split('.').next().unwrap_or_default().to_owned();

    let plan = json!({ "currency": "USD", "limits": rate(20_000), "prices": [] });
    fleet.admin.put("/plans/acme-plan", &plan).await?.ok()?;
    wait_for("the new terms", SOON, async || {
        let answer = other.ask("acme", amount(0, 0), amount(0, 0)).await?;
        Ok((base(&answer.stamp) != base(&lease.stamp)).then_some(()))
    })
    .await?;
    for worker in [&holder, &other] {
        let answer = worker.ask("acme", amount(1, 1), amount(1, 1)).await?;
        assert_eq!(answer.granted, amount(0, 0));
        assert_ne!(answer.stamp, lease.stamp);
    }
    wait_for("the old lease to end", SOON, async || {
        let answer = other.ask("acme", amount(100, 1), amount(100, 1)).await?;
        Ok((answer.granted == amount(100, 1)).then_some(()))
    })
    .await
}

/// A gateway that is gone stays known for a while. What it held when its lease ended is lost once,
/// and not again each time that the bucket is looked at.
#[tokio::test]
async fn what_a_gone_gateway_held_is_lost_once() -> Result<()> {
    let fleet = control_planes(1).await?;
    fleet.tenant("acme", &[continuous("rate", "tokens", 100, 1, 3_600_000)], &[]).await?;
    let (gone, other) = (Worker::new(&fleet, "g1", "w"), Worker::new(&fleet, "g2", "w"));
    assert_eq!(gone.ask("acme", amount(40, 1), amount(40, 1)).await?.granted, amount(40, 1));
    wait_for("the lease to end", SOON, async || {
        Ok((bucket(&fleet, "acme", "rate").await?["held"] == json!({})).then_some(()))
    })
    .await?;

    let topped_up = adjust(&fleet, "acme", "rate", 40).await?.ok()?;
    assert_eq!(topped_up["remaining"], 100);
    assert_eq!(bucket(&fleet, "acme", "rate").await?["remaining"], 100);
    assert_eq!(other.ask("acme", amount(100, 1), amount(100, 1)).await?.granted, amount(100, 1));
    Ok(())
}
