//! Changes of a tenant at run time reach every gateway, by a push.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use super::{three_gateways, trace::Traffic};
use crate::{
    harness::{Fleet, SOON, monthly, wait_for},
    leases::bucket,
};

/// Suspending and resuming a tenant, another plan, a cut and a top-up each take effect at three
/// gateways under load, and what passes meanwhile is in the ledger.
#[tokio::test]
async fn a_change_takes_effect_at_every_gateway() -> Result<()> {
    let fleet = three_gateways().await?;
    fleet.tenant("acme", &[monthly(1_000_000)], &[]).await?;
    let traffic = Traffic::start(&fleet, "acme", &[1, 1, 1], Duration::from_millis(3))?;
    let all_answer = async |what: &str, status: u16| {
        let since = Instant::now();
        let seen = wait_for(what, SOON, async || Ok(traffic.all_answer_since(since, status, 3)));
        println!("{what}: {:?}", seen.await? - since);
        anyhow::Ok(())
    };
    all_answer("the first lease", 200).await?;
    for _ in 0..3 {
        fleet.admin.post("/tenants/acme/suspend", &json!({})).await?.ok()?;
        all_answer("suspend", 403).await?;
        fleet.admin.post("/tenants/acme/resume", &json!({})).await?.ok()?;
        all_answer("resume", 200).await?;
        put_plan(&fleet, 1).await?;
        all_answer("a smaller plan", 429).await?;
        put_plan(&fleet, 1_000_000).await?;
        all_answer("a larger plan", 200).await?;
        // They take more meanwhile.
        adjust(&fleet, -i64::try_from(left(&fleet).await?)? + 1_000).await?;
        all_answer("a cut", 429).await?;
        adjust(&fleet, 900_000).await?;
        all_answer("a top-up", 200).await?;
    }
    let trace = traffic.stop().await?;
    fleet.ledger_reaches("acme", trace.admitted()).await
}

async fn put_plan(fleet: &Fleet, capacity: u64) -> Result<()> {
    let plan = json!({ "currency": "USD", "limits": [monthly(capacity)], "prices": [] });
    fleet.admin.put("/plans/acme-plan", &plan).await?.ok().map(drop)
}

/// What is left beside what gateways hold.
async fn left(fleet: &Fleet) -> Result<u64> {
    let bucket = bucket(fleet, "acme", "monthly").await?;
    let held = bucket["held"].as_object().context("no held")?;
    let held: u64 = held.values().filter_map(serde_json::Value::as_u64).sum();
    Ok(bucket["remaining"].as_u64().context("no remaining")?.saturating_sub(held))
}

async fn adjust(fleet: &Fleet, amount: i64) -> Result<()> {
    let adjustment = json!({ "amount": amount, "reason": "test" });
    let path = "/tenants/acme/buckets/monthly/adjustments";
    fleet.admin.post(path, &adjustment).await?.ok().map(drop)
}
