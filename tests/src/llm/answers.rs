//! How a call is settled by its answer: an error, one without usage, one that can't be read, a stream
//! that was asked for its usage.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    CAPACITY, CHAT, MESSAGES, Models, PROMPT,
    books::{self, Used},
    chat, chat_stream, message,
};
use crate::harness::{Answer, SOON, wait_for};

/// Of so many of the upstream's tokens, which have three bytes.
fn estimate(tokens: u64) -> u64 {
    (3 * tokens * 330).div_ceil(1_000)
}

/// Sends one call of each tenant, and compares what is settled.
async fn are_settled(models: &Models, cases: &[(&str, Value, Value, Used)]) -> Result<()> {
    for (tenant, body, script, expected) in cases {
        models.tenants(&[tenant]).await?;
        let path = if body["model"] == super::CLAUDE { MESSAGES } else { CHAT };
        let answer = Answer::of(models.call(tenant, path, body, script)).await?;
        let status = script["status"].as_u64().unwrap_or(200);
        ensure!(u64::from(answer.status) == status, "{tenant}: {answer:?}");
        let used = books::settled_at(&models.fleet, tenant, 1).await?;
        ensure!(used == *expected, "{tenant}: {used:?} instead of {expected:?}");
        books::is_debited(&models.fleet, tenant, CAPACITY, used.total()).await?;
    }
    Ok(())
}

fn error(status: u16) -> Value {
    json!({ "status": status })
}

/// Errors of the upstream cost no tokens, by default. They are requests, and stand in the ledger.
#[tokio::test]
async fn errors_of_the_upstream_are_free() -> Result<()> {
    let models = Models::start(json!({})).await?;
    let free = Used::default();
    let cases = [
        ("400", chat(100), error(400), free),
        ("401", chat(100), error(401), free),
        ("429", chat_stream(100, true), error(429), free),
        ("500", chat_stream(100, false), error(500), free),
        ("529", message(100, true), error(529), free),
        ("html", chat(100), json!({ "status": 502, "content_type": "text/html" }), free),
        ("gzip", message(100, false), json!({ "status": 500, "gzip": true }), free),
        // After 200, in the middle of the stream.
        ("late", chat_stream(100, true), json!({ "output": 20, "fail_after": 7 }), free),
        ("late-message", message(100, true), json!({ "output": 20, "fail_after": 7 }), free),
    ];
    are_settled(&models, &cases).await?;
    let gateway = &models.fleet.stack.gateways[0];
    wait_for("the stat of free calls", SOON, async || {
        let stat = gateway.weir_stat("settled_free").await?;
        ensure!(stat == cases.len() as u64, "{stat} calls are free");
        Ok(Some(()))
    })
    .await
}

/// With `charge` they cost what the prompt is estimated at, and what came of an answer.
#[tokio::test]
async fn errors_of_the_upstream_can_be_charged() -> Result<()> {
    let models = Models::start(json!({ "upstream_errors": "charge" })).await?;
    let prompt = Used::new(PROMPT, 0, 0);
    let cases = [
        ("400", chat(100), error(400), prompt),
        ("429", chat_stream(100, true), error(429), prompt),
        ("529", message(100, true), error(529), prompt),
        ("html", chat(100), json!({ "status": 502, "content_type": "text/html" }), prompt),
        // Six tokens of text, or four, came before it failed.
        (
            "late",
            chat_stream(100, true),
            json!({ "output": 20, "fail_after": 7 }),
            Used::new(PROMPT, 0, estimate(6)),
        ),
        (
            "late-message",
            message(100, true),
            json!({ "output": 20, "fail_after": 7 }),
            Used::new(14, 0, estimate(4)),
        ),
    ];
    are_settled(&models, &cases).await
}

/// An upstream that cannot be reached is an error too: Envoy's own.
#[tokio::test]
async fn an_upstream_that_is_away_costs_nothing() -> Result<()> {
    let models = Models::start(json!({})).await?;
    models.tenants(&["acme"]).await?;
    let Models { fleet, upstream } = models;
    let port = upstream.port();
    drop(upstream);
    wait_for("the upstream to be gone", SOON, async || {
        Ok(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err().then_some(()))
    })
    .await?;
    let call = fleet.request(reqwest::Method::POST, CHAT).header("x-tenant-id", "acme");
    let answer = Answer::of(call.json(&chat(100))).await?;
    ensure!(answer.status == 503 && answer.header("x-weir-reason").is_empty(), "{answer:?}");
    let used = books::settled_at(&fleet, "acme", 1).await?;
    ensure!(used == Used::default(), "{used:?}");
    books::is_debited(&fleet, "acme", CAPACITY, 0).await
}

/// An answer that says nothing of its usage is settled by an estimate of it; one that can't be read, at
/// what was reserved. The latter needs an upstream that compresses though it was not asked to.
#[tokio::test]
async fn answers_that_say_nothing_are_estimated() -> Result<()> {
    let models = Models::start(json!({})).await?;
    let silent = json!({ "output": 40, "silent": true });
    let zipped = json!({ "output": 40, "gzip": true });
    let text = json!({ "output": 40, "content_type": "text/plain" });
    let (guessed, reserved) = (Used::new(PROMPT, 0, estimate(40)), Used::new(PROMPT, 0, 100));
    let cases = [
        ("chat", chat(100), silent.clone(), guessed),
        ("stream", chat_stream(100, true), silent.clone(), guessed),
        // As OpenAI does unless it is asked.
        ("unasked", chat_stream(100, false), json!({ "output": 40 }), guessed),
        ("message", message(100, false), silent.clone(), guessed),
        ("events", message(100, true), silent, guessed),
        ("zipped", chat(100), zipped.clone(), reserved),
        ("zipped-stream", message(100, true), zipped, reserved),
        ("text", chat(100), text, reserved),
    ];
    are_settled(&models, &cases).await?;
    for call in models.upstream.calls() {
        let encoding = call.headers.get("accept-encoding");
        ensure!(encoding.is_none(), "the upstream was told {encoding:?}");
    }
    Ok(())
}

/// A caller that would take a compressed answer gets a plain one, which is read.
#[tokio::test]
async fn nobody_is_asked_for_a_compressed_answer() -> Result<()> {
    let models = Models::start(json!({})).await?;
    models.tenants(&["acme"]).await?;
    for path in [CHAT, "/other"] {
        let call = models.call("acme", path, &chat(10), &json!({}));
        let answer = Answer::of(call.header("accept-encoding", "gzip, br")).await?;
        ensure!(answer.status == 200, "{answer:?}");
    }
    let calls = models.upstream.calls();
    ensure!(!calls[0].headers.contains_key("accept-encoding"), "{calls:?}");
    ensure!(calls[1].headers.contains_key("accept-encoding"), "of other routes nothing changes");
    Ok(())
}

/// With `include_usage`, OpenAI's streams are asked for their usage, and settled by it. Calls that have
/// no such option are left alone, and so is all else of the body.
#[tokio::test]
async fn streams_can_be_asked_for_their_usage() -> Result<()> {
    let models = Models::start(json!({ "include_usage": true })).await?;
    models.tenants(&["acme"]).await?;
    let script = json!({ "output": 30, "cached": 4, "cuts": 5 });
    let mut off = chat_stream(100, true);
    off["stream_options"]["include_usage"] = json!(false);
    let completion =
        json!({ "model": "gpt-5", "prompt": "A weir", "max_tokens": 50, "stream": true });
    let response =
        json!({ "model": "gpt-5", "input": "A weir", "max_output_tokens": 50, "stream": true });
    let cases = [
        (CHAT, chat_stream(100, false), true),
        (CHAT, chat_stream(100, true), true),
        (CHAT, off, true),
        (CHAT, chat(100), false),
        ("/v1/completions", completion, true),
        ("/v1/responses", response, false),
        (MESSAGES, message(100, true), false),
    ];
    for (path, body, asks) in &cases {
        let answer = Answer::of(models.call("acme", path, body, &script)).await?;
        ensure!(answer.status == 200, "{path}: {answer:?}");
        let call = models.upstream.calls().pop().context("it did not arrive")?;
        ensure!(call.said.is_some(), "{path}: it was not asked: {call:?}");
        let mut arrived: Value = serde_json::from_slice(&call.body)?;
        ensure!((arrived["stream_options"]["include_usage"] == true) == *asks, "{arrived}");
        if *asks && body["stream_options"].is_null() {
            arrived.as_object_mut().context("an object")?.remove("stream_options");
        } else if *asks {
            arrived["stream_options"] = body["stream_options"].clone();
        }
        ensure!(arrived == *body, "{path}: {arrived} is not {body}");
    }
    books::are_exact(&models, "acme", CAPACITY).await.map(drop)
}

/// Numbers that cannot be true say nothing. Otherwise one answer could make a sum of usage that nobody can
/// store, with that of other tenants in it.
#[tokio::test]
async fn an_upstream_that_says_nonsense_harms_nobody() -> Result<()> {
    const MOST: u64 = (1 << 53) - 1;
    let models = Models::start(json!({})).await?;
    models.fleet.tenant("unlimited", &[], &[]).await?;
    models.tenants(&["other"]).await?;
    let mut huge = chat(MOST);
    huge["n"] = json!(1_000);
    let nonsense = |prompt: u64| json!({ "prompt": prompt, "output": 10 });
    let most = 1 << 32;
    let mut settled = Used::default();
    for (body, script, expected) in [
        (chat(100), nonsense(most), Used::new(most, 0, 10)),
        (chat(100), nonsense(most + 1), Used::new(PROMPT, 0, estimate(10))),
        (chat(100), nonsense(MOST), Used::new(PROMPT, 0, estimate(10))),
        (chat(100), nonsense(MOST + 1), Used::new(PROMPT, 0, estimate(10))),
        (chat_stream(100, true), nonsense(MOST), Used::new(PROMPT, 0, estimate(10))),
        (huge.clone(), json!({ "gzip": true }), Used::new(PROMPT, 0, most)),
        (huge, json!({ "gzip": true }), Used::new(PROMPT, 0, most)),
    ] {
        let answer = Answer::of(models.call("unlimited", CHAT, &body, &script)).await?;
        ensure!(answer.status == 200, "{answer:?}");
        settled = settled.plus(expected);
        let used = models.upstream.calls_of("unlimited").len() as u64;
        let used = books::settled_at(&models.fleet, "unlimited", used).await?;
        ensure!(used == settled, "{script}: {used:?} instead of {settled:?}");
    }
    let answer = Answer::of(models.call("other", CHAT, &chat(100), &json!({}))).await?;
    ensure!(answer.status == 200, "{answer:?}");
    books::are_exact(&models, "other", CAPACITY).await?;
    let quarantined = "select count(*) from usage_quarantine";
    ensure!(models.fleet.stack.database.query(quarantined).await? == "0", "a batch is put aside");
    Ok(())
}
