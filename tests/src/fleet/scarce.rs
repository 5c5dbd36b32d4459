//! A limit that is scarce beside one that is plentiful.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{three_gateways, trace::Traffic};
use crate::{
    harness::{SOON, continuous, periodic, wait_for},
    leases::bucket,
};

/// Tokens are scarce, so gateways ask often, and requests are plentiful. What is leased and claimed of
/// requests follows what is admitted all the same: else a loss of Redis, or of a gateway, would
/// strand requests that nobody had any use for.
#[tokio::test]
async fn what_is_plentiful_is_claimed_as_it_is_used() -> Result<()> {
    const DAILY: u64 = 1_000_000;
    let fleet = three_gateways().await?;
    let limits = [
        continuous("rate", "tokens", 60, 40, 1_000),
        periodic("daily", "requests", DAILY, json!("day")),
    ];
    fleet.tenant("acme", &limits, &[]).await?;
    let traffic = Traffic::start(&fleet, "acme", &[2, 2, 2], Duration::from_millis(20))?;
    wait_for("the rate to be used up for a while", SOON, async || {
        Ok((traffic.count(200) >= 300 && traffic.count(429) >= 300).then_some(()))
    })
    .await?;
    let claimed = bucket(&fleet, "acme", "daily").await?["claimed"].as_u64().unwrap_or(DAILY);
    let trace = traffic.stop().await?;
    trace.only_admits_and_limits()?;
    trace.keeps_the_law(60, 40)?;
    println!("{claimed} requests are claimed for {}", trace.admitted());
    ensure!(claimed <= 20 * trace.admitted(), "{claimed} claimed, {} used", trace.admitted());
    fleet.ledger_reaches("acme", trace.admitted()).await
}
