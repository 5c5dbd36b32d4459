//! Envoy replaces the plugin's configuration while it serves.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;
use xtask::stack::Reloadable;

use crate::{
    fleet::trace::Traffic,
    harness::{Answer, Fleet, SOON, continuous, monthly, wait_for},
    leases::bucket,
};

const CAPACITY: u64 = 100_000;
const RELOADS: u64 = 3;
const SLOW: u64 = 8;

/// The configuration changes under load, several times. Workers of the old and of the new one serve
/// side by side, and the old ones end; nothing is lost, nothing is admitted too many, and every token
/// that was not spent is back in its bucket in the end.
async fn loses_nothing(part: Reloadable) -> Result<()> {
    let fleet = Fleet::with(|stack| stack.reloadable(part)).await?;
    for tenant in ["acme", "once", "slow"] {
        fleet.tenant(tenant, &[monthly(CAPACITY)], &[]).await?;
    }
    fleet.tenant("rate", &[continuous("rate", "tokens", 100, 50, 1_000)], &[]).await?;
    let acme = Traffic::start(&fleet, "acme", &[8], Duration::from_millis(2))?;
    let rate = Traffic::start(&fleet, "rate", &[2], Duration::from_millis(5))?;
    // Streams that outlive the configuration that they began under, on either thread.
    let mut slow = JoinSet::new();
    for flush_ms in 0..RELOADS {
        for _ in 0..SLOW {
            let request = fleet.request(Method::GET, "/slow").header("x-tenant-id", "slow");
            slow.spawn(Answer::of(request));
        }
        let served = acme.count(200);
        wait_for("traffic", SOON, async || Ok((acme.count(200) >= served + 500).then_some(())))
            .await?;
        // Its lease is left to whoever comes after the worker that has it now.
        ensure!(fleet.call("once", "/").await?.status == 200);
        let changed = json!({ "flush_ms": 200 + flush_ms, "rate_limit_fields": "always",
            "max_wait_ms": 5_000, "control_plane": { "timeout_ms": 3_000 } });
        fleet.stack.reload_gateway(0, &changed).await?;
    }
    let gateway = &fleet.stack.gateways[0];
    // What goes on on an old connection goes on with the old configuration, until Envoy closes it.
    let asked = AtomicU64::new(0);
    wait_for("the new configuration", SOON, async || {
        let answer = fleet.call("acme", "/").await?;
        asked.fetch_add(1, Ordering::Relaxed);
        Ok((!answer.header("ratelimit").is_empty()).then_some(()))
    })
    .await?;
    wait_for("what was replaced to be gone", SOON, async || {
        let stats = gateway.stats().await?;
        let draining = stats.get("listener_manager.total_filter_chains_draining");
        Ok((draining == Some(&0)).then_some(()))
    })
    .await?;
    let (acme, rate) = (acme.stop().await?, rate.stop().await?);
    for answer in slow.join_all().await {
        let answer = answer?;
        ensure!(answer.status == 200, "{answer:?}");
    }

    acme.only_admits_and_limits()?;
    rate.only_admits_and_limits()?;
    rate.keeps_the_law(100, 50)?;
    fleet.ledger_reaches("rate", rate.admitted()).await?;
    let all_acme = acme.admitted() + asked.into_inner();
    for (tenant, admitted) in [("acme", all_acme), ("once", RELOADS), ("slow", RELOADS * SLOW)] {
        fleet.ledger_reaches(tenant, admitted).await?;
        wait_for("every token to be back", SOON, async || {
            let bucket = bucket(&fleet, tenant, "monthly").await?;
            let held = bucket["held"].as_object().is_some_and(|held| held.values().any(|n| n != 0));
            let left = CAPACITY - admitted;
            ensure!(!held && bucket["remaining"] == left, "{left} of {tenant} are left: {bucket}");
            Ok(Some(()))
        })
        .await?;
    }
    ensure!(gateway.weir_stat("lost_workers").await? == 0, "a worker was lost");
    wait_for("the stats to agree", SOON, async || {
        let (admitted, stored) =
            (gateway.weir_stat("admitted").await?, gateway.weir_stat("stored").await?);
        let seen = all_acme + RELOADS + RELOADS * SLOW + rate.admitted();
        ensure!((admitted, stored) == (seen, seen), "{admitted}, {stored} stored, {seen} seen");
        Ok(Some(()))
    })
    .await
}

#[tokio::test]
async fn a_new_listener_loses_nothing() -> Result<()> {
    loses_nothing(Reloadable::Listener).await
}

#[tokio::test]
async fn a_new_plugin_configuration_loses_nothing() -> Result<()> {
    loses_nothing(Reloadable::Plugin).await
}
