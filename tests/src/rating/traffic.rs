//! A policy that is changed in mid-traffic.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{Books, books, is_everywhere, marked};
use crate::{
    fleet::trace::{Trace, Traffic},
    harness::{Fleet, SOON, monthly, wait_for},
};

const TENANTS: [&str; 3] = ["wide", "other", "dry"];
/// What `dry` has, which it uses up.
const DRY: u64 = 4_000;
/// In the order in which they become active; the texts after the mark.
const RULES: [&str; 6] = [
    "cost := 2",
    "cost := 5\n\nmeter := \"five\"",
    "default cost := 7\n\ncost := 11 if input.plan == \"other-plan\"",
    "cost := 0",
    "cost := 13 if input.plan\n\nmeter := input.plan",
    "cost := 17",
];

/// What a request of a tenant costs by the rules with that number, and on which meter; without a policy
/// for `None`.
fn price(rules: Option<usize>, tenant: &str) -> (u64, String) {
    let default = |cost| (cost, "default".to_owned());
    match rules {
        Some(0) => default(2),
        Some(1) => (5, "five".to_owned()),
        Some(2) => default(if tenant == "other" { 11 } else { 7 }),
        Some(3) => default(0),
        Some(4) => (13, format!("{tenant}-plan")),
        Some(5) => default(17),
        _ => default(1),
    }
}

/// Under load by several tenants at two gateways the policy changes again and again. Each request was
/// rated by exactly one version: what a version admitted is in the ledger at that version's cost and on
/// its meter, all of them together are what clients saw admitted, and no limit was exceeded.
#[tokio::test]
async fn each_request_is_rated_by_one_version() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(2)).await?;
    for tenant in TENANTS {
        let capacity = if tenant == "dry" { DRY } else { super::PLENTY };
        fleet.tenant(tenant, &[monthly(capacity)], &[]).await?;
    }
    let start = |tenant: &str| Traffic::start(&fleet, tenant, &[4, 4], Duration::from_millis(2));
    let traffic: Vec<Traffic> = TENANTS.into_iter().map(start).collect::<Result<_>>()?;
    // Version of the policy, and the number of its rules.
    let mut versions = BTreeMap::from([(0, None)]);
    let goes_on = async || {
        let before: Vec<usize> =
            traffic.iter().map(|one| one.count(200) + one.count(429)).collect();
        wait_for("traffic", SOON, async || {
            let mut all = traffic.iter().zip(&before);
            let done = all.all(|(one, before)| one.count(200) + one.count(429) >= before + 60);
            Ok(done.then_some(()))
        })
        .await
    };
    for round in 0..2 {
        for (number, rules) in RULES.into_iter().enumerate() {
            let mark = format!("{round}-{number}");
            let version = fleet.rate_by(&marked(&mark, rules)).await?;
            versions.insert(version, Some(number));
            // Some stay until all have them, others are gone before.
            if number % 2 == round {
                is_everywhere(&fleet, &mark).await?;
                goes_on().await?;
            }
        }
        let first = versions.keys().nth(1).context("no version")?;
        fleet.admin.post("/policies/main/roll-back", &json!({ "version": first })).await?.ok()?;
        goes_on().await?;
        fleet.choose(None).await?.ok()?;
        goes_on().await?;
    }
    let mut traces = Vec::new();
    for one in traffic {
        traces.push(one.stop().await?);
    }
    for (tenant, trace) in TENANTS.into_iter().zip(traces) {
        trace.only_admits_and_limits()?;
        let books = are_complete(&fleet, tenant, &trace).await?;
        let mut tokens_of_all = 0;
        for ((meter, version), (tokens, requests)) in &books {
            let rules = versions.get(version).with_context(|| format!("{version}: {books:?}"))?;
            let (cost, expected) = price(*rules, tenant);
            ensure!(*meter == expected, "{tenant}: {version} counts on {expected}: {books:?}");
            ensure!(*tokens == cost * requests, "{tenant}: {version} costs {cost}: {books:?}");
            tokens_of_all += tokens;
        }
        println!("{tenant}: {} admitted, {books:?}", trace.admitted());
        ensure!(tenant == "dry" || books.len() >= 6, "{tenant}: {books:?}");
        ensure!(tenant != "dry" || tokens_of_all <= DRY, "{tokens_of_all} of {DRY} are admitted");
    }
    Ok(())
}

/// Waits until the ledger has as many requests as clients saw admitted; more are an error.
async fn are_complete(fleet: &Fleet, tenant: &str, trace: &Trace) -> Result<Books> {
    let admitted = trace.admitted();
    let books = wait_for(&format!("{admitted} of {tenant} in the ledger"), SOON, async || {
        let books = books(fleet, tenant).await?;
        let sum: u64 = books.values().map(|(_, requests)| requests).sum();
        ensure!(sum >= admitted, "the ledger has {sum} of {admitted}: {books:?}");
        Ok(Some((sum, books)))
    })
    .await?;
    ensure!(books.0 == admitted, "{tenant}: the ledger has {books:?}, {admitted} were admitted");
    Ok(books.1)
}
