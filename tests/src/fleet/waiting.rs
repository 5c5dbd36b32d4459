//! Requests that wait for a lease, and clients that leave.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::task::JoinSet;
use xtask::stack::Network;

use crate::{
    harness::{Fleet, SOON, monthly, wait_for},
    leases::bucket,
};

const LIMIT: u64 = 1_000;
const FOLLOWERS: u64 = 5;

/// One gateway with one worker, so that all who wait share one call, and no control plane to answer
/// it.
async fn unanswered() -> Result<Fleet> {
    let fleet = Fleet::with(|stack| stack.concurrency(1).links()).await?;
    fleet.tenant("acme", &[monthly(LIMIT)], &[]).await?;
    fleet.stack.links[0].set(Network::BlackHole);
    Ok(fleet)
}

/// A request that goes on until its task is aborted, which closes its connection.
fn ask(fleet: &Fleet, waiting: &mut JoinSet<Option<u16>>) -> Result<()> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?;
    let request = client.get(fleet.stack.gateways[0].url()).header("x-tenant-id", "acme");
    waiting.spawn(async move { Some(request.send().await.ok()?.status().as_u16()) });
    Ok(())
}

async fn so_many_wait(fleet: &Fleet, count: u64) -> Result<()> {
    let gateway = &fleet.stack.gateways[0];
    wait_for(&format!("{count} requests to wait"), SOON, async || {
        Ok((gateway.weir_stat("waited").await? == count).then_some(()))
    })
    .await
}

/// Until Envoy knows that so many requests are under way.
async fn so_many_are_open(fleet: &Fleet, count: u64) -> Result<()> {
    wait_for(&format!("{count} open requests"), SOON, async || {
        let stats = fleet.stack.gateways[0].stats().await?;
        Ok((stats.get("http.ingress.downstream_rq_active") == Some(&count)).then_some(()))
    })
    .await
}

/// Nothing is held any more, and all but `admitted` is left.
async fn all_goes_back(fleet: &Fleet, admitted: u64) -> Result<()> {
    wait_for("the lease to go back", SOON, async || {
        let bucket = bucket(fleet, "acme", "monthly").await?;
        let held = bucket["held"].as_object().is_some_and(|held| held.values().any(|n| *n != 0));
        let left = bucket["remaining"].as_u64();
        Ok((!held && left == Some(LIMIT - admitted)).then_some(()))
    })
    .await
}

/// The client whose request made the call leaves before it is answered; the others who wait are
/// served by it, the one who left is neither admitted nor billed, and nothing of the lease is lost.
#[tokio::test]
async fn those_who_wait_are_served_though_their_leader_left() -> Result<()> {
    let fleet = unanswered().await?;
    let (mut leader, mut followers) = (JoinSet::new(), JoinSet::new());
    ask(&fleet, &mut leader)?;
    so_many_wait(&fleet, 1).await?;
    for _ in 0..FOLLOWERS {
        ask(&fleet, &mut followers)?;
    }
    so_many_wait(&fleet, 1 + FOLLOWERS).await?;
    leader.shutdown().await;
    so_many_are_open(&fleet, FOLLOWERS).await?;
    ensure!(fleet.stack.links[0].struck() > 0, "nobody called");

    fleet.stack.links[0].set(Network::Up);
    while let Some(answer) = followers.join_next().await {
        let status = answer?;
        ensure!(status == Some(200), "{status:?}");
    }
    ensure!(fleet.stack.gateways[0].weir_stat("waited").await? == 1 + FOLLOWERS);
    all_goes_back(&fleet, FOLLOWERS).await?;
    fleet.ledger_reaches("acme", FOLLOWERS).await?;
    ensure!(fleet.call("acme", "/").await?.status == 200, "the worker goes on");
    fleet.ledger_reaches("acme", FOLLOWERS + 1).await?;
    ensure!(fleet.stack.upstream.requests() == FOLLOWERS + 1);
    Ok(())
}

/// All who waited leave. The lease that then comes is for nobody: it goes back, nobody is billed, and
/// the gateway admits exactly the limit afterwards.
#[tokio::test]
async fn a_lease_that_nobody_waits_for_any_more_goes_back() -> Result<()> {
    let fleet = unanswered().await?;
    let mut waiting = JoinSet::new();
    for _ in 0..FOLLOWERS {
        ask(&fleet, &mut waiting)?;
    }
    so_many_wait(&fleet, FOLLOWERS).await?;
    waiting.shutdown().await;
    so_many_are_open(&fleet, 0).await?;

    fleet.stack.links[0].set(Network::Up);
    wait_for("the call to be answered", SOON, async || {
        let url = format!("{}/metrics", fleet.stack.control_planes[0].url());
        let metrics = reqwest::get(url).await?.text().await?;
        Ok(metrics.contains(r#"weir_lease_items_total{outcome="granted"}"#).then_some(()))
    })
    .await?;
    all_goes_back(&fleet, 0).await?;
    let counts = fleet.drive("acme", 8, LIMIT + 200).await?;
    ensure!(counts.of(200) == LIMIT, "{} of {LIMIT} are admitted", counts.of(200));
    ensure!(counts.of(429) == 200, "{} are refused", counts.of(429));
    fleet.ledger_reaches("acme", LIMIT).await
}
