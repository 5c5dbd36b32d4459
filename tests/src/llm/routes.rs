//! Which requests are calls of language models, and which module of the filter can meter them.

use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::json;

use super::{CHAT, MESSAGES, Models, books, chat, configuration, message, raw::Raw};
use crate::harness::{Answer, Fleet, SOON, wait_for};

/// Elsewhere a request costs what the configuration says, whatever is in its body, and passes as it
/// comes.
#[tokio::test]
async fn other_routes_cost_what_they_always_do() -> Result<()> {
    let routes = json!({ "routes": [{ "path": CHAT }, { "path_prefix": "/anthropic/" }] });
    let models = Models::with(routes, |stack| stack.plugin(json!({ "cost": 3 }))).await?;
    models.tenants(&["flat", "call"]).await?;
    let long = "x".repeat(600_000);
    let at = |method, path: &str| models.fleet.request(method, path).header("x-tenant-id", "flat");
    let flat = [
        at(Method::GET, CHAT),
        at(Method::POST, CHAT),
        at(Method::POST, MESSAGES).json(&message(10, false)),
        at(Method::POST, "/v1/chat/completions/other").body(long),
        at(Method::POST, "/anthropic").body("no JSON"),
        at(Method::POST, "/files").body("no JSON"),
    ];
    let flat_requests = flat.len() as u64;
    for request in flat {
        let answer = Answer::of(request).await?;
        ensure!(answer.header("x-weir-reason").is_empty(), "{answer:?}");
    }
    for path in [CHAT, "/v1/chat/completions?a=b", "/anthropic/v1/messages"] {
        let body = if path.contains("messages") { message(10, false) } else { chat(10) };
        let answer = Answer::of(models.call("call", path, &body, &json!({}))).await?;
        ensure!(answer.status == 200, "{answer:?}");
    }
    books::settled(&models.fleet, "call", 3).await?;
    wait_for("the flat requests in the ledger", SOON, async || {
        let ledger = models.fleet.ledger("flat").await?;
        ensure!(ledger == (3 * flat_requests, flat_requests), "{ledger:?}");
        Ok(Some(()))
    })
    .await?;
    let meters = "select distinct meter from usage_record where tenant_id = 'flat'";
    ensure!(models.fleet.stack.database.query(meters).await? == "default");
    Ok(())
}

/// The upstream gets the first of a body while the rest is still to come.
#[tokio::test]
async fn bodies_of_other_routes_are_not_held_back() -> Result<()> {
    let models = Models::start(json!({})).await?;
    models.tenants(&["acme"]).await?;
    let mut raw = Raw::connect(&models).await?;
    raw.begin("acme", "/upload", "transfer-encoding: chunked\r\n").await?;
    raw.chunk(b"the first").await?;
    wait_for("the first of the body to arrive", SOON, async || {
        let calls = models.upstream.calls();
        Ok(calls.first().is_some_and(|call| call.body == "the first").then_some(()))
    })
    .await?;
    raw.chunk(b"the rest").await?;
    raw.send(b"0\r\n\r\n").await?;
    let (status, text) = raw.answer().await?;
    ensure!(status == 200, "{text}");
    Ok(())
}

/// Who has no credential, is not known, or is suspended is refused as everywhere, before its body is
/// read or after.
#[tokio::test]
async fn strangers_reach_no_model() -> Result<()> {
    let models = Models::start(json!({})).await?;
    models.tenants(&["acme"]).await?;
    models.fleet.admin.post("/tenants/acme/suspend", &json!({})).await?.ok()?;
    let nobody = models.fleet.request(Method::POST, CHAT).json(&chat(10));
    for (call, status, reason) in [
        (nobody, 401, "missing_credential"),
        (models.call("stranger", CHAT, &chat(10), &json!({})), 401, "unknown_tenant"),
        (models.call("acme", CHAT, &chat(10), &json!({})), 403, "suspended"),
    ] {
        let answer = Answer::of(call).await?;
        ensure!(answer.status == status, "{answer:?}");
        ensure!(answer.header("x-weir-reason") == reason, "{answer:?}");
    }
    ensure!(models.upstream.calls().is_empty());
    Ok(())
}

/// In shadow mode nothing is refused: not what can't be read, and not what can't be paid.
#[tokio::test]
async fn shadow_mode_lets_all_calls_pass() -> Result<()> {
    let models = Models::with(json!({ "max_body_bytes": 2_048 }), |stack| {
        stack.plugin(json!({ "shadow": true }))
    })
    .await?;
    models.fleet.tenant("acme", &[crate::harness::monthly(200)], &[]).await?;
    let mut long = chat(100);
    long["messages"][0]["content"] = json!("long ".repeat(1_000));
    let mut statuses = Vec::new();
    for body in [chat(100), chat(100), long, json!({ "Model": 1 })] {
        let answer = Answer::of(models.call("acme", CHAT, &body, &json!({ "output": 80 }))).await?;
        statuses.push(answer.status);
    }
    ensure!(statuses == [200, 200, 200, 200], "{statuses:?}");
    let first = books::settled_at(&models.fleet, "acme", 1).await?;
    ensure!(first.output == 80, "{first:?}");
    Ok(())
}

/// The module that is not told of bodies refuses to meter calls, and says which one can.
#[tokio::test]
async fn the_lean_module_says_which_one_reads_bodies() -> Result<()> {
    let mut fleet = Fleet::with(|stack| stack.gateways(0)).await?;
    let llm = json!({ "llm": configuration(json!({})) });
    let Err(error) = fleet.stack.add_gateway(&llm).await else {
        anyhow::bail!("Envoy started with a module that reads no bodies");
    };
    let error = format!("{error:#}");
    for part in ["plugin configuration is wrong at llm", "weir_filter_llm.wasm"] {
        ensure!(error.contains(part), "{part} is missing: {error}");
    }
    Ok(())
}

/// What is wrong with `llm` is named before Envoy starts.
#[tokio::test]
async fn a_wrong_configuration_names_the_field() -> Result<()> {
    let upstream = super::upstream::LlmUpstream::start().await?;
    let mut fleet = Fleet::with(|stack| {
        stack.gateways(0).upstream_port(upstream.port()).models(configuration(json!({})))
    })
    .await?;
    for (fields, named) in [
        (json!({ "routes": [] }), "llm.routes"),
        (json!({ "routes": [{}] }), "llm.routes[0]"),
        (json!({ "routes": [{ "path": "/a", "path_prefix": "/a" }] }), "llm.routes[0]"),
        (json!({ "max_body_bytes": 0 }), "llm.max_body_bytes"),
        (json!({ "unreadable": "ignore" }), "llm.unreadable"),
        (json!({ "upstream_errors": "ask" }), "llm.upstream_errors"),
        (json!({ "estimate": { "tokens_per_message": -1 } }), "llm.estimate.tokens_per_message"),
        (json!({ "default_max_output_tokens": 1.5 }), "llm.default_max_output_tokens"),
        (json!({ "trust_header": true }), "llm.trust_header"),
    ] {
        let plugin = json!({ "llm": configuration(fields.clone()) });
        let Err(error) = fleet.stack.add_gateway(&plugin).await else {
            anyhow::bail!("Envoy started with {fields}");
        };
        let error = format!("{error:#}");
        ensure!(error.contains("plugin configuration is wrong at"), "{fields}: {error}");
        ensure!(error.contains(named), "{fields} must name {named}: {error}");
    }
    Ok(())
}
