//! A policy that reads the plan that a tenant is on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{books, books_are, detail, everywhere, is_shown, marked, patient};
use crate::{
    fleet::trace::Traffic,
    harness::{Fleet, SOON, monthly, wait_for},
};

/// Who is on `gold` pays less; the meter says by which plan a request was rated. There is no default:
/// without a plan it fails.
const BY_PLAN: &str = "prices := {\"gold\": 2, \"iron\": 9}

cost := prices[input.plan]

meter := input.plan";

/// Two plans, and nobody on them.
async fn plans(fleet: &Fleet) -> Result<()> {
    for plan in ["gold", "iron"] {
        let terms = json!({ "currency": "USD", "limits": [monthly(super::PLENTY)], "prices": [] });
        fleet.admin.put(&format!("/plans/{plan}"), &terms).await?.ok()?;
    }
    Ok(())
}

async fn tenant_on(fleet: &Fleet, tenant: &str, plan: &str) -> Result<()> {
    let tenant = json!({ "id": tenant, "plan": plan });
    fleet.admin.post("/tenants", &tenant).await?.ok().map(drop)
}

/// The very first requests that a gateway gets, many at once and at both workers, are rated by the
/// policy and by their tenants' plans.
#[tokio::test]
async fn the_first_requests_of_a_cold_gateway_are_right() -> Result<()> {
    let mut fleet = Fleet::with(|stack| stack.gateways(0)).await?;
    plans(&fleet).await?;
    let tenants: Vec<(String, &str)> =
        (0..10).map(|n| (format!("t{n}"), if n % 3 == 0 { "gold" } else { "iron" })).collect();
    for (tenant, plan) in &tenants {
        tenant_on(&fleet, tenant, plan).await?;
    }
    let version = fleet.rate_by(&marked("plans", BY_PLAN)).await?;
    fleet.stack.add_gateway(&patient(json!({}))).await?;
    let url = fleet.stack.gateways[0].url();
    let mut asked = tokio::task::JoinSet::new();
    for (tenant, _) in tenants.iter().cycle().take(80) {
        let (url, tenant) = (url.clone(), tenant.clone());
        asked.spawn(async move {
            let client = reqwest::Client::builder().timeout(2 * SOON).build()?;
            let answer = client.get(url).header("x-tenant-id", tenant).send().await?;
            anyhow::Ok(answer.status().as_u16())
        });
    }
    while let Some(status) = asked.join_next().await {
        let status = status??;
        ensure!(status == 200, "{status}");
    }
    for (tenant, plan) in &tenants {
        let tokens = if *plan == "gold" { 16 } else { 72 };
        books_are(&fleet, tenant, &[(plan, version, tokens, 8)]).await?;
    }
    Ok(())
}

/// A tenant that is moved to another plan, forth and back under load at two gateways, is rated by the new
/// one at every worker; what passes meanwhile is rated by one of the two, whole.
#[tokio::test]
async fn who_moves_to_another_plan_is_rated_by_it() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(2)).await?;
    plans(&fleet).await?;
    tenant_on(&fleet, "acme", "gold").await?;
    tenant_on(&fleet, super::PROBE, "gold").await?;
    let which = "reason := concat_plan if input.path == \"/plan\"

concat_plan := input.plan

allow := false if input.path == \"/plan\"";
    let rules = format!("{BY_PLAN}\n\n{which}");
    let version = fleet.rate_by_marked("plans", &rules).await?;
    let traffic = Traffic::start(&fleet, "acme", &[4, 4], Duration::from_millis(2))?;
    for plan in ["iron", "gold", "iron", "gold"] {
        fleet.admin.patch("/tenants/acme", &json!({ "plan": plan })).await?.ok()?;
        everywhere(&fleet, "acme", "/plan", plan, |answer| detail(answer) == plan).await?;
        let passed = traffic.count(200);
        wait_for("traffic", SOON, async || Ok((traffic.count(200) >= passed + 200).then_some(())))
            .await?;
    }
    let trace = traffic.stop().await?;
    ensure!(trace.0.iter().all(|seen| seen.status == 200), "somebody was refused");
    let books = wait_for("the ledger", SOON, async || {
        let books = books(&fleet, "acme").await?;
        let sum: u64 = books.values().map(|(_, requests)| requests).sum();
        ensure!(sum == trace.admitted(), "{sum} of {}: {books:?}", trace.admitted());
        Ok(Some(books))
    })
    .await?;
    for ((plan, of_version), (tokens, requests)) in &books {
        let cost = if plan == "gold" { 2 } else { 9 };
        ensure!((*of_version, *tokens) == (version, cost * requests), "{books:?}");
    }
    ensure!(books.len() == 2, "{books:?}");
    Ok(())
}

/// A policy that begins to read the plan, while tenants hold leases that were had without it: those who
/// ask next wait for their plan, and nobody is refused or rated without one.
#[tokio::test]
async fn plans_are_learnt_when_a_policy_begins_to_read_them() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(2)).await?;
    plans(&fleet).await?;
    let tenants = [("acme", "gold"), ("other", "iron")];
    for (tenant, plan) in tenants {
        tenant_on(&fleet, tenant, plan).await?;
    }
    let mut versions = vec![0];
    let mut traffic = Vec::new();
    for (tenant, _) in tenants {
        traffic.push(Traffic::start(&fleet, tenant, &[3, 3], Duration::from_millis(2))?);
    }
    for round in 0..3 {
        let plain = marked(&format!("plain-{round}"), "cost := 1");
        for text in [marked(&format!("plans-{round}"), BY_PLAN), plain] {
            versions.push(fleet.rate_by(&text).await?);
            is_shown(&fleet, *versions.last().context("none")?).await?;
            let passed: Vec<usize> = traffic.iter().map(|one| one.count(200)).collect();
            wait_for("traffic", SOON, async || {
                let mut all = traffic.iter().zip(&passed);
                Ok(all.all(|(one, passed)| one.count(200) >= passed + 100).then_some(()))
            })
            .await?;
        }
    }
    for ((tenant, plan), traffic) in tenants.into_iter().zip(traffic) {
        let trace = traffic.stop().await?;
        ensure!(trace.0.iter().all(|seen| seen.status == 200), "{tenant} was refused");
        let books = wait_for("the ledger", SOON, async || {
            let books = books(&fleet, tenant).await?;
            let sum: u64 = books.values().map(|(_, requests)| requests).sum();
            ensure!(sum == trace.admitted(), "{sum} of {}: {books:?}", trace.admitted());
            Ok(Some(books))
        })
        .await?;
        for ((meter, version), (tokens, requests)) in &books {
            let place =
                versions.iter().position(|one| one == version).context("no such version")?;
            let cost = match (place % 2, plan) {
                (1, "gold") => 2,
                (1, _) => 9,
                _ => 1,
            };
            let expected = if place % 2 == 1 { plan } else { "default" };
            ensure!(meter == expected && *tokens == cost * requests, "{tenant}: {books:?}");
        }
        ensure!(books.len() >= 7, "{tenant}: {books:?}");
    }
    ensure!(fleet.stack.gateways[0].weir_stat("policy_failures").await? == 0);
    Ok(())
}
