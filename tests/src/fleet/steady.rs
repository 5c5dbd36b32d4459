//! Steady load: requests do not wait for leases.

use anyhow::{Result, ensure};
use xtask::load::{Counts, Until};

use super::three_gateways;
use crate::harness::{Fleet, monthly};

const REQUESTS: u64 = 20_000;

/// Once demand is known, leases are fetched before they are needed.
#[tokio::test]
async fn steady_requests_do_not_wait() -> Result<()> {
    let fleet = three_gateways().await?;
    fleet.tenant("acme", &[monthly(100_000_000)], &[]).await?;
    let counts = std::sync::Arc::new(Counts::default());
    let load = fleet.load("acme", 12);
    load.run(Until::requests(5_000), &counts).await?;
    let before = (sum(&fleet, "waited").await?, sum(&fleet, "admitted").await?);
    load.run(Until::requests(REQUESTS), &counts).await?;
    let waited = sum(&fleet, "waited").await? - before.0;
    let admitted = sum(&fleet, "admitted").await? - before.1;

    println!("{waited} of {admitted} waited");
    ensure!(admitted >= REQUESTS, "{admitted} are admitted");
    ensure!(waited * 1_000 <= admitted, "{waited} of {admitted} waited");
    fleet.ledger_reaches("acme", counts.of(200)).await
}

async fn sum(fleet: &Fleet, stat: &str) -> Result<u64> {
    let mut sum = 0;
    for gateway in &fleet.stack.gateways {
        sum += gateway.weir_stat(stat).await?;
    }
    Ok(sum)
}
