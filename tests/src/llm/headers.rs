//! What callers say of a call in headers is believed where the configuration says so, and nowhere else.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    CAPACITY, CHAT, Models, PROMPT,
    books::{self, DEFAULT_OUTPUT, Used},
    chat,
};
use crate::harness::Answer;

const SAID: [(&str, &str); 3] = [
    ("x-weir-model", "said-model"),
    ("x-weir-prompt-tokens", "7"),
    ("x-weir-max-output-tokens", "11"),
];

/// A call whose answer can't be read, so that what was reserved is what is settled.
async fn opaque(
    models: &Models,
    tenant: &str,
    body: &Value,
    said: &[(&str, &str)],
) -> Result<Used> {
    let mut call = models.call(tenant, CHAT, body, &json!({ "gzip": true }));
    for (name, value) in said {
        call = call.header(*name, *value);
    }
    let answer = Answer::of(call).await?;
    ensure!(answer.status == 200, "{answer:?}");
    books::settled_at(&models.fleet, tenant, 1).await
}

/// Callers that are not trusted: what they say does not count, and does not reach the upstream.
#[tokio::test]
async fn what_strangers_say_is_removed() -> Result<()> {
    let models = Models::start(json!({})).await?;
    models.tenants(&["acme"]).await?;
    let used = opaque(&models, "acme", &chat(100), &SAID).await?;
    ensure!(used == Used::new(PROMPT, 0, 100), "{used:?}");
    let calls = models.upstream.calls_of("acme");
    let headers = &calls.first().context("it did not arrive")?.headers;
    let left: Vec<_> = headers.keys().filter(|name| name.starts_with("x-weir-")).collect();
    ensure!(left.is_empty(), "{left:?} reached the upstream");
    let ledger = books::ledger(&models.fleet, "acme").await?;
    ensure!(ledger.contains_key("gpt-5"), "{ledger:?}");
    books::is_debited(&models.fleet, "acme", CAPACITY, used.total()).await
}

/// Callers that are trusted: each word counts by itself, and nonsense says nothing.
#[tokio::test]
async fn what_the_trusted_say_counts() -> Result<()> {
    let models = Models::start(json!({ "trust_headers": true, "max_body_bytes": 2_048 })).await?;
    let huge = "9".repeat(40);
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, Used);
    let cases: [Case<'_>; 7] = [
        ("all", &SAID, "said-model", Used::new(7, 0, 11)),
        ("model", &SAID[..1], "said-model", Used::new(PROMPT, 0, 100)),
        ("prompt", &SAID[1..2], "gpt-5", Used::new(7, 0, 100)),
        ("output", &SAID[2..], "gpt-5", Used::new(PROMPT, 0, 11)),
        ("words", &[("x-weir-prompt-tokens", "many")], "gpt-5", Used::new(PROMPT, 0, 100)),
        ("huge", &[("x-weir-prompt-tokens", &huge)], "gpt-5", Used::new(PROMPT, 0, 100)),
        ("empty", &[("x-weir-model", "")], "gpt-5", Used::new(PROMPT, 0, 100)),
    ];
    models.tenants(&cases.map(|(tenant, ..)| tenant)).await?;
    for (tenant, said, model, expected) in cases {
        let used = opaque(&models, tenant, &chat(100), said).await?;
        ensure!(used == expected, "{tenant}: {used:?} instead of {expected:?}");
        let ledger = books::ledger(&models.fleet, tenant).await?;
        ensure!(ledger.contains_key(model), "{tenant}: {ledger:?}");
        books::is_debited(&models.fleet, tenant, CAPACITY, used.total()).await?;
    }
    Ok(())
}

/// Who says all of it needs no body that is read: one that is too long passes.
#[tokio::test]
async fn who_says_all_needs_no_readable_body() -> Result<()> {
    let models = Models::start(json!({ "trust_headers": true, "max_body_bytes": 2_048 })).await?;
    models.tenants(&["large", "part"]).await?;
    let mut body = chat(100);
    body["messages"][0]["content"] = json!("long ".repeat(1_000));
    let used = opaque(&models, "large", &body, &SAID).await?;
    ensure!(used == Used::new(7, 0, 11), "{used:?}");
    // Who says a part of it still does.
    let mut call = models.call("part", CHAT, &body, &json!({}));
    for (name, value) in &SAID[..2] {
        call = call.header(*name, *value);
    }
    let answer = Answer::of(call).await?;
    ensure!(answer.status == 413, "{answer:?}");
    Ok(())
}

/// Without a bound the configuration's own is reserved; each choice and each prompt has it.
#[tokio::test]
async fn every_answer_that_may_come_is_reserved() -> Result<()> {
    let models = Models::start(json!({})).await?;
    models.tenants(&["unbound", "choices", "zero"]).await?;
    let mut unbound = chat(1);
    unbound.as_object_mut().context("an object")?.remove("max_completion_tokens");
    let mut choices = chat(50);
    choices["n"] = json!(3);
    for (tenant, body, output) in
        [("unbound", unbound, DEFAULT_OUTPUT), ("choices", choices, 150), ("zero", chat(0), 0)]
    {
        let used = opaque(&models, tenant, &body, &[]).await?;
        ensure!(used == Used::new(PROMPT, 0, output), "{tenant}: {used:?}");
        books::is_debited(&models.fleet, tenant, CAPACITY, used.total()).await?;
    }
    Ok(())
}
