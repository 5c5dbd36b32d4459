//! A period that ends under load.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use serde_json::json;

use super::trace::Traffic;
use crate::harness::{Fleet, SOON, periodic, wait_for};

const CAPACITY: u64 = 400;

/// Gateways hold leases of a minute when it ends. None of them is spent in the next one, which has
/// its own capacity, whole and no more.
#[tokio::test]
async fn no_lease_outlives_its_period() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(3).own_wall_clocks()).await?;
    let minutely = periodic("minutely", "tokens", CAPACITY, json!({ "every_minutes": 1 }));
    fleet.tenant("acme", &[minutely], &[]).await?;
    // The hosts agree that a minute will end soon.
    let ahead_s = (53 - second()?).rem_euclid(60);
    fleet.stack.redis.set_clock(ahead_s)?;
    fleet.stack.control_planes[0].set_clock(ahead_s)?;
    fleet.stack.control_planes[0].restart().await?;
    wait_for("the end of the minute", SOON, async || {
        let second = (second()? + ahead_s) % 60;
        ensure!(second >= 53, "it took too long to start");
        Ok((second >= 58).then_some(()))
    })
    .await?;

    let traffic = Traffic::start(&fleet, "acme", &[2; 3], Duration::from_millis(40))?;
    let minutes = async || {
        let sums = "select sum(tokens) from usage_record where tenant_id = 'acme'
                    group by minute order by minute";
        let sums = fleet.stack.database.query(sums).await?;
        Ok::<_, anyhow::Error>(sums.lines().map(str::parse).collect::<Result<Vec<u64>, _>>()?)
    };
    wait_for("the next minute to be spent", SOON, async || {
        let minutes = minutes().await?;
        ensure!(minutes.len() > 1 && minutes[1] >= CAPACITY, "{minutes:?}");
        Ok(Some(()))
    })
    .await?;
    let refused = traffic.count(429);
    wait_for("more refusals", SOON, async || {
        Ok((traffic.count(429) >= refused + 200).then_some(()))
    })
    .await?;
    let trace = traffic.stop().await?;

    trace.only_admits_and_limits()?;
    fleet.ledger_reaches("acme", trace.admitted()).await?;
    let minutes = minutes().await?;
    ensure!(minutes.len() == 2 && minutes[0] <= CAPACITY && minutes[1] == CAPACITY, "{minutes:?}");
    Ok(())
}

/// Of the minute, by this machine's clock.
fn second() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() % 60)?)
}
