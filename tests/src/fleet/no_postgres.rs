//! A Postgres that is away while its tenants have traffic.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use super::trace::Traffic;
use crate::harness::{Fleet, SOON, continuous, monthly, wait_for};

/// Longer than a lease and than terms are believed without asking.
const OUTAGE: Duration = Duration::from_secs(5);

/// A tenant with a rate goes on through the whole outage; one with a period on what was claimed ahead of
/// its demand, and then it gets 503 and not 429, since it has tokens left; one that is not known and one
/// that is suspended get nothing. Afterwards all go on, and the ledger has what clients saw.
#[tokio::test]
async fn tenants_go_on_without_postgres() -> Result<()> {
    let waits = json!({ "max_wait_ms": 2_000, "control_plane": { "timeout_ms": 1_000 } });
    let fleet = Fleet::with_own_postgres(|stack| stack.gateways(2).plugin(waits)).await?;
    fleet.tenant("rate", &[continuous("rate", "tokens", 100, 50, 1_000)], &[]).await?;
    fleet.tenant("quota", &[monthly(1_000_000)], &[]).await?;
    fleet.tenant("out", &[monthly(100)], &[]).await?;
    fleet.admin.post("/tenants/out/suspend", &json!({})).await?.ok()?;
    ensure!(fleet.call("out", "/").await?.status == 403);
    let rate = Traffic::start(&fleet, "rate", &[2, 2], Duration::from_millis(20))?;
    let quota = Traffic::start(&fleet, "quota", &[1, 1], Duration::from_millis(40))?;
    let claimed = async || {
        let claimed = "select sum(claimed) from claim where tenant_id = 'quota'";
        Ok::<_, anyhow::Error>(fleet.stack.database.query(claimed).await?.parse::<usize>()?)
    };
    wait_for("blocks ahead of demand", SOON, async || {
        let ahead = claimed().await?.saturating_sub(quota.count(200));
        Ok((quota.count(200) > 100 && ahead > 40).then_some(()))
    })
    .await?;

    fleet.stack.database.postgres.kill();
    let killed = Instant::now();
    let admitted = quota.count(200);
    for (tenant, status) in [("nobody", 503), ("out", 403)] {
        let answer = fleet.call(tenant, "/").await?;
        ensure!(answer.status == status, "{tenant}: {} {}", answer.status, answer.body);
    }
    wait_for("the rate to go on", SOON, async || {
        Ok(rate.is_served_since(killed + OUTAGE, 2).then_some(()))
    })
    .await?;
    wait_for(
        "the end of what was claimed",
        SOON,
        async || Ok((quota.count(503) > 0).then_some(())),
    )
    .await?;
    ensure!(quota.count(200) > admitted + 20, "{admitted}, then {}", quota.count(200));

    fleet.stack.database.postgres.restart().await?;
    let back = Instant::now();
    for traffic in [&rate, &quota] {
        wait_for("traffic", SOON, async || Ok(traffic.is_served_since(back, 2).then_some(())))
            .await?;
    }
    let (rate, quota) = (rate.stop().await?, quota.stop().await?);
    rate.only_admits_and_limits()?;
    rate.keeps_the_law(100, 50)?;
    ensure!(quota.of(429).next().is_none(), "a quota that is not used up refuses");
    ensure!(quota.admitted() <= u64::try_from(claimed().await?)?);
    fleet.ledger_reaches("rate", rate.admitted()).await?;
    fleet.ledger_reaches("quota", quota.admitted()).await?;
    let admitted = rate.admitted() + quota.admitted();
    ensure!(fleet.stack.upstream.requests() == admitted, "{}", fleet.stack.upstream.requests());
    Ok(())
}
