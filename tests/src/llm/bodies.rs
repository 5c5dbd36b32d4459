//! Bodies that are no calls, or hostile: they are refused with what is wrong, or pass at a price that
//! follows from their length. None costs anything while it is refused, and none does any harm.

use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::json;
use xtask::stack::Builder;

use super::{
    CAPACITY, CHAT, Models, PROMPT,
    books::{self, DEFAULT_OUTPUT, Used},
    chat,
    upstream::ask::estimated,
};
use crate::harness::{Answer, SOON, wait_for};

const JSON: &str = "application/json";
/// The largest body that is read, in these tests.
const MOST: usize = 4_096;

/// A body, how it is sent, and a part of what its sender is told.
struct Case {
    name: &'static str,
    body: Vec<u8>,
    content_type: &'static str,
    told: &'static str,
}

fn case(name: &'static str, body: impl Into<Vec<u8>>, told: &'static str) -> Case {
    Case { name, body: body.into(), content_type: JSON, told }
}

/// What is not understood, though it is short enough.
fn unreadable() -> Vec<Case> {
    let with = |from: &str, to: &str| chat(10).to_string().replace(from, to);
    let nested = format!(r#"{{"messages":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let twice = r#"{"model":"gpt-5","max_tokens":1,"messages":[],"max_tokens":1000000}"#;
    let escaped = r#"{"model":"gpt-5","max_tokens":1,"messages":[],"max_t\u006fkens":1000000}"#;
    vec![
        case("no JSON", "model=gpt-5", "not JSON"),
        case("HTML", "<html></html>", "not JSON"),
        case("cut off", &chat(10).to_string().as_bytes()[..40], "ends before its JSON does"),
        case("more after it", chat(10).to_string() + "{}", "unexpected byte"),
        case("a list", "[]", "not a JSON object"),
        case("null", "null", "not a JSON object"),
        case("a field twice", twice, "max_tokens is there twice"),
        case("twice, once in escapes", escaped, "max_tokens is there twice"),
        case("other letter case", with("model", "Model"), "other letter case"),
        case("a bound that is a text", with(":10", r#":"10""#), "must be a whole number"),
        case("a bound below zero", with(":10", ":-10"), "must be a whole number"),
        case("a bound in parts", with(":10", ":10.5"), "must be a whole number"),
        case("a bound that is huge", with(":10", ":1e300"), "must be a whole number"),
        case("a long model", with("gpt-5", &"m".repeat(257)), "more than 256 bytes"),
        case("not UTF-8", b"{\"model\":\"\xff\"}".to_vec(), "not UTF-8"),
        case("deep", nested, "nested deeper"),
        case("deep and open", "[".repeat(4_000), "nested deeper"),
        case("objects, deep and open", "{\"a\":".repeat(800), "nested deeper"),
        case("zeros", vec![0; 1_000], "not JSON"),
        Case { content_type: "text/plain", ..case("text", chat(10).to_string(), "content-type") },
        Case { content_type: "", ..case("no type", chat(10).to_string(), "content-type") },
    ]
}

async fn send(models: &Models, case: &Case) -> Result<Answer> {
    let request = models.fleet.request(Method::POST, CHAT).header("x-tenant-id", "acme");
    let request = request.body(case.body.clone());
    Answer::of(match case.content_type {
        "" => request,
        content_type => request.header("content-type", content_type),
    })
    .await
}

/// Each is refused with what is wrong with it, reaches no upstream, and costs nothing.
#[tokio::test]
async fn a_body_that_is_not_understood_is_refused() -> Result<()> {
    let models = Models::start(json!({ "max_body_bytes": MOST })).await?;
    models.tenants(&["acme"]).await?;
    let cases = unreadable();
    for case in &cases {
        let answer = send(&models, case).await?;
        ensure!(answer.status == 400, "{}: {answer:?}", case.name);
        ensure!(answer.header("x-weir-reason") == "body_unreadable", "{}: {answer:?}", case.name);
        let detail = answer.json()?["detail"].to_string();
        ensure!(detail.contains(case.told), "{}: {detail}", case.name);
    }
    refuses_nothing_else(&models, "body_unreadable", cases.len()).await
}

/// Longer than is read: refused by its length if it says so, and else when it has become too long.
#[tokio::test]
async fn a_body_that_is_too_long_is_refused() -> Result<()> {
    let models = Models::start(json!({ "max_body_bytes": MOST })).await?;
    models.tenants(&["acme"]).await?;
    for length in [MOST + 1, 70_000, 3_000_000] {
        let long = case("long", padded(length), "");
        let answer = send(&models, &long).await?;
        ensure!(answer.status == 413, "{length}: {answer:?}");
        ensure!(answer.header("x-weir-reason") == "body_too_large", "{length}: {answer:?}");
    }
    refuses_nothing_else(&models, "body_too_large", 3).await?;
    let longest = send(&models, &case("the longest", padded(MOST), "")).await?;
    ensure!(longest.status == 200, "{longest:?}");
    Ok(())
}

/// A call of exactly so many bytes.
fn padded(length: usize) -> String {
    let body = chat(10).to_string();
    let spaces = " ".repeat(length - body.len());
    body.replacen('{', &format!("{{{spaces}"), 1)
}

/// Nothing was counted, nothing has arrived, and a proper call passes.
async fn refuses_nothing_else(models: &Models, reason: &str, refused: usize) -> Result<()> {
    ensure!(models.upstream.calls().is_empty(), "{:?}", models.upstream.calls());
    let proper = Answer::of(models.call("acme", CHAT, &chat(10), &json!({}))).await?;
    ensure!(proper.status == 200, "{proper:?}");
    let gateway = &models.fleet.stack.gateways[0];
    let stat = format!("refused.{reason}");
    wait_for("the stats", SOON, async || {
        let stats = (gateway.weir_stat(&stat).await?, gateway.weir_stat("admitted").await?);
        ensure!(stats == (refused as u64, 1), "{stats:?} are refused and admitted");
        Ok(Some(()))
    })
    .await?;
    books::are_exact(models, "acme", CAPACITY).await.map(drop)
}

/// With `pass` they pass. What is reserved follows from their length, their model is not known, and they
/// are settled by their answer as all calls are.
#[tokio::test]
async fn an_unreadable_body_can_pass_at_the_price_of_its_length() -> Result<()> {
    let pass = json!({ "max_body_bytes": MOST, "unreadable": "pass" });
    // While a call waits for a lease, what has come of its body waits in Envoy's buffer.
    let models = Models::with(pass, buffering_8_mib).await?;
    models.tenants(&["acme", "large", "huge"]).await?;
    let mut settled = Used::default();
    let mut passed = 0;
    for case in unreadable().iter().filter(|case| {
        serde_json::from_slice::<serde_json::Value>(&case.body).is_ok_and(|body| body.is_object())
    }) {
        let answer = send(&models, case).await?;
        ensure!(answer.status == 200, "{}: {answer:?}", case.name);
        passed += 1;
    }
    for call in models.upstream.calls_of("acme") {
        settled = settled.plus(call.said.map(Used::from).unwrap_or_default());
    }
    let ledger = books::settled(&models.fleet, "acme", passed).await?;
    ensure!(ledger.keys().all(String::is_empty), "{ledger:?}");
    ensure!(ledger.values().all(|sum| sum.used == settled), "{ledger:?} is not {settled:?}");
    books::is_debited(&models.fleet, "acme", CAPACITY, settled.total()).await?;

    // It says how long it is before it has come, and may be longer than what Envoy would hold back.
    for (tenant, length) in [("large", MOST + 1), ("huge", 3_000_000)] {
        let script = json!({ "gzip": true });
        let call = models.call(tenant, CHAT, &chat(10), &script).body(padded(length));
        let answer = Answer::of(call).await?;
        ensure!(answer.status == 200, "{answer:?}");
        let arrived = models.upstream.calls_of(tenant)[0].body.len();
        ensure!(arrived == length, "{arrived} of {length} arrived");
        let used = books::settled_at(&models.fleet, tenant, 1).await?;
        let by_length = Used::new(estimated(length as u64), 0, DEFAULT_OUTPUT);
        ensure!(used == by_length && used.input > PROMPT, "{used:?} instead of {by_length:?}");
        books::is_debited(&models.fleet, tenant, CAPACITY, used.total()).await?;
    }
    Ok(())
}

/// A body longer than what Envoy buffers for a connection (1 MiB) passes too, if `max_body_bytes` is
/// above it and the connection may buffer it.
#[tokio::test]
async fn large_bodies_are_read_where_they_may_be() -> Result<()> {
    let models = Models::with(json!({ "max_body_bytes": 8 << 20 }), buffering_8_mib).await?;
    models.tenants(&["acme"]).await?;
    for length in [300_000, 3_000_000] {
        let answer = send(&models, &case("large", padded(length), "")).await?;
        ensure!(answer.status == 200, "{length}: {answer:?}");
    }
    ensure!(models.upstream.calls()[1].body.len() == 3_000_000, "it arrived in part");
    books::are_exact(&models, "acme", CAPACITY).await.map(drop)
}

fn buffering_8_mib(stack: Builder<'_>) -> Builder<'_> {
    let from = "    - name: ingress\n";
    stack.edit(from, "    - name: ingress\n      per_connection_buffer_limit_bytes: 8388608\n")
}
