//! Requests that come in pieces: the upstream sees nothing of a call before it is decided over, and then
//! all of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use xtask::stack::Builder;

use super::{CAPACITY, CHAT, Models, books, chat, raw::Raw};
use crate::harness::{SOON, wait_for};

const CHUNKED: &str = "content-type: application/json\r\ntransfer-encoding: chunked\r\n";

/// Envoy hands on what comes after a chunked body.
fn with_trailers(stack: Builder<'_>) -> Builder<'_> {
    stack.edit(
        "stat_prefix: ingress",
        "stat_prefix: ingress\n                http_protocol_options: { enable_trailers: true }",
    )
}

/// The body arrived as it was sent, once, and is settled.
async fn arrived_whole(models: &Models, body: &str) -> Result<()> {
    let calls = models.upstream.calls_of("acme");
    ensure!(calls.len() == 1 && calls[0].body == body.as_bytes(), "{calls:?}");
    books::are_exact(models, "acme", CAPACITY).await.map(drop)
}

/// Byte by byte, in chunks: the call waits for its last byte.
#[tokio::test]
async fn a_body_may_come_byte_by_byte() -> Result<()> {
    let models = Models::start(json!({})).await?;
    models.tenants(&["acme"]).await?;
    let body = chat(50).to_string();
    let mut raw = Raw::connect(&models).await?;
    raw.begin("acme", CHAT, CHUNKED).await?;
    for byte in body.as_bytes() {
        raw.chunk(&[*byte]).await?;
    }
    ensure!(raw.is_silent_for(Duration::from_millis(300)).await, "it was answered before its end");
    ensure!(models.upstream.calls().is_empty());
    raw.send(b"0\r\n\r\n").await?;
    let (status, text) = raw.answer().await?;
    ensure!(status == 200, "{text}");
    arrived_whole(&models, &body).await
}

/// Trailers end a body as its last chunk does.
#[tokio::test]
async fn a_body_may_end_with_trailers() -> Result<()> {
    let models = Models::with(json!({}), with_trailers).await?;
    models.tenants(&["acme"]).await?;
    let body = chat(50).to_string();
    let mut raw = Raw::connect(&models).await?;
    raw.begin("acme", CHAT, &format!("trailer: x-digest\r\n{CHUNKED}")).await?;
    let (first, second) = body.split_at(30);
    raw.chunk(first.as_bytes()).await?;
    raw.chunk(second.as_bytes()).await?;
    ensure!(raw.is_silent_for(Duration::from_millis(300)).await, "it was answered before its end");
    raw.send(b"0\r\nx-digest: 1\r\n\r\n").await?;
    let (status, text) = raw.answer().await?;
    ensure!(status == 200, "{text}");
    arrived_whole(&models, &body).await
}

/// Trailers without a body: a call that says nothing is refused.
#[tokio::test]
async fn trailers_alone_are_no_call() -> Result<()> {
    let models = Models::with(json!({}), with_trailers).await?;
    models.tenants(&["acme"]).await?;
    let mut raw = Raw::connect(&models).await?;
    raw.begin("acme", CHAT, CHUNKED).await?;
    raw.send(b"0\r\nx-digest: 1\r\n\r\n").await?;
    let (status, text) = raw.answer().await?;
    ensure!(status == 400 && text.contains("body_unreadable"), "{text}");
    ensure!(models.upstream.calls().is_empty());
    Ok(())
}

/// A caller that asks first whether to send its body is told to.
#[tokio::test]
async fn a_caller_that_expects_100_continue_gets_it() -> Result<()> {
    let models = Models::start(json!({})).await?;
    models.tenants(&["acme"]).await?;
    let body = chat(50).to_string();
    let mut raw = Raw::connect(&models).await?;
    let fields = format!(
        "content-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n",
        body.len()
    );
    raw.begin("acme", CHAT, &fields).await?;
    raw.reads("HTTP/1.1 100 Continue\r\n\r\n").await?;
    raw.send(body.as_bytes()).await?;
    let (status, text) = raw.answer().await?;
    ensure!(status == 200, "{text}");
    arrived_whole(&models, &body).await
}

/// A body that says no length and becomes too long is refused while it still comes.
#[tokio::test]
async fn a_body_without_a_length_is_refused_when_it_is_too_long() -> Result<()> {
    let models = Models::start(json!({ "max_body_bytes": 2_048 })).await?;
    models.tenants(&["acme"]).await?;
    let mut raw = Raw::connect(&models).await?;
    raw.begin("acme", CHAT, CHUNKED).await?;
    for _ in 0..3 {
        raw.chunk(&[b' '; 1_000]).await?;
    }
    let (status, text) = raw.answer().await?;
    ensure!(status == 413 && text.contains("body_too_large"), "{text}");
    ensure!(models.upstream.calls().is_empty());
    Ok(())
}

/// A caller that leaves in the middle of its body costs nothing, and is forgotten.
#[tokio::test]
async fn a_caller_that_leaves_in_its_body_costs_nothing() -> Result<()> {
    let models = Models::start(json!({})).await?;
    models.tenants(&["acme"]).await?;
    for _ in 0..20 {
        let mut raw = Raw::connect(&models).await?;
        raw.begin("acme", CHAT, CHUNKED).await?;
        raw.chunk(b"{\"model\":").await?;
    }
    let gateway = &models.fleet.stack.gateways[0];
    wait_for("the calls to be seen", SOON, async || {
        Ok((gateway.weir_stat("model_calls").await? == 20).then_some(()))
    })
    .await?;
    let answer = models.call("acme", CHAT, &chat(10), &json!({ "id": "last" })).send().await?;
    ensure!(answer.status() == 200, "{answer:?}");
    answer.bytes().await?;
    let calls = models.upstream.calls();
    ensure!(calls.len() == 1 && calls.first().context("none")?.id == "last", "{calls:?}");
    books::are_exact(&models, "acme", CAPACITY).await?;
    ensure!(gateway.weir_stat("admitted").await? == 1);
    Ok(())
}
