//! Redis is lost: too little may be dealt then, by a stated bound, and never too much.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Worker, amount, bucket, control_planes};
use crate::harness::{SOON, continuous, monthly, wait_for};

const CAPACITY: u64 = 1_000;

/// How Redis is lost.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Flushed,
    Restarted,
    /// Restarted with what it had some time ago.
    OldSnapshot,
    /// A replica takes over that has not heard of everything.
    FailedOver,
}

/// Takes some, loses Redis, and takes the rest. All of it stays within the capacity, and what is
/// missing is at most what Redis had of it when it was lost, and one block on its way.
async fn deal_through(loss: Loss) -> Result<()> {
    let mut fleet = control_planes(1).await?;
    fleet.tenant("acme", &[monthly(CAPACITY)], &[]).await?;
    let worker = Worker::new(&fleet, "g", "w");
    let mut sum = 0;
    let take = async |sum: &mut u64| -> Result<()> {
        for _ in 0..5 {
            let granted = worker.ask("acme", amount(1, 1), amount(30, 1)).await?.granted;
            *sum += granted.tokens.get();
        }
        Ok(())
    };
    take(&mut sum).await?;
    // What comes back later must have something that was spent since.
    let answer = worker.ask("acme", amount(1, 1), amount(200, 1)).await?;
    let mut give_back = worker.next("acme", amount(0, 0), amount(0, 0));
    (give_back.stamp, give_back.refund) = (answer.stamp, answer.granted);
    worker.send(&give_back).await?;
    if matches!(loss, Loss::OldSnapshot) {
        fleet.stack.redis.command("SAVE").await?;
        take(&mut sum).await?;
    }
    let mut replica = None;
    if matches!(loss, Loss::FailedOver) {
        replica = Some(fleet.stack.redis.lagging_replica().await?);
        take(&mut sum).await?;
    }
    let claimed = bucket(&fleet, "acme", "monthly").await?["claimed"].as_u64().unwrap();
    match (loss, replica) {
        (_, Some(replica)) => fleet.stack.redis.fail_over_to(replica).await?,
        (Loss::Flushed, None) => {
            fleet.stack.redis.command("FLUSHALL").await?;
        }
        _ => fleet.stack.redis.restart().await?,
    }

    let rest = async || worker.drain("acme").await.map(Some);
    let rest = wait_for("leases after the loss", SOON, rest).await?;
    let dealt = sum + rest;
    assert!(dealt <= CAPACITY, "{loss:?}: {dealt} dealt of {CAPACITY}");
    // What Redis had, and a block that was on its way: a quarter of what was unclaimed at most.
    let stranded = claimed - sum + (CAPACITY - claimed).div_ceil(4);
    assert!(dealt + stranded >= CAPACITY, "{loss:?}: {dealt} dealt, {stranded} may be missing");
    assert!(rest > 0);
    Ok(())
}

#[tokio::test]
async fn a_flushed_redis_mints_nothing() -> Result<()> {
    deal_through(Loss::Flushed).await
}

#[tokio::test]
async fn a_restarted_redis_mints_nothing() -> Result<()> {
    deal_through(Loss::Restarted).await
}

#[tokio::test]
async fn an_old_snapshot_mints_nothing() -> Result<()> {
    deal_through(Loss::OldSnapshot).await
}

#[tokio::test]
async fn a_replica_that_lags_mints_nothing() -> Result<()> {
    deal_through(Loss::FailedOver).await
}

/// A continuous bucket that was granted from and is lost starts empty, and refills only when every
/// lease drawn from it has ended. One that never was starts full.
#[tokio::test]
async fn a_lost_burst_is_not_given_twice() -> Result<()> {
    let fleet = control_planes(1).await?;
    let limits = [continuous("rate", "tokens", 100, 100, 1_000)];
    fleet.tenant("acme", &limits, &[]).await?;
    fleet.tenant("fresh", &limits, &[]).await?;
    let worker = Worker::new(&fleet, "g", "w");
    assert_eq!(worker.ask("acme", amount(100, 1), amount(100, 1)).await?.granted, amount(100, 1));

    fleet.stack.redis.command("FLUSHALL").await?;
    let lost = Instant::now();
    let refused = worker.ask("acme", amount(1, 1), amount(1, 1)).await?;
    let fresh = worker.ask("fresh", amount(100, 1), amount(100, 1)).await?;

    assert_eq!(refused.granted, amount(0, 0));
    assert!((9_000..=11_000).contains(&refused.retry_after_ms), "{}", refused.retry_after_ms);
    assert_eq!(fresh.granted, amount(100, 1));
    wait_for("the bucket to refill", SOON, async || {
        let answer = worker.ask("acme", amount(1, 1), amount(1, 1)).await?;
        Ok((!answer.granted.is_zero()).then_some(()))
    })
    .await?;
    assert!(lost.elapsed() >= Duration::from_secs(9), "{:?}", lost.elapsed());
    Ok(())
}

/// Redis that is away is a 503 at once, and leases are back soon after it is.
#[tokio::test]
async fn without_redis_leases_fail_fast() -> Result<()> {
    let fleet = control_planes(1).await?;
    fleet.tenant("acme", &[monthly(CAPACITY)], &[]).await?;
    let worker = Worker::new(&fleet, "g", "w");
    worker.ask("acme", amount(1, 1), amount(1, 1)).await?;

    fleet.stack.redis.kill();
    let asked = Instant::now();
    let error = worker.ask("acme", amount(1, 1), amount(1, 1)).await.unwrap_err().to_string();
    assert!(error.contains("503") && error.contains("Redis"), "{error}");
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    fleet.stack.redis.restart().await?;
    wait_for("a lease", SOON, async || {
        let answer = worker.ask("acme", amount(1, 1), amount(1, 1)).await?;
        Ok((!answer.granted.is_zero()).then_some(()))
    })
    .await
}
