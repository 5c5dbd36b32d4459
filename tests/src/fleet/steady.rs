//! Steady load: requests do not wait for leases.

use anyhow::{Result, ensure};
use xtask::load::{Counts, Until};

use super::three_gateways;
use crate::harness::{Fleet, SOON, monthly, wait_for};

const REQUESTS: u64 = 20_000;

/// Once demand is known, leases are fetched before they are needed.
#[tokio::test]
async fn steady_requests_do_not_wait() -> Result<()> {
    let fleet = three_gateways().await?;
    fleet.tenant("acme", &[monthly(100_000_000)], &[]).await?;
    let counts = std::sync::Arc::new(Counts::default());
    let load = fleet.load("acme", 12);
    load.run(Until::requests(5_000), &counts).await?;
    let before = waited(&fleet, counts.of(200)).await?;
    load.run(Until::requests(REQUESTS), &counts).await?;
    let waited = waited(&fleet, counts.of(200)).await? - before;

    println!("{waited} of {REQUESTS} waited");
    ensure!(counts.of(200) == 5_000 + REQUESTS, "{:?}", counts.by_status());
    ensure!(waited * 1_000 <= REQUESTS, "{waited} of {REQUESTS} waited");
    fleet.ledger_reaches("acme", counts.of(200)).await
}

/// How many have waited, once so many that were admitted are counted.
async fn waited(fleet: &Fleet, admitted: u64) -> Result<u64> {
    let counted = async || Ok((sum(fleet, "admitted").await? == admitted).then_some(()));
    wait_for("the counters", SOON, counted).await?;
    sum(fleet, "waited").await
}

async fn sum(fleet: &Fleet, stat: &str) -> Result<u64> {
    let mut sum = 0;
    for gateway in &fleet.stack.gateways {
        sum += gateway.weir_stat(stat).await?;
    }
    Ok(sum)
}
