//! Clocks that are wrong when a control plane starts.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};

use super::{Worker, amount};
use crate::harness::{Fleet, SOON, continuous, wait_for};

const HOUR_S: i64 = 3_600;

/// A control plane that starts beside a Redis whose clock is wrong, or on a host whose own is, finds
/// the time that the other two have.
#[tokio::test]
async fn a_start_with_a_wrong_clock_finds_the_time() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(0).own_wall_clocks()).await?;
    for (case, (redis_s, own_s)) in
        [(HOUR_S, 0), (-HOUR_S, 0), (0, HOUR_S), (0, -HOUR_S)].into_iter().enumerate()
    {
        fleet.stack.redis.set_clock(redis_s)?;
        fleet.stack.control_planes[0].set_clock(own_s)?;
        fleet.stack.control_planes[0].restart().await?;
        let tenant = format!("tenant-{case}");
        fleet.tenant(&tenant, &[continuous("rate", "tokens", 100, 1, 3_600_000)], &[]).await?;
        let worker = Worker::new(&fleet, "g", "w");
        let first = worker.ask(&tenant, amount(100, 1), amount(100, 1)).await?;
        is_now(first.now_ms)?;
        assert_eq!(first.granted, amount(100, 1));

        // What an hour refills is not there, whichever way the clocks go from here.
        for ahead_s in [0, HOUR_S, -HOUR_S] {
            fleet.stack.redis.set_clock(ahead_s)?;
            let refused = worker.ask(&tenant, amount(1, 1), amount(1, 1)).await?;
            assert_eq!(refused.granted, amount(0, 0));
            is_now(refused.now_ms)?;
        }
    }
    Ok(())
}

fn is_now(shown_ms: i64) -> Result<()> {
    let now_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let off_ms = shown_ms - now_ms;
    ensure!(off_ms.abs() < 5_000, "the time is off by {off_ms} ms");
    Ok(())
}

/// One that was behind with two of the clocks is set right as soon as two of them are.
#[tokio::test]
async fn a_control_plane_that_is_behind_is_set_right() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(0).own_wall_clocks()).await?;
    fleet.stack.redis.set_clock(-HOUR_S)?;
    fleet.stack.control_planes[0].set_clock(-HOUR_S)?;
    fleet.stack.control_planes[0].restart().await?;
    fleet.tenant("acme", &[continuous("rate", "tokens", 100, 10, 1_000)], &[]).await?;
    let worker = Worker::new(&fleet, "g", "w");
    let behind = worker.ask("acme", amount(1, 1), amount(1, 1)).await?;
    assert!(is_now(behind.now_ms).is_err(), "two of three clocks were an hour behind");

    fleet.stack.redis.set_clock(0)?;
    wait_for("the time to be right", SOON, async || {
        let answer = worker.ask("acme", amount(1, 1), amount(1, 1)).await?;
        Ok(is_now(answer.now_ms).ok())
    })
    .await
}
