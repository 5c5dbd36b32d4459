//! Many gateways that begin at once.

use anyhow::{Result, ensure};
use tokio::task::JoinSet;
use weir_domain::protocol::LeaseAnswer;

use super::{Worker, amount, control_planes};
use crate::harness::monthly;

const GATEWAYS: usize = 50;

/// Fifty gateways ask two replicas for one tenant that nobody has asked for before. Each is decided on
/// at its first attempt, unless the machine is slow; and together they get what there is.
async fn deal_cold(capacity: u64) -> Result<()> {
    let fleet = control_planes(2).await?;
    fleet.tenant("acme", &[monthly(capacity)], &[]).await?;
    let mut asks = JoinSet::new();
    for number in 0..GATEWAYS {
        let worker = Worker::of(&fleet, number % 2, &format!("g{number}"), "w");
        asks.spawn(async move {
            let ask = worker.next("acme", amount(1, 1), amount(32, 32));
            match worker.send(&ask).await {
                Err(error) if format!("{error:#}").contains("change too fast") => Err(error),
                Err(_) => worker.send_until_decided(&ask).await,
                decided => decided,
            }
        });
    }
    let answers: Vec<LeaseAnswer> =
        asks.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;

    let granted: u64 = answers.iter().map(|answer| answer.granted.tokens.get()).sum();
    let refused = answers.iter().filter(|answer| answer.granted.is_zero()).count();
    let rest = Worker::new(&fleet, "last", "w").drain("acme").await?;
    ensure!(granted + rest == capacity, "{granted} + {rest} of {capacity}");
    ensure!(refused == 0 || granted == capacity, "{refused} are refused, and {rest} are left");
    ensure!(answers.iter().all(|answer| !answer.granted.is_zero() || answer.limits[0].violated));
    Ok(())
}

#[tokio::test]
async fn fifty_cold_gateways_are_all_served() -> Result<()> {
    deal_cold(10_000).await
}

/// Blocks shrink near the end, but not below what is needed.
#[tokio::test]
async fn fifty_cold_gateways_share_what_is_scarce() -> Result<()> {
    deal_cold(100).await
}
