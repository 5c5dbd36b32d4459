//! The outage contract: what passes while the control plane is away, and that it is counted, billed
//! and owed.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xtask::load::{Counts, Until};

use crate::{
    harness::{Answer, Fleet, SOON, continuous, monthly, per_unit, wait_for},
    leases::bucket,
};

const LIMIT: u64 = 10_000;

/// Requests wait half a second only: that is how long it takes to notice an outage.
async fn with_contract(contract: Value) -> Result<Fleet> {
    let plugin = json!({ "max_wait_ms": 500, "outage": contract });
    Fleet::with(|stack| stack.plugin(plugin)).await
}

/// One tenant's requests, one after the other, each of which may be the one that is waited for.
struct Caller<'a> {
    fleet: &'a Fleet,
    tenant: &'a str,
    admitted: std::cell::Cell<u64>,
}

impl<'a> Caller<'a> {
    fn new(fleet: &'a Fleet, tenant: &'a str) -> Self {
        Self { fleet, tenant, admitted: std::cell::Cell::new(0) }
    }

    async fn call(&self) -> Result<Answer> {
        let answer = self.fleet.call(self.tenant, "/").await?;
        if answer.status == 200 {
            self.admitted.set(self.admitted.get() + 1);
        }
        Ok(answer)
    }

    /// Calls until one is answered like this.
    async fn until(&self, status: u16, reason: &str) -> Result<Answer> {
        wait_for(&format!("{} to get {status} {reason}", self.tenant), SOON, async || {
            let answer = self.call().await?;
            let is_it = answer.status == status && answer.header("x-weir-reason") == reason;
            ensure!(is_it, "{answer:?}");
            Ok(Some(answer))
        })
        .await
    }
}

/// Nobody holds a lease, and what is known of the tenant is up to date: changes have been heard of.
async fn is_given_back(fleet: &Fleet, tenant: &str, limit: &str) -> Result<()> {
    wait_for("the lease to be given back", SOON, async || {
        let bucket = bucket(fleet, tenant, limit).await?;
        let held = bucket["held"].as_object().context("no held")?;
        ensure!(held.values().all(|held| *held == 0), "{bucket}");
        Ok(Some(()))
    })
    .await
}

/// What the buckets and the gateways have left is the limit less what was admitted.
async fn is_debited(fleet: &Fleet, tenant: &str, admitted: u64) -> Result<()> {
    wait_for("the buckets to have paid all that was admitted", SOON, async || {
        let bucket = bucket(fleet, tenant, "monthly").await?;
        let held = bucket["held"].as_object().context("no held")?;
        ensure!(held.values().all(|held| *held == 0), "{bucket}");
        ensure!(bucket["remaining"] == LIMIT - admitted, "{admitted} are admitted: {bucket}");
        Ok(Some(()))
    })
    .await
}

/// The control plane goes away under load: grace admits its rate and says so, then the contract
/// denies. When it is back, what grace admitted is in the ledger, on the bill, and gone from the limit.
#[tokio::test]
async fn grace_is_bounded_and_paid() -> Result<()> {
    const PER_SECOND: u64 = 20;
    let contract = json!({ "grace_ms": 2_000, "grace_tokens_per_s": PER_SECOND });
    let fleet = with_contract(contract).await?;
    fleet.tenant("acme", &[monthly(LIMIT)], &[per_unit("0.01")]).await?;
    let counts = Arc::new(Counts::default());
    let caller = Caller::new(&fleet, "acme");
    caller.until(200, "").await?;
    // A lease that ends while nobody can take it back strands what is left of it.
    is_debited(&fleet, "acme", caller.admitted.get()).await?;

    fleet.stack.control_planes[0].kill();
    let load = fleet.load("acme", 4);
    let seen = Arc::clone(&counts);
    let load =
        tokio::spawn(async move { load.run(Until::elapsed(Duration::from_secs(6)), &seen).await });
    caller.until(200, "outage_grace").await?;
    let over_rate = caller.until(503, "grace_exceeded").await?;
    ensure!(over_rate.header("retry-after") == "1", "{over_rate:?}");
    caller.until(503, "control_plane_unreachable").await?;
    load.await??;
    let graced = fleet.stack.gateways[0].weir_stat("outage_grace").await?;
    ensure!((PER_SECOND + 1..=2 * PER_SECOND).contains(&graced), "{graced} passed in grace");

    fleet.stack.control_planes[0].restart().await?;
    caller.until(200, "").await?;
    let admitted = caller.admitted.get() + counts.of(200);
    fleet.ledger_reaches("acme", admitted).await?;
    is_debited(&fleet, "acme", admitted).await?;
    let invoice = fleet.admin.get("/tenants/acme/invoices/preview").await?.ok()?;
    let cents: u64 = invoice["total"].as_str().context("no total")?.replace('.', "").parse()?;
    ensure!(cents == admitted, "{admitted} are admitted: {invoice}");
    Ok(())
}

/// A continuous bucket goes below zero by what it owes, and admits nobody before that is paid.
#[tokio::test]
async fn a_debt_is_paid_first() -> Result<()> {
    let contract = json!({ "grace_ms": 3_000, "grace_tokens_per_s": 200 });
    let fleet = with_contract(contract).await?;
    fleet.tenant("acme", &[continuous("rate", "tokens", 20, 10, 1_000)], &[]).await?;
    let caller = Caller::new(&fleet, "acme");
    caller.until(200, "").await?;
    is_given_back(&fleet, "acme", "rate").await?;

    fleet.stack.control_planes[0].kill();
    caller.until(503, "control_plane_unreachable").await?;
    let graced = fleet.stack.gateways[0].weir_stat("outage_grace").await?;
    ensure!(graced > 50, "{graced} passed in grace");
    fleet.stack.control_planes[0].restart().await?;

    let refused = caller.until(429, "limit_exceeded").await?;
    let owed = bucket(&fleet, "acme", "rate").await?["owed"].as_u64().context("no owed")?;
    ensure!(owed > 0 && owed <= graced, "{owed} of {graced} are owed");
    let wait_s: u64 = refused.header("retry-after").parse()?;
    ensure!(wait_s * 10 >= owed, "{owed} are owed at 10 a second: {refused:?}");
    fleet.ledger_reaches("acme", caller.admitted.get()).await
}

/// With `allow`, active tenants pass for as long as it takes, and nobody else does: not a stranger,
/// not who is suspended, not who had nothing left.
#[tokio::test]
async fn allow_is_for_active_tenants_only() -> Result<()> {
    let fleet = with_contract(json!({ "then": "allow" })).await?;
    for tenant in ["active", "suspended", "late"] {
        fleet.tenant(tenant, &[monthly(LIMIT)], &[]).await?;
    }
    fleet.tenant("spent", &[monthly(3)], &[]).await?;
    let (active, suspended) = (Caller::new(&fleet, "active"), Caller::new(&fleet, "suspended"));
    let spent = Caller::new(&fleet, "spent");
    active.until(200, "").await?;
    suspended.until(200, "").await?;
    fleet.admin.post("/tenants/suspended/suspend", &json!({})).await?.ok()?;
    suspended.until(403, "suspended").await?;
    spent.until(429, "limit_exceeded").await?;
    is_debited(&fleet, "active", active.admitted.get()).await?;

    fleet.stack.control_planes[0].kill();
    active.until(200, "outage_allowed").await?;
    let before = active.admitted.get() + suspended.admitted.get() + spent.admitted.get();
    for _ in 0..10 {
        let answer = active.call().await?;
        ensure!(answer.status == 200, "{answer:?}");
        ensure!(answer.header("x-weir-reason") == "outage_allowed", "{answer:?}");
        ensure!(fleet.call("stranger", "/").await?.status == 503);
        ensure!(fleet.call("late", "/").await?.status == 503, "this gateway has not known it");
        ensure!([403, 503].contains(&suspended.call().await?.status));
        ensure!(spent.call().await?.status == 429);
    }
    ensure!(fleet.stack.upstream.requests() == before + 10);

    fleet.stack.control_planes[0].restart().await?;
    active.until(200, "").await?;
    fleet.ledger_reaches("active", active.admitted.get()).await?;
    is_debited(&fleet, "active", active.admitted.get()).await
}
