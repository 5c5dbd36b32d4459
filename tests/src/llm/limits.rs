//! What is reserved cannot be spent twice, what is not needed comes back at once, and what was taken
//! beyond is owed.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::task::JoinSet;

use super::{
    CHAT, Models, PROMPT,
    books::{self, Used},
    chat, chat_stream, clients,
};
use crate::{
    harness::{Answer, SOON, continuous, monthly, wait_for},
    leases::bucket,
};

/// What `chat(100)` reserves.
const RESERVED: u64 = PROMPT + 100;

/// Five calls reserve all that there is, while they are under way. The next one is told when to come
/// back; and when the five have taken less, there is room again, in the same period.
#[tokio::test]
async fn a_reservation_is_not_there_for_others_until_it_is_settled() -> Result<()> {
    let models = Models::start(json!({})).await?;
    let capacity = 5 * RESERVED;
    models.fleet.tenant("acme", &[monthly(capacity)], &[]).await?;
    let body = chat_stream(100, true);
    let mut held = Vec::new();
    for _ in 0..5 {
        // What is left may lie in two places for a moment, each of which has too little.
        let next = wait_for("the next call to pass", SOON, async || {
            Ok(models.hold("acme", &body, &json!({ "output": 20 })).await.ok())
        });
        held.push(next.await?);
    }
    for _ in 0..4 {
        let answer = Answer::of(models.call("acme", CHAT, &body, &json!({}))).await?;
        ensure!(answer.status == 429, "a sixth one passes: {answer:?}");
        ensure!(answer.header("x-weir-reason") == "limit_exceeded", "{answer:?}");
        // Not at the end of the month: what is reserved may come back at any moment.
        ensure!((1..=2).contains(&answer.header("retry-after").parse::<u64>()?), "{answer:?}");
    }
    models.upstream.release();
    for answer in held {
        ensure!(answer.text().await?.ends_with("data: [DONE]\n\n"));
    }
    let script = json!({ "output": 20 });
    let last = wait_for("room for one more", SOON, async || {
        let answer = Answer::of(models.call("acme", CHAT, &body, &script)).await?;
        Ok((answer.status == 200).then_some(answer))
    })
    .await?;
    ensure!(last.body.contains("\"completion_tokens\":20"), "{last:?}");
    books::are_exact(&models, "acme", capacity).await.map(drop)
}

/// However many ask at once, of whichever worker: no more pass than can be paid whatever they take.
#[tokio::test]
async fn calls_at_once_never_reserve_more_than_there_is() -> Result<()> {
    let models = Models::with(json!({}), |stack| stack.gateways(2)).await?;
    let capacity = 6 * RESERVED + 50;
    models.fleet.tenant("acme", &[monthly(capacity)], &[]).await?;
    let mut callers = JoinSet::new();
    for caller in 0..24 {
        let url = models.fleet.stack.gateways[caller % 2].url();
        let script = json!({ "output": 100, "hold_after": 2 }).to_string();
        // Connections of its own, so that it gets to any worker.
        let call =
            reqwest::Client::new().post(format!("{url}{CHAT}")).header("x-tenant-id", "acme");
        let call = call.header("x-llm-script", script).json(&chat_stream(100, true));
        callers.spawn(async move {
            let answer = call.send().await?;
            let status = answer.status().as_u16();
            Ok::<_, reqwest::Error>((status, answer.text().await?))
        });
    }
    let (mut statuses, mut refused) = (Vec::new(), 0);
    while refused < 24 - 6 {
        let (status, text) = callers.join_next().await.context("more than six pass")???;
        ensure!(status == 429, "{status} {text}");
        refused += 1;
    }
    models.upstream.release();
    while let Some(answer) = callers.join_next().await {
        statuses.push(answer??.0);
    }
    let admitted = statuses.iter().filter(|status| **status == 200).count();
    ensure!(models.upstream.calls().len() == admitted, "{statuses:?}");
    ensure!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    let used = books::total(&books::are_exact(&models, "acme", capacity).await?);
    ensure!(used <= capacity && admitted >= 5, "{used} of {capacity} by {admitted}");
    Ok(())
}

/// The providers' own clients wait as `Retry-After` says, and get through when the bucket has refilled.
#[tokio::test]
async fn the_clients_wait_and_get_through() -> Result<()> {
    const CAPACITY: u64 = 1_500;
    const PER_S: u64 = 600;
    let models = Models::start(json!({})).await?;
    let started = Instant::now();
    models
        .fleet
        .tenant("whole", &[continuous("rate", "tokens", CAPACITY, PER_S, 1_000)], &[])
        .await?;
    let patient = ["--calls", "60", "--plain", "--retries", "50", "--seed", "3"];
    let seen = clients::call(&models.fleet, &patient).await?;
    let waiting = ["--calls", "30", "--plain", "--seed", "4"];
    let waited = clients::call(&models.fleet, &waiting).await?;
    let elapsed = started.elapsed().as_secs_f64();

    for seen in seen.iter().chain(&waited) {
        ensure!(seen.status == 200 && seen.error.is_none(), "{seen:?}");
    }
    let retries: u32 = seen.iter().map(|seen| seen.retries).sum();
    ensure!(retries > 0, "the clients never had to wait");
    let refused = || waited.iter().flat_map(|seen| &seen.refused);
    ensure!(refused().count() > 0, "nobody was refused");
    for (reason, retry_after) in refused() {
        let seconds: u64 = retry_after.as_ref().context("no Retry-After")?.parse()?;
        ensure!(reason == "limit_exceeded" && (1..=9).contains(&seconds), "{reason} {seconds}");
    }
    let mut used = 0;
    for call in models.upstream.calls() {
        let (least, most) = books::settlement(&call, 0)?;
        ensure!(least == most, "{call:?}");
        used += least.total();
    }
    let ledger = books::settled(&models.fleet, "whole", 90).await?;
    ensure!(books::total(&ledger) == used, "{used} were said: {ledger:?}");
    let law = CAPACITY as f64 + PER_S as f64 * elapsed;
    ensure!(used as f64 <= law, "{used} in {elapsed} s is more than {law}");
    Ok(())
}

/// What an upstream takes beyond the reservation is counted and owed, and paid before anything else.
#[tokio::test]
async fn an_upstream_that_takes_more_is_paid_first() -> Result<()> {
    let models = Models::start(json!({})).await?;
    let capacity = 1_000;
    models.fleet.tenant("acme", &[monthly(capacity)], &[]).await?;
    models.fleet.tenant("debtor", &[monthly(capacity)], &[]).await?;
    let more = async |tenant: &str, output: u64| {
        let script = json!({ "output": output, "beyond": true });
        Answer::of(models.call(tenant, CHAT, &chat(100), &script)).await
    };
    // More than was reserved, and there is enough: it is gone from the bucket.
    ensure!(more("acme", 300).await?.status == 200);
    books::are_exact(&models, "acme", capacity).await?;

    // More than there is: the ledger has all of it, and the bucket owes the rest.
    ensure!(more("debtor", 1_500).await?.status == 200);
    let used = books::settled_at(&models.fleet, "debtor", 1).await?;
    ensure!(used == Used::new(14, 0, 1_500), "{used:?}");
    let owed = used.total() - capacity;
    wait_for("the bucket to owe the rest", SOON, async || {
        let bucket = bucket(&models.fleet, "debtor", "monthly").await?;
        let is_so = bucket["remaining"] == 0 && bucket["owed"] == owed;
        ensure!(is_so, "{owed} are owed: {bucket}");
        Ok(Some(()))
    })
    .await?;
    let refused = more("debtor", 1).await?;
    ensure!(refused.status == 429, "{refused:?}");
    ensure!(models.upstream.calls_of("debtor").len() == 1);
    // A top-up pays the debt first.
    let path = "/tenants/debtor/buckets/monthly/adjustments";
    let top_up = json!({ "amount": owed + RESERVED - 1, "reason": "too little by one" });
    models.fleet.admin.post(path, &top_up).await?.ok()?;
    ensure!(more("debtor", 1).await?.status == 429, "less than it may take is left");
    let one = json!({ "amount": 1, "reason": "the last one" });
    models.fleet.admin.post(path, &one).await?.ok()?;
    wait_for("the next call to pass", SOON, async || {
        Ok((more("debtor", 1).await?.status == 200).then_some(()))
    })
    .await
}

/// A call that can take more than the limit ever holds is refused for good.
#[tokio::test]
async fn a_call_above_the_capacity_is_told_so() -> Result<()> {
    let models = Models::start(json!({})).await?;
    models.fleet.tenant("acme", &[monthly(RESERVED - 1)], &[]).await?;
    let answer = Answer::of(models.call("acme", CHAT, &chat(100), &json!({}))).await?;
    ensure!(answer.status == 429, "{answer:?}");
    ensure!(answer.header("x-weir-reason") == "cost_exceeds_capacity", "{answer:?}");
    ensure!(answer.header("retry-after").is_empty(), "{answer:?}");
    let smaller = Answer::of(models.call("acme", CHAT, &chat(99), &json!({}))).await?;
    ensure!(smaller.status == 200, "{smaller:?}");
    books::are_exact(&models, "acme", RESERVED - 1).await.map(drop)
}
