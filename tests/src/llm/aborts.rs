//! Calls that somebody gives up are settled at what had come.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    CAPACITY, CHAT, MESSAGES, Models, PROMPT,
    books::{self, Used},
    chat, chat_stream, message,
    upstream::Ending,
};
use crate::harness::{SOON, wait_for};

/// The caller of a stream leaves in the middle: what it had got is settled, to the token. The prompt is
/// what the upstream said if it had said so, or else an estimate.
#[tokio::test]
async fn a_caller_that_leaves_pays_for_what_came() -> Result<()> {
    let models = Models::start(json!({})).await?;
    let tenants = ["chat", "asked", "message", "cached"];
    models.tenants(&tenants).await?;
    let long = json!({ "output": 80, "hold_after": 23 });
    let cached = json!({ "output": 80, "hold_after": 23, "cached": 5, "written": 2 });
    // 23 events: one or three before the text, each of whose tokens has three bytes.
    let (of_chat, of_messages) = (estimate(22), estimate(20));
    for (tenant, path, body, script, expected) in [
        ("chat", CHAT, chat_stream(100, false), &long, Used::new(PROMPT, 0, of_chat)),
        ("asked", CHAT, chat_stream(100, true), &long, Used::new(PROMPT, 0, of_chat)),
        ("message", MESSAGES, message(100, true), &long, Used::new(14, 0, of_messages)),
        ("cached", MESSAGES, message(100, true), &cached, Used::new(9, 5, of_messages)),
    ] {
        let mut answer = models.call(tenant, path, &body, script).send().await?;
        let sent = || models.upstream.calls_of(tenant).first().map(|call| call.text_bytes);
        let mut seen = Vec::new();
        let texts = if path == CHAT { 22 } else { 20 };
        let event = if path == CHAT { "\"content\":\"" } else { "\"text_delta\"" };
        // One of chat's is in the first event, which has no text.
        let expected_events = if path == CHAT { texts + 1 } else { texts };
        while String::from_utf8_lossy(&seen).matches(event).count() < expected_events {
            seen.extend_from_slice(&answer.chunk().await?.context("it ended")?);
        }
        ensure!(sent() == Some(3 * texts as u64), "{tenant}: {:?} bytes were sent", sent());
        drop(answer);
        let used = books::settled_at(&models.fleet, tenant, 1).await?;
        ensure!(used == expected, "{tenant}: {used:?} instead of {expected:?}");
        books::is_debited(&models.fleet, tenant, CAPACITY, used.total()).await?;
    }
    estimated(&models, tenants.len() as u64).await
}

/// Of so many of the upstream's tokens, as README.md says: 330 tokens in 1,000 bytes.
fn estimate(tokens: u64) -> u64 {
    (3 * tokens * 330).div_ceil(1_000)
}

async fn estimated(models: &Models, calls: u64) -> Result<()> {
    let gateway = &models.fleet.stack.gateways[0];
    wait_for("the stat of estimates", SOON, async || {
        let stat = gateway.weir_stat("settled_estimated").await?;
        ensure!(stat == calls, "{stat} calls are settled by an estimate");
        Ok(Some(()))
    })
    .await
}

/// A caller that leaves before there is any answer pays for its prompt: the upstream may have read it.
#[tokio::test]
async fn a_caller_that_does_not_wait_pays_for_its_prompt() -> Result<()> {
    let models = Models::start(json!({})).await?;
    models.tenants(&["whole", "stream"]).await?;
    let late = json!({ "output": 10, "wait_ms": 3_000 });
    for (tenant, body) in [("whole", chat(100)), ("stream", chat_stream(100, true))] {
        let call = models.call(tenant, CHAT, &body, &late);
        let gone = tokio::spawn(call.send());
        wait_for("the call to arrive", SOON, async || {
            Ok((!models.upstream.calls_of(tenant).is_empty()).then_some(()))
        })
        .await?;
        gone.abort();
        let used = books::settled_at(&models.fleet, tenant, 1).await?;
        ensure!(used == Used::new(PROMPT, 0, 0), "{tenant}: {used:?}");
        books::is_debited(&models.fleet, tenant, CAPACITY, PROMPT).await?;
    }
    Ok(())
}

/// The upstream cuts the connection in the middle of an answer: the prompt is paid at least, what was
/// sent at most.
#[tokio::test]
async fn an_answer_that_breaks_off_costs_what_came() -> Result<()> {
    let models = Models::start(json!({})).await?;
    let cases: [(&str, &str, Value); 4] = [
        ("chat", CHAT, chat_stream(100, true)),
        ("message", MESSAGES, message(100, true)),
        ("whole", CHAT, chat(100)),
        ("whole-message", MESSAGES, message(100, false)),
    ];
    models.tenants(&cases.each_ref().map(|(tenant, ..)| *tenant)).await?;
    for (tenant, path, body) in &cases {
        let after = if body["stream"] == true { 13 } else { 0 };
        let script = json!({ "output": 50, "break_after": after, "pause_ms": 5 });
        let answer = models.call(tenant, path, body, &script).send().await?;
        ensure!(answer.text().await.is_err(), "{tenant}: the answer is whole");
        let used = books::settled_at(&models.fleet, tenant, 1).await?;
        let calls = models.upstream.calls_of(tenant);
        let call = calls.first().context("it did not arrive")?;
        ensure!(call.ending == Ending::Broken, "{call:?}");
        let (least, most) = books::settlement(call, 0)?;
        let fits = least.is_within(used) && used.is_within(most);
        ensure!(fits, "{tenant}: {used:?} is not from {least:?} to {most:?}");
        books::is_debited(&models.fleet, tenant, CAPACITY, used.total()).await?;
    }
    Ok(())
}

/// A stream whose caller reads nothing more is ended by Envoy's idle time-out, and settled then.
#[tokio::test]
async fn a_stream_that_stands_still_is_settled_when_envoy_ends_it() -> Result<()> {
    let models = Models::with(json!({}), |stack| {
        stack.edit("stream_idle_timeout: 60s", "stream_idle_timeout: 1s")
    })
    .await?;
    models.tenants(&["acme"]).await?;
    let mut answer =
        models.hold("acme", &chat_stream(100, false), &json!({ "output": 50 })).await?;
    let ended = async {
        while answer.chunk().await?.is_some() {}
        Ok::<_, reqwest::Error>(())
    };
    ensure!(tokio::time::timeout(Duration::from_secs(15), ended).await?.is_err(), "it is whole");
    let used = books::settled_at(&models.fleet, "acme", 1).await?;
    ensure!(used == Used::new(PROMPT, 0, estimate(2)), "{used:?}");
    books::is_debited(&models.fleet, "acme", CAPACITY, used.total()).await
}
