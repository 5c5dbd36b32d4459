//! What is not known of a policy while the control plane is away: nobody waits for ever, nobody passes
//! unrated but by the outage contract, and all is right again when it is back.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use xtask::stack::Network;

use super::{books_are, is_refused, is_shown, marked, patient};
use crate::harness::{Fleet, SOON, monthly, wait_for};

const LEASES: &str = "/edge/v1/leases";
const CONFIG: &str = "/edge/v1/config";

fn short(outage: Value) -> Value {
    json!({ "max_wait_ms": 400, "control_plane": { "timeout_ms": 300 }, "outage": outage })
}

/// Waits until a request of `tenant` is answered so.
async fn until(
    fleet: &Fleet,
    gateway: usize,
    tenant: &str,
    status: u16,
    reason: &str,
) -> Result<u64> {
    let passed = std::cell::Cell::new(0);
    wait_for(&format!("{status} {reason}"), SOON, async || {
        let answer = fleet.ask(gateway, tenant, "/").await?;
        passed.set(passed.get() + u64::from(answer.status == 200));
        ensure!((answer.status, answer.header("x-weir-reason")) == (status, reason), "{answer:?}");
        Ok(Some(()))
    })
    .await?;
    Ok(passed.get())
}

/// Envoy starts while the control plane is away: each request is refused in time, whatever the contract
/// says, since nobody is known. When it is back the first that passes is rated by the policy.
#[tokio::test]
async fn a_gateway_starts_while_the_control_plane_is_away() -> Result<()> {
    for then in ["deny", "allow"] {
        let mut fleet = Fleet::with(|stack| stack.links().gateways(0)).await?;
        fleet.tenant("acme", &[monthly(1_000)], &[]).await?;
        let rules = "prices := {\"acme-plan\": 5}\n\ncost := prices[input.plan]";
        let version = fleet.rate_by(&marked("plans", rules)).await?;
        fleet.stack.control_planes[0].kill();
        fleet.stack.add_gateway(&patient(short(json!({ "then": then })))).await?;
        for _ in 0..6 {
            is_refused(&fleet.ask(0, "acme", "/").await?, 503, "control_plane_unreachable")?;
            is_refused(&fleet.ask(0, "nobody", "/").await?, 503, "control_plane_unreachable")?;
        }
        fleet.stack.control_planes[0].restart().await?;
        let passed = until(&fleet, 0, "acme", 200, "").await?;
        wait_for("the ledger", SOON, async || {
            let books = super::books(&fleet, "acme").await?;
            let of = |version| books.get(&("default".to_owned(), version)).copied();
            let (rated, unrated) = (of(version).unwrap_or_default(), of(0).unwrap_or_default());
            ensure!(rated.1 + unrated.1 == passed && rated.0 == 5 * rated.1, "{books:?}");
            // Who is known again before the policy is, is for the contract.
            ensure!(rated.1 > 0 && (then == "allow" || unrated.1 == 0), "{then}: {books:?}");
            Ok(Some(()))
        })
        .await?;
    }
    Ok(())
}

/// Leases come and changes don't: whether there is a policy is not known, and so nothing passes, though
/// there are tokens; nor is the control plane asked for leases without end.
#[tokio::test]
async fn nothing_passes_while_the_policy_is_not_known() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.links().plugin(short(json!({})))).await?;
    fleet.tenant("acme", &[monthly(1_000)], &[]).await?;
    fleet.rate_by(&marked("closed", "allow := false")).await?;
    fleet.stack.gateways[0].kill();
    fleet.stack.links[0].set(Network::DropAnswers { path: CONFIG, one_in: 1 });
    fleet.stack.gateways[0].restart().await?;
    for _ in 0..10 {
        is_refused(&fleet.ask(0, "acme", "/").await?, 503, "control_plane_unreachable")?;
    }
    ensure!(fleet.stack.upstream.requests() == 0);
    let calls = fleet.stack.gateways[0].weir_stat("lease_calls").await?;
    println!("{calls} calls for leases for 10 requests");
    ensure!(calls <= 30, "{calls} calls for leases for 10 requests");
    fleet.stack.links[0].set(Network::Up);
    until(&fleet, 0, "acme", 403, "policy_denied").await?;
    ensure!(fleet.stack.upstream.requests() == 0);
    Ok(())
}

/// The policy begins to read the plan when no lease can be had any more, by which plans are told. The
/// outage contract decides: nothing passes, or what passes costs what is configured, and is owed.
#[tokio::test]
async fn a_plan_that_is_not_known_is_for_the_outage_contract() -> Result<()> {
    for then in ["deny", "allow"] {
        let outage = short(json!({ "then": then }));
        let fleet = Fleet::with(|stack| stack.links().plugin(outage)).await?;
        fleet.tenant("acme", &[monthly(super::PLENTY)], &[]).await?;
        let first = fleet.rate_by(&marked("first", "cost := 2")).await?;
        is_shown(&fleet, first).await?;
        let mut passed = until(&fleet, 0, "acme", 200, "").await?;
        fleet.stack.links[0].set(Network::DropAnswers { path: LEASES, one_in: 1 });
        let rules = "default cost := 7\n\ncost := 5 if input.plan";
        let second = fleet.rate_by(&marked("second", rules)).await?;
        is_shown(&fleet, second).await?;
        let (status, reason) = if then == "deny" {
            (503, "control_plane_unreachable")
        } else {
            (200, "outage_allowed")
        };
        passed += until(&fleet, 0, "acme", status, reason).await?;
        for _ in 0..5 {
            let answer = fleet.ask(0, "acme", "/").await?;
            let told = (answer.status, answer.header("x-weir-reason"));
            ensure!(told == (status, reason), "{answer:?}");
            passed += u64::from(status == 200);
        }
        fleet.stack.links[0].set(Network::Up);
        passed += until(&fleet, 0, "acme", 200, "").await?;
        let books = wait_for("the ledger", SOON, async || {
            let books = super::books(&fleet, "acme").await?;
            let sum: u64 = books.values().map(|(_, requests)| requests).sum();
            ensure!(sum == passed, "{sum} of {passed}: {books:?}");
            Ok(Some(books))
        })
        .await?;
        let of = |version| books.get(&("default".to_owned(), version)).copied().unwrap_or_default();
        let (rated, unrated) = (of(second), of(0));
        ensure!(rated.1 > 0 && rated.0 == 5 * rated.1, "{then}: {books:?}");
        ensure!(unrated.0 == unrated.1, "at the configured cost: {books:?}");
        ensure!(then == "deny" || unrated.1 >= 6, "{then}: {books:?}");
    }
    Ok(())
}

/// A policy that is known goes on rating while the control plane is away, as long as the lease lasts and
/// by the outage contract.
#[tokio::test]
async fn a_known_policy_rates_in_an_outage() -> Result<()> {
    let outage = short(json!({ "then": "allow" }));
    let fleet = Fleet::with(|stack| stack.links().plugin(outage)).await?;
    fleet.tenant("acme", &[monthly(super::PLENTY)], &[]).await?;
    let rules =
        "allow := false if input.path == \"/closed\"\n\ncost := 5 if input.plan == \"acme-plan\"";
    let version = fleet.rate_by_marked("known", rules).await?;
    let mut passed = until(&fleet, 0, "acme", 200, "").await?;
    fleet.stack.links[0].set(Network::Cut);
    passed += until(&fleet, 0, "acme", 200, "outage_allowed").await?;
    for _ in 0..10 {
        ensure!(fleet.ask(0, "acme", "/").await?.status == 200);
        is_refused(&fleet.ask(0, "acme", "/closed").await?, 403, "policy_denied")?;
    }
    fleet.stack.links[0].set(Network::Up);
    passed += 10 + until(&fleet, 0, "acme", 200, "").await?;
    books_are(&fleet, "acme", &[("default", version, 5 * passed, passed)]).await
}
