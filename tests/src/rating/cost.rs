//! What a policy says that a request costs is what is taken and counted, on the meter that it names.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use xtask::load::{Counts, Load, Until};

use super::{books_are, is_refused};
use crate::{
    fleet::trace::Traffic,
    harness::{Fleet, SOON, monthly, periodic, wait_for},
    leases::bucket,
};

/// `/c7` costs 7.
const BY_PATH: &str = "prices := {\"/c0\": 0, \"/c1\": 1, \"/c3\": 3, \"/c7\": 7, \"/c11\": 11}

cost := prices[input.path]";

const METERED: &str = "default cost := 2

cost := 0 if input.path == \"/free\"

cost := 30 if startswith(input.path, \"/batch/\")

default meter := \"default\"

meter := \"batch\" if startswith(input.path, \"/batch/\")

meter := \"free\" if input.path == \"/free\"";

/// Several kinds of requests at once, at two gateways: what clients saw admitted is in the ledger by
/// meter and version, at the cost of its kind, and gone from the bucket.
#[tokio::test]
async fn what_is_admitted_is_counted_at_its_cost() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(2)).await?;
    fleet.tenant("acme", &[monthly(super::PLENTY)], &[]).await?;
    let version = fleet.rate_by_marked("metered", METERED).await?;
    let drive = async |path: &str, requests: u64| {
        let urls = fleet.stack.gateways.iter().map(|gateway| format!("{}{path}", gateway.url()));
        let load = Load { urls: urls.collect(), ..Load::of_tenant("", "acme", 6) };
        let counts = Arc::new(Counts::default());
        load.run(Until::requests(requests), &counts).await?;
        ensure!(counts.of(200) == requests, "{path}: {:?}", counts.by_status());
        Ok(())
    };
    let batch = "/batch/x?cost=1";
    tokio::try_join!(drive("/plain", 300), drive("/free", 200), drive(batch, 100))?;
    let rows =
        [("default", version, 600, 300), ("free", version, 0, 200), ("batch", version, 3_000, 100)];
    books_are(&fleet, "acme", &rows).await?;
    wait_for("the bucket to have paid", SOON, async || {
        let bucket = bucket(&fleet, "acme", "monthly").await?;
        ensure!(bucket["remaining"] == super::PLENTY - 3_600, "{bucket}");
        Ok(Some(()))
    })
    .await?;
    wait_for("the stats", SOON, async || {
        let admitted = fleet.stack.gateways[0].weir_stat("admitted_tokens").await?
            + fleet.stack.gateways[1].weir_stat("admitted_tokens").await?;
        // Who looked whether the policy was there may have passed before it was.
        let probes = super::books(&fleet, super::PROBE).await?;
        let probes: u64 = probes.values().map(|(tokens, _)| tokens).sum();
        ensure!(admitted == 3_600 + probes, "{admitted} tokens are admitted by the stats");
        Ok(Some(()))
    })
    .await?;
    Ok(())
}

/// A cost is taken whole or not at all; what is left serves cheaper requests, and what costs nothing
/// passes when nothing is left.
#[tokio::test]
async fn a_cost_above_what_is_left_is_refused() -> Result<()> {
    let fleet = Fleet::start().await?;
    fleet.tenant("acme", &[monthly(10)], &[]).await?;
    let version = fleet.rate_by_marked("by-path", BY_PATH).await?;
    let call = async |path: &str| fleet.ask(0, "acme", path).await;
    let before = fleet.stack.upstream.requests();

    let never = call("/c11").await?;
    is_refused(&never, 429, "cost_exceeds_capacity")?;
    ensure!(never.header("retry-after").is_empty(), "{never:?}");
    ensure!(call("/c7").await?.status == 200);
    let dear = call("/c7").await?;
    is_refused(&dear, 429, "limit_exceeded")?;
    ensure!(dear.header("retry-after").parse::<u64>()? > 0, "{dear:?}");
    ensure!(dear.json()?["violated-policies"] == json!(["monthly"]), "{dear:?}");
    ensure!(call("/c3").await?.status == 200, "3 are left");
    is_refused(&call("/c1").await?, 429, "limit_exceeded")?;
    for _ in 0..20 {
        ensure!(call("/c0").await?.status == 200, "what is free needs no tokens");
    }
    is_refused(&call("/c1").await?, 429, "limit_exceeded")?;
    is_refused(&call("/c11").await?, 429, "cost_exceeds_capacity")?;
    ensure!(fleet.stack.upstream.requests() == before + 22);
    books_are(&fleet, "acme", &[("default", version, 10, 22)]).await
}

/// What costs no tokens is a request all the same, and a limit in requests counts it.
#[tokio::test]
async fn free_requests_are_requests() -> Result<()> {
    let fleet = Fleet::start().await?;
    let limits = [periodic("calls", "requests", 5, json!("day"))];
    fleet.tenant("acme", &limits, &[]).await?;
    let version = fleet.rate_by_marked("by-path", BY_PATH).await?;
    for _ in 0..5 {
        ensure!(fleet.ask(0, "acme", "/c0").await?.status == 200);
    }
    is_refused(&fleet.ask(0, "acme", "/c0").await?, 429, "limit_exceeded")?;
    books_are(&fleet, "acme", &[("default", version, 0, 5)]).await
}

/// One expensive request has the gateway get much of a limit. Cheap ones, which come all the time, do not have
/// it keep that.
#[tokio::test]
async fn what_an_expensive_request_brought_goes_back_while_cheap_ones_come() -> Result<()> {
    let fleet = Fleet::start().await?;
    fleet.tenant("acme", &[monthly(10_000_000)], &[]).await?;
    let rules = "default cost := 100\n\ncost := 1000000 if input.path == \"/dear\"";
    let version = fleet.rate_by_marked("dear", rules).await?;
    let cheap = Traffic::start(&fleet, "acme", &[2], Duration::from_millis(20))?;
    wait_for("cheap requests", SOON, async || Ok((cheap.count(200) > 20).then_some(()))).await?;
    ensure!(fleet.ask(0, "acme", "/dear").await?.status == 200);
    wait_for("the gateway to hold what cheap ones need", SOON, async || {
        let bucket = bucket(&fleet, "acme", "monthly").await?;
        let held = bucket["held"].as_object().context("no held")?;
        let held: u64 = held.values().filter_map(serde_json::Value::as_u64).sum();
        ensure!(held < 100_000, "{held} are held");
        Ok(Some(()))
    })
    .await?;
    let cheap = cheap.stop().await?;
    cheap.only_admits_and_limits()?;
    let tokens = 1_000_000 + 100 * cheap.admitted();
    books_are(&fleet, "acme", &[("default", version, tokens, cheap.admitted() + 1)]).await
}
