//! Calls of language models under a policy.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use xtask::stack::Network;

use super::{books_are, detail, is_refused, is_shown, marked};
use crate::{
    harness::{Answer, Fleet, SOON, monthly, wait_for},
    leases::bucket,
    llm::{CHAT, GPT, MESSAGES, Models, PROMPT, chat, message},
};

/// What [`chat`] with 100 tokens of output reserves.
const RESERVED: u64 = PROMPT + 100;

/// Waits until both workers deny `/which` with this mark.
async fn rate_by(models: &Models, mark: &str, rules: &str) -> Result<u64> {
    models.fleet.rate_by_marked(mark, rules).await
}

/// By model and by what it asks for: 403, and nothing reaches the model or is taken. What is allowed is
/// settled by what it used, under the version that rated it.
#[tokio::test]
async fn calls_are_denied_by_what_their_body_says() -> Result<()> {
    let models = Models::start(json!({})).await?;
    models.tenants(&["acme"]).await?;
    let rules = format!(
        "allow := false if input.model == \"{GPT}\"\n\nallow := false if input.max_output_tokens > 500\n\n\
         allow := false if input.prompt_tokens > 2000\n\n\
         reason := \"not this one\" if input.model == \"{GPT}\"\n\ncost := 3"
    );
    let version = rate_by(&models, "by-model", &rules).await?;
    let long = {
        let mut body = message(10, false);
        body["messages"][0]["content"] = json!("weir ".repeat(2_000));
        body
    };
    for _ in 0..4 {
        let denied = Answer::of(models.call("acme", CHAT, &chat(100), &json!({}))).await?;
        is_refused(&denied, 403, "policy_denied")?;
        ensure!(detail(&denied) == "not this one", "{denied:?}");
        for body in [&message(501, false), &long] {
            let denied = Answer::of(models.call("acme", MESSAGES, body, &json!({}))).await?;
            is_refused(&denied, 403, "policy_denied")?;
        }
    }
    ensure!(models.upstream.calls_of("acme").is_empty(), "a call reached the model");
    let script = json!({ "output": 40, "cached": 5 });
    for stream in [false, true, false] {
        let answer = models.call("acme", MESSAGES, &message(100, stream), &script).send().await?;
        ensure!(answer.status() == 200);
        answer.text().await?;
    }
    let said: Vec<_> =
        models.upstream.calls_of("acme").iter().filter_map(|call| call.said).collect();
    ensure!(said.len() == 3, "{said:?}");
    let sum =
        |of: fn(&weir_domain::llm::usage::TokenUsage) -> u64| said.iter().map(of).sum::<u64>();
    let rows = [
        ("input", version, sum(|said| said.input.get()), 3),
        ("output", version, sum(|said| said.output.get()), 0),
        ("cached", version, sum(|said| said.cached.get()), 0),
    ];
    are_settled(&models.fleet, "acme", &rows).await
}

/// As [`books_are`], with rows of no requests.
async fn are_settled(fleet: &Fleet, tenant: &str, rows: &[(&str, u64, u64, u64)]) -> Result<()> {
    wait_for(&format!("the ledger of {tenant}"), SOON, async || {
        let books = super::books(fleet, tenant).await?;
        let rows = rows.iter().filter(|(_, _, tokens, requests)| tokens + requests > 0);
        let expected: super::Books = rows
            .map(|(meter, version, tokens, requests)| {
                (((*meter).to_owned(), *version), (*tokens, *requests))
            })
            .collect();
        ensure!(books == expected, "{books:?}\nexpected {expected:?}");
        Ok(Some(()))
    })
    .await
}

/// A cost above what a call may take raises what is reserved: one above the capacity is refused for good,
/// one above what is left is refused, and what was not used is free again.
#[tokio::test]
async fn a_cost_raises_what_is_reserved() -> Result<()> {
    let models = Models::start(json!({})).await?;
    let fleet = &models.fleet;
    fleet.tenant("acme", &[monthly(1_000)], &[]).await?;
    let rules = "prices := {\"never\": 1001, \"dear\": 1000, \"cheap\": 1}\n\n\
                 cost := prices[input.headers[\"x-price\"]]";
    let version = rate_by(&models, "prices", rules).await?;
    let call = async |price: &str| {
        let call = models.call("acme", CHAT, &chat(100), &json!({ "output": 10 }));
        Answer::of(call.header("x-price", price)).await
    };
    is_refused(&call("never").await?, 429, "cost_exceeds_capacity")?;
    ensure!(models.upstream.calls_of("acme").is_empty(), "a call reached the model");
    ensure!(call("dear").await?.status == 200, "all that there is");
    let used = 14 + 10;
    wait_for("what was not used to be back", SOON, async || {
        let bucket = bucket(fleet, "acme", "monthly").await?;
        ensure!(bucket["remaining"] == 1_000 - used, "{bucket}");
        Ok(Some(()))
    })
    .await?;
    is_refused(&call("dear").await?, 429, "limit_exceeded")?;
    ensure!(call("cheap").await?.status == 200, "at least {RESERVED} are reserved");
    is_refused(&call("unknown").await?, 503, "policy_failed")?;
    ensure!(models.upstream.calls_of("acme").len() == 2);
    let rows = [("input", version, 28, 2), ("output", version, 20, 0)];
    are_settled(fleet, "acme", &rows).await
}

/// A cost of less than a call may take reserves no less.
#[tokio::test]
async fn a_cost_does_not_lower_what_is_reserved() -> Result<()> {
    let models = Models::start(json!({})).await?;
    models.fleet.tenant("acme", &[monthly(RESERVED - 1)], &[]).await?;
    rate_by(&models, "free", "cost := 0").await?;
    let answer = Answer::of(models.call("acme", CHAT, &chat(100), &json!({}))).await?;
    is_refused(&answer, 429, "cost_exceeds_capacity")?;
    ensure!(models.upstream.calls_of("acme").is_empty());
    Ok(())
}

/// Calls that come before the gateway has heard of its policy wait with their bodies, are decided once
/// each and rated by the policy, as what their bodies say.
#[tokio::test]
async fn calls_wait_for_the_policy() -> Result<()> {
    let models = Models::with(json!({}), |stack| stack.links()).await?;
    models.tenants(&["acme"]).await?;
    let fleet = &models.fleet;
    let rules = format!("allow := false if input.model == \"{GPT}\"\n\ncost := 1");
    let version = fleet.rate_by(&marked("by-model", &rules)).await?;
    let gateway = &fleet.stack.gateways[0];
    gateway.kill();
    let path = "/edge/v1/config";
    fleet.stack.links[0].set(Network::DropAnswers { path, one_in: 1 });
    gateway.restart().await?;
    let ask = |path: &str, body| {
        let call = models.call("acme", path, &body, &json!({ "output": 7 }));
        tokio::spawn(Answer::of(call))
    };
    let allowed: Vec<_> = (0..6).map(|n| ask(MESSAGES, message(100 + n, false))).collect();
    let denied: Vec<_> = (0..6).map(|n| ask(CHAT, chat(100 + n))).collect();
    wait_for("all of them to wait", SOON, async || {
        let waited = gateway.weir_stat("waited").await?;
        ensure!(waited <= 12, "{waited} waited");
        Ok((waited == 12).then_some(()))
    })
    .await?;
    ensure!(models.upstream.calls_of("acme").is_empty(), "a call passed unrated");
    fleet.stack.links[0].set(Network::Up);
    for answer in allowed {
        let answer = answer.await??;
        ensure!(answer.status == 200, "{answer:?}");
    }
    for answer in denied {
        is_refused(&answer.await??, 403, "policy_denied")?;
    }
    let said = models.upstream.calls_of("acme");
    ensure!(said.len() == 6, "{said:?}");
    let input: Option<u64> = said.iter().map(|call| call.said.map(|said| said.input.get())).sum();
    let rows = [("input", version, input.context("no usage")?, 6), ("output", version, 42, 0)];
    are_settled(fleet, "acme", &rows).await?;
    let calls = gateway.weir_stat("model_calls").await?;
    ensure!(calls == 12, "{calls} calls");
    Ok(())
}

/// What is no call of a model is rated beside them, on the meter that the policy names.
#[tokio::test]
async fn other_requests_are_rated_beside_calls() -> Result<()> {
    let models = Models::start(json!({})).await?;
    models.tenants(&["acme"]).await?;
    let rules = "cost := 4\n\ndefault meter := \"requests\"\n\nmeter := \"llm\" if input.model";
    let version = rate_by(&models, "meters", rules).await?;
    is_shown(&models.fleet, version).await?;
    for _ in 0..3 {
        ensure!(models.fleet.ask(0, "acme", "/v1/models").await?.status == 200);
    }
    books_are(&models.fleet, "acme", &[("requests", version, 12, 3)]).await?;
    let answer = Answer::of(models.call("acme", CHAT, &chat(9), &json!({ "output": 9 }))).await?;
    ensure!(answer.status == 200);
    let rows = [("requests", version, 12, 3), ("input", version, 14, 1), ("output", version, 9, 0)];
    are_settled(&models.fleet, "acme", &rows).await
}
