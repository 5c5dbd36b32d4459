//! What changes while streams are under way: the control plane goes, the configuration is replaced.

use anyhow::{Context, Result, ensure};
use reqwest::Response;
use serde_json::json;
use xtask::stack::Reloadable;

use super::{CAPACITY, CHAT, Models, books, chat, chat_stream, configuration, message};
use crate::{
    harness::{Answer, SOON, wait_for},
    leases::bucket,
};

/// Six streams of both APIs, held in the middle.
async fn streams(models: &Models) -> Result<Vec<Response>> {
    let mut held = Vec::new();
    for output in [10, 40, 90] {
        let script = json!({ "output": output, "cached": 3 });
        held.push(models.hold("acme", &chat_stream(100, true), &script).await?);
        held.push(models.hold("acme", &message(100, true), &script).await?);
    }
    Ok(held)
}

async fn come_to_their_end(models: &Models, held: Vec<Response>) -> Result<()> {
    models.upstream.release();
    for answer in held {
        let text = answer.text().await.context("a stream broke off")?;
        ensure!(text.contains("[DONE]") || text.contains("message_stop"), "{text}");
    }
    Ok(())
}

/// The control plane is killed while streams are under way: they go on and end, and are in the ledger
/// when it is back. What they gave back may strand with its lease, and nothing is minted.
#[tokio::test]
async fn streams_survive_the_control_plane() -> Result<()> {
    let models = Models::start(json!({})).await?;
    models.tenants(&["acme"]).await?;
    let held = streams(&models).await?;
    models.fleet.stack.control_planes[0].kill();
    let refused = wait_for("calls to be refused", SOON, async || {
        let answer = Answer::of(models.call("acme", CHAT, &chat(4_000_000), &json!({}))).await?;
        Ok((answer.status == 503).then_some(answer))
    })
    .await?;
    ensure!(refused.header("x-weir-reason") == "control_plane_unreachable", "{refused:?}");
    come_to_their_end(&models, held).await?;
    models.fleet.stack.control_planes[0].restart().await?;

    are_counted(&models, CAPACITY).await?;
    passes_again(&models).await
}

/// What the upstream said is in the ledger, and gone from the bucket at least: what was reserved beyond
/// may be lost with its lease, and counts as held until that would have ended.
async fn are_counted(models: &Models, capacity: u64) -> Result<()> {
    let calls = models.upstream.calls_of("acme");
    let mut said = 0;
    for call in &calls {
        said += books::settlement(call, 0)?.0.total();
    }
    let ledger = books::settled(&models.fleet, "acme", calls.len() as u64).await?;
    ensure!(books::total(&ledger) == said, "{said} were said: {ledger:?}");
    wait_for("the bucket to have paid", SOON, async || {
        let bucket = bucket(&models.fleet, "acme", "monthly").await?;
        let left = bucket["remaining"].as_u64().context("no remaining")?;
        ensure!(left <= capacity - said, "{said} of {capacity} are used: {bucket}");
        Ok(Some(()))
    })
    .await
}

async fn passes_again(models: &Models) -> Result<()> {
    wait_for("calls to pass again", SOON, async || {
        let answer = Answer::of(models.call("acme", CHAT, &chat(10), &json!({}))).await?;
        Ok((answer.status == 200).then_some(()))
    })
    .await
}

/// Redis comes back empty while streams are under way.
#[tokio::test]
async fn streams_survive_redis() -> Result<()> {
    let models = Models::start(json!({})).await?;
    models.tenants(&["acme"]).await?;
    let held = streams(&models).await?;
    models.fleet.stack.redis.kill();
    models.fleet.stack.redis.restart().await?;
    passes_again(&models).await?;
    come_to_their_end(&models, held).await?;
    are_counted(&models, CAPACITY).await
}

/// A tenant gets other limits, or is suspended, while its streams are under way: they end as they began,
/// and are counted.
#[tokio::test]
async fn streams_survive_changes_of_their_tenant() -> Result<()> {
    const SMALLER: u64 = CAPACITY / 2;
    let models = Models::start(json!({})).await?;
    models.tenants(&["acme"]).await?;
    let held = streams(&models).await?;
    let plan =
        json!({ "currency": "USD", "limits": [crate::harness::monthly(SMALLER)], "prices": [] });
    models.fleet.admin.put("/plans/acme-plan", &plan).await?.ok()?;
    let patch = json!({ "plan": "acme-plan" });
    models.fleet.admin.patch("/tenants/acme", &patch).await?.ok()?;
    models.fleet.admin.post("/tenants/acme/suspend", &json!({})).await?.ok()?;
    wait_for("the gateway to know", SOON, async || {
        let answer = Answer::of(models.call("acme", CHAT, &chat(10), &json!({}))).await?;
        Ok((answer.status == 403).then_some(()))
    })
    .await?;
    come_to_their_end(&models, held).await?;
    models.fleet.admin.post("/tenants/acme/resume", &json!({})).await?.ok()?;
    passes_again(&models).await?;
    are_counted(&models, CAPACITY).await
}

/// Who waited for a lease and left has reserved nothing.
#[tokio::test]
async fn who_leaves_while_it_waits_costs_nothing() -> Result<()> {
    let models = Models::start(json!({})).await?;
    models.tenants(&["acme"]).await?;
    models.fleet.stack.control_planes[0].kill();
    let gateway = &models.fleet.stack.gateways[0];
    let waiting: Vec<_> = (0..5)
        .map(|_| tokio::spawn(models.call("acme", CHAT, &chat(100), &json!({})).send()))
        .collect();
    wait_for("calls to wait", SOON, async || {
        Ok((gateway.weir_stat("waited").await? == 5).then_some(()))
    })
    .await?;
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    models.fleet.stack.control_planes[0].restart().await?;
    wait_for("a call to pass", SOON, async || {
        let answer = Answer::of(models.call("acme", CHAT, &chat(100), &json!({}))).await?;
        Ok((answer.status == 200).then_some(()))
    })
    .await?;
    ensure!(models.upstream.calls().len() == 1, "{:?}", models.upstream.calls());
    books::are_exact(&models, "acme", CAPACITY).await.map(drop)
}

/// The configuration is replaced while streams are under way: they end under the old one and are
/// settled, and every token that they did not need is back.
async fn loses_nothing(part: Reloadable) -> Result<()> {
    let models = Models::with(json!({}), |stack| stack.reloadable(part)).await?;
    models.tenants(&["acme"]).await?;
    let held = streams(&models).await?;
    let new = configuration(json!({ "default_max_output_tokens": 77 }));
    let new = json!({ "llm": new, "flush_ms": 200, "max_wait_ms": 5_000,
        "control_plane": { "timeout_ms": 3_000 } });
    models.fleet.stack.reload_gateway(0, &new).await?;
    let other = Answer::of(models.call("acme", CHAT, &chat(50), &json!({ "output": 5 }))).await?;
    ensure!(other.status == 200, "{other:?}");
    come_to_their_end(&models, held).await?;
    books::are_exact(&models, "acme", CAPACITY).await?;
    ensure!(models.fleet.stack.gateways[0].weir_stat("lost_workers").await? == 0);
    Ok(())
}

#[tokio::test]
async fn a_new_listener_leaves_streams_alone() -> Result<()> {
    loses_nothing(Reloadable::Listener).await
}

#[tokio::test]
async fn a_new_plugin_configuration_leaves_streams_alone() -> Result<()> {
    loses_nothing(Reloadable::Plugin).await
}

/// A stream that lasts longer than its lease keeps it: what it did not need comes back.
#[tokio::test]
async fn a_long_stream_keeps_its_reservation() -> Result<()> {
    let models =
        Models::with(json!({}), |stack| stack.variable("WEIR_LEASE_TTL_MS", "1000")).await?;
    models.tenants(&["acme"]).await?;
    let held = streams(&models).await?;
    let started = std::time::Instant::now();
    wait_for("several leases to pass", SOON, async || {
        Ok((started.elapsed().as_secs() >= 6).then_some(()))
    })
    .await?;
    come_to_their_end(&models, held).await?;
    books::are_exact(&models, "acme", CAPACITY).await.map(drop)
}
