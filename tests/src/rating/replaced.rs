//! Workers that are replaced have the policy for their first request.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use xtask::stack::Reloadable;

use super::{books, detail, everywhere, is_everywhere, is_shown, marked};
use crate::{
    fleet::trace::Traffic,
    harness::{Fleet, SOON, monthly, wait_for},
    takeover::spring,
};

/// The policy denies all but the bait. VMs trap, that of the refresher too; none that comes instead lets
/// anything pass, and the next text of the policy is heard by all.
#[tokio::test]
async fn a_vm_that_comes_after_a_trap_rates_at_once() -> Result<()> {
    let fleet = Fleet::that_traps(|stack| {
        stack.edit("stream_idle_timeout: 60s", "stream_idle_timeout: 6s")
    })
    .await?;
    for tenant in ["acme", "bait"] {
        fleet.tenant(tenant, &[monthly(super::PLENTY)], &[]).await?;
    }
    let closed = |mark: &str| marked(mark, "allow := false if input.tenant != \"bait\"");
    fleet.rate_by(&closed("0")).await?;
    is_everywhere(&fleet, "0").await?;
    let traffic = Traffic::start(&fleet, "acme", &[6], Duration::from_millis(2))?;
    for (round, who) in ["any", "refresher", "any"].into_iter().enumerate() {
        let trap = spring(&fleet, 0, who).await?;
        let seen = traffic.count(403);
        wait_for("denials", SOON, async || {
            ensure!(traffic.count(403) >= seen + 100, "of {}", traffic.count(403));
            Ok(Some(()))
        })
        .await?;
        let mark = format!("{}", round + 1);
        fleet.rate_by(&closed(&mark)).await?;
        is_everywhere(&fleet, &mark).await?;
        // Envoy replaces a VM that traps again so soon only after that time.
        let ends = trap.answered + Duration::from_millis(1_500);
        wait_for("time to pass", SOON, async || {
            Ok((std::time::Instant::now() >= ends).then_some(()))
        })
        .await?;
    }
    let trace = traffic.stop().await?;
    let wrong = trace.0.iter().find(|seen| ![403, 503, 0].contains(&seen.status));
    ensure!(wrong.is_none(), "{wrong:?}");
    let failed = trace.0.iter().filter(|seen| seen.status != 403).count();
    println!("{} were denied, {failed} were in a VM that trapped", trace.of(403).count());
    Ok(())
}

/// Under load the listener, or the plugin alone, is replaced several times: no request passes unrated or
/// at another cost.
async fn rates_through(part: Reloadable) -> Result<()> {
    let fleet = Fleet::with(|stack| stack.reloadable(part)).await?;
    fleet.tenant("acme", &[monthly(super::PLENTY)], &[]).await?;
    let rules = "cost := 3 if input.plan == \"acme-plan\"\n\nmeter := \"rated\"";
    let version = fleet.rate_by_marked("rated", rules).await?;
    let traffic = Traffic::start(&fleet, "acme", &[6], Duration::from_millis(2))?;
    for flush_ms in 200..203 {
        let served = traffic.count(200);
        wait_for("traffic", SOON, async || Ok((traffic.count(200) >= served + 200).then_some(())))
            .await?;
        let changed = json!({ "flush_ms": flush_ms, "max_wait_ms": 5_000,
            "control_plane": { "timeout_ms": 3_000 } });
        fleet.stack.reload_gateway(0, &changed).await?;
        let rated = |answer: &crate::harness::Answer| detail(answer) == "rated";
        everywhere(&fleet, "acme", "/which", "rated", rated).await?;
    }
    let trace = traffic.stop().await?;
    ensure!(trace.0.iter().all(|seen| seen.status == 200), "somebody was refused");
    let admitted = trace.admitted();
    wait_for("the ledger", SOON, async || {
        let books = books(&fleet, "acme").await?;
        let expected = [(("rated".to_owned(), version), (3 * admitted, admitted))].into();
        ensure!(books == expected, "{admitted} are admitted: {books:?}");
        Ok(Some(()))
    })
    .await
}

#[tokio::test]
async fn a_new_listener_rates_at_once() -> Result<()> {
    rates_through(Reloadable::Listener).await
}

#[tokio::test]
async fn a_new_plugin_configuration_rates_at_once() -> Result<()> {
    rates_through(Reloadable::Plugin).await
}

/// A worker stands still for longer than others wait for it, and with it what it had asked for as the
/// refresher. What it hears late does not undo what the next refresher has heard.
#[tokio::test]
async fn a_refresher_that_stood_still_undoes_nothing() -> Result<()> {
    let fleet = Fleet::that_traps(|stack| stack).await?;
    for tenant in ["acme", "bait"] {
        fleet.tenant(tenant, &[monthly(super::PLENTY)], &[]).await?;
    }
    fleet.rate_by_marked("0", "").await?;
    let gateway = &fleet.stack.gateways[0];
    let terms = gateway.weir_stat("refresher_terms").await?;
    wait_for("the refresher to stand still", SOON, async || {
        let client = reqwest::Client::new();
        let request = client.get(gateway.url()).header("x-tenant-id", "bait");
        let request = request.header("x-weir-trap", "stall-refresher").send();
        let answer = tokio::time::timeout(Duration::from_secs(2), request).await;
        Ok(answer.is_err().then_some(()))
    })
    .await?;
    // Its poll is answered with this, which it hears when it goes on.
    fleet.put_policy("main", &marked("1", "")).await?.ok()?;
    wait_for("another refresher", SOON, async || {
        Ok((gateway.weir_stat("refresher_terms").await? > terms).then_some(()))
    })
    .await?;
    let version = fleet.rate_by(&marked("2", "")).await?;
    is_shown(&fleet, version).await?;
    is_everywhere(&fleet, "2").await?;
    for _ in 0..100 {
        let answer = fleet.ask(0, "acme", "/which").await?;
        ensure!(detail(&answer) == "2", "{answer:?}");
    }
    Ok(())
}
