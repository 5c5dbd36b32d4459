//! A tenant spends from the same bucket through Envoy and through the data API.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::task::JoinSet;

use super::{ALLOW, services, stored};
use crate::{fleet::trace::Traffic, harness::*};

const LIMIT: u64 = 3_000;
/// Refusals at each door, to see one admitted too many.
const REFUSALS: u64 = 300;

/// What callers of the data API are told, until it is enough.
#[derive(Default)]
struct Told {
    admitted: AtomicU64,
    refused: AtomicU64,
    enough: AtomicBool,
}

/// Both doors at once, against one periodic limit: together they admit its capacity, not one more and not
/// one less, and the ledger agrees.
#[tokio::test]
async fn both_doors_share_a_limit_exactly() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.control_planes(2)).await?;
    fleet.tenant("acme", &[monthly(LIMIT)], &[]).await?;
    let through_envoy = Traffic::start(&fleet, "acme", &[4], Duration::from_millis(1))?;
    let told = Arc::new(Told::default());
    let mut callers = JoinSet::new();
    for number in 0..6 {
        let api = services(&fleet).await?.into_iter().nth(number % 2).context("a replica")?;
        let told = Arc::clone(&told);
        callers.spawn(async move {
            let body = json!({ "input": { "tenant_id": "acme" } });
            while !told.enough.load(Ordering::Relaxed) {
                let answer = api.post(ALLOW, &body).await?.ok()?;
                let count = if answer["result"] == true { &told.admitted } else { &told.refused };
                count.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    let admitted = || told.admitted.load(Ordering::Relaxed) + through_envoy.count(200) as u64;
    wait_for("the last token", SOON * 4, async || {
        ensure!(admitted() >= LIMIT, "{} are admitted", admitted());
        Ok(Some(()))
    })
    .await?;
    let refused = (told.refused.load(Ordering::Relaxed), through_envoy.count(429) as u64);
    wait_for("refusals at both doors", SOON, async || {
        let more = told.refused.load(Ordering::Relaxed) >= refused.0 + REFUSALS
            && through_envoy.count(429) as u64 >= refused.1 + REFUSALS;
        Ok(more.then_some(()))
    })
    .await?;
    told.enough.store(true, Ordering::Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    let trace = through_envoy.stop().await?;

    trace.only_admits_and_limits()?;
    let by_opa = told.admitted.load(Ordering::Relaxed);
    ensure!(by_opa > 0 && trace.admitted() > 0, "{by_opa} and {}", trace.admitted());
    let all = by_opa + trace.admitted();
    ensure!(all == LIMIT, "{by_opa} and {} of {LIMIT} are admitted", trace.admitted());
    fleet.ledger_reaches("acme", LIMIT).await?;
    assert_eq!(stored(&fleet, "acme").await?, format!("{LIMIT}|{LIMIT}"));
    Ok(())
}
