//! Two control planes on the same Redis and Postgres.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::trace::Traffic;
use crate::{
    harness::{Fleet, SOON, continuous, monthly, wait_for},
    leases::bucket,
};

const DRY: u64 = 2_000;

/// One of two replicas is killed in the middle of fleet load, and comes back: the other one goes on
/// for all gateways, so that no client sees more than a wait; and the law holds with both.
#[tokio::test]
async fn a_replica_is_killed_and_clients_see_nothing() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.control_planes(2).gateways(3)).await?;
    fleet.tenant("wide", &[monthly(1_000_000)], &[]).await?;
    fleet.tenant("dry", &[monthly(DRY)], &[]).await?;
    fleet.tenant("rate", &[continuous("rate", "tokens", 100, 50, 1_000)], &[]).await?;
    let pause = Duration::from_millis(5);
    let wide = Traffic::start(&fleet, "wide", &[2, 2, 2], pause)?;
    let dry = Traffic::start(&fleet, "dry", &[2, 2, 2], pause)?;
    let rate = Traffic::start(&fleet, "rate", &[1, 1, 1], pause)?;
    let served_by_all = async |since: Instant| {
        wait_for("traffic", SOON, async || Ok(wide.is_served_since(since, 3).then_some(()))).await
    };

    served_by_all(Instant::now()).await?;
    let admitted_before = u64::try_from(dry.count(200))?;
    fleet.stack.control_planes[1].kill();
    let killed = Instant::now();
    wait_for("calls to fail", SOON, async || {
        let mut failures = 0;
        for gateway in &fleet.stack.gateways {
            failures += gateway.weir_stat("lease_call_failures").await?;
            failures += gateway.weir_stat("usage_batch_failures").await?;
        }
        Ok((failures > 0).then_some(()))
    })
    .await?;
    served_by_all(killed + Duration::from_secs(2)).await?;
    fleet.stack.control_planes[1].restart().await?;
    served_by_all(Instant::now()).await?;
    // A block that the one that was killed had claimed and not fed to Redis yet strands; it is a
    // quarter of what was left at most.
    let may_strand = (DRY - admitted_before).div_ceil(4);
    wait_for("the limit to be spent", SOON, async || {
        let left = bucket(&fleet, "dry", "monthly").await?["remaining"].as_u64();
        Ok((dry.count(429) > 0 && left == Some(0)).then_some(()))
    })
    .await?;
    served_by_all(Instant::now()).await?;

    for (tenant, traffic) in [("wide", wide), ("dry", dry), ("rate", rate)] {
        let trace = traffic.stop().await?;
        trace.only_admits_and_limits()?;
        match tenant {
            "dry" => {
                let admitted = trace.admitted();
                ensure!(admitted <= DRY, "{admitted} of {DRY} are admitted");
                let stranded = DRY - admitted;
                ensure!(stranded <= may_strand, "{stranded} are stranded, {may_strand} may be");
            }
            "rate" => trace.keeps_the_law(100, 50)?,
            _ => ensure!(trace.of(429).next().is_none(), "a wide limit refuses"),
        }
        fleet.ledger_reaches(tenant, trace.admitted()).await?;
    }
    Ok(())
}
