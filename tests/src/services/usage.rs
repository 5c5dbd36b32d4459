//! `POST /v1/usage`: what is reported counts once, and what is checked never passes a limit.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{all, service, services, stored};
use crate::{harness::*, leases::bucket};

fn used(key: &str, tokens: u64) -> Value {
    json!({ "key": key, "tenant": "acme", "tokens": tokens, "requests": 1 })
}

fn wish(key: &str, tokens: u64) -> Value {
    json!({ "key": key, "tenant": "acme", "tokens": tokens, "requests": 1, "check": true })
}

async fn fleet(replicas: usize, limits: &[Limit]) -> Result<Fleet> {
    let fleet = Fleet::with(|stack| stack.control_planes(replicas).gateways(0)).await?;
    let mut batch = per_unit("0.02");
    batch["meter"] = json!("batch");
    fleet.tenant("acme", limits, &[per_unit("0.01"), batch]).await?;
    Ok(fleet)
}

/// What a job has used is recorded once, owed to the limits once, and billed, however often and wherever
/// it is reported; the answer is the same each time. It is never refused.
#[tokio::test]
async fn a_report_counts_once() -> Result<()> {
    let fleet = fleet(2, &[monthly(100)]).await?;
    let apis = services(&fleet).await?;
    let repeats = (0..16).map(|number| {
        let request =
            apis[number % 2].request(reqwest::Method::POST, "/usage").json(&used("job-1", 70));
        async move { Answer::of(request).await }
    });
    let answers = all(repeats).await?;
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (200, &answers[0].body));
    }
    let told = answers[0].json()?;
    assert_eq!((&told["tokens"], &told["meter"]), (&json!(70), &json!("default")));
    assert_eq!(stored(&fleet, "acme").await?, "70|1");
    assert_eq!(bucket(&fleet, "acme", "monthly").await?["remaining"], 30);

    // More than there is: the limit owes it.
    apis[1].post("/usage", &used("job-2", 50)).await?.ok()?;
    let owing = bucket(&fleet, "acme", "monthly").await?;
    assert_eq!((&owing["remaining"], &owing["owed"]), (&json!(0), &json!(20)), "{owing}");

    let mut batch = used("job-3", 5);
    batch["meter"] = json!("batch");
    batch["model"] = json!("gpt-4");
    apis[0].post("/usage", &batch).await?.ok()?;
    assert_eq!(stored(&fleet, "acme").await?, "125|3");
    let invoice = fleet.admin.get("/tenants/acme/invoices/preview").await?.ok()?;
    assert_eq!(invoice["total"], "1.30", "{invoice}");
    Ok(())
}

/// A key stands for one report, in the header or in the body.
#[tokio::test]
async fn a_key_stands_for_one_report() -> Result<()> {
    let fleet = fleet(1, &[]).await?;
    let api = service(&fleet).await?;
    let body = json!({ "tenant": "acme", "tokens": 7 });
    let with_header = |key: &str, body: &Value| {
        let request = api.request(reqwest::Method::POST, "/usage").header("idempotency-key", key);
        Answer::of(request.json(body))
    };
    let first = with_header("\"a-1\"", &body).await?;
    assert_eq!(first.status, 200, "{}", first.body);
    let mut in_body = body.clone();
    in_body["key"] = json!("a-1");
    assert_eq!(api.post("/usage", &in_body).await?.body, first.body);
    let other = with_header("a-1", &json!({ "tenant": "acme", "tokens": 8 })).await?;
    assert_eq!(other.status, 409, "{}", other.body);
    assert!(other.body.contains("used before for something else"), "{}", other.body);
    let two = with_header("a-2", &in_body).await?;
    assert_eq!((two.status, &two.json()?["errors"][0]["field"]), (400, &json!("key")));
    assert_eq!(stored(&fleet, "acme").await?, "7|0");
    Ok(())
}

/// Asks again while the control plane is too busy, as it says itself.
async fn patiently(request: reqwest::RequestBuilder) -> Result<Answer> {
    loop {
        let answer = Answer::of(request.try_clone().context("a body that is a stream")?).await?;
        if answer.status != 503 {
            return Ok(answer);
        }
    }
}

/// What is checked is taken whole or not at all, and a refusal says why and until when. It uses the key
/// up no more than the tokens.
#[tokio::test]
async fn what_is_checked_is_taken_whole_or_not_at_all() -> Result<()> {
    let fleet = fleet(1, &[periodic("yearly", "tokens", 100, json!("year"))]).await?;
    let api = service(&fleet).await?;
    let told = api.post("/usage", &wish("a", 60)).await?.ok()?;
    let limit = &told["limits"][0];
    assert_eq!((&limit["name"], &limit["remaining"]), (&json!("yearly"), &json!(40)), "{told}");
    assert_eq!(api.post("/usage", &wish("a", 60)).await?.ok()?, told);

    let refused = api.post("/usage", &wish("b", 41)).await?;
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert_eq!(refused.header("content-type"), "application/problem+json");
    let problem = refused.json()?;
    assert_eq!(problem["violated-policies"], json!(["yearly"]));
    assert_eq!(problem["limits"][0]["remaining"], 40);
    let reset_s = problem["limits"][0]["reset_s"].as_u64().context("no reset")?;
    assert!(refused.header("retry-after").parse::<u64>()? >= reset_s);
    let never = api.post("/usage", &wish("c", 101)).await?;
    assert_eq!((never.status, never.header("retry-after")), (429, ""), "{}", never.body);
    assert_eq!(never.json()?["reason"], "cost_exceeds_capacity");

    assert_eq!(api.post("/usage", &wish("b", 40)).await?.status, 200);
    assert_eq!(api.post("/usage", &wish("d", 1)).await?.status, 429);
    assert_eq!(stored(&fleet, "acme").await?, "100|2");
    Ok(())
}

/// Many ask at once, at two replicas, some twice under one key: the limit is used up exactly.
#[tokio::test]
async fn many_who_ask_at_once_use_a_limit_up_exactly() -> Result<()> {
    let fleet = fleet(2, &[monthly(100)]).await?;
    let apis = services(&fleet).await?;
    let asks =
        (0..120_usize).flat_map(|number| [(number, 0), (number, 1)]).map(|(number, replica)| {
            let body = wish(&format!("key-{number}"), 2);
            let request = apis[replica].request(reqwest::Method::POST, "/usage").json(&body);
            async move { Ok((number, patiently(request).await?)) }
        });
    let mut admitted = std::collections::BTreeSet::new();
    for (number, answer) in all(asks).await? {
        match answer.status {
            200 => _ = admitted.insert(number),
            status => assert_eq!(status, 429, "{}", answer.body),
        }
    }
    // What was given back by those who came twice may be had now.
    for number in 1_000..1_100 {
        if apis[0].post("/usage", &wish(&format!("key-{number}"), 2)).await?.status == 200 {
            admitted.insert(number);
        }
    }
    assert_eq!(admitted.len(), 50);
    assert_eq!(stored(&fleet, "acme").await?, "100|50");
    Ok(())
}

/// A debit is said as spent at once: it does not keep a continuous limit from refilling while its lease
/// would last.
#[tokio::test]
async fn what_was_taken_is_not_held() -> Result<()> {
    let fleet =
        Fleet::with(|stack| stack.gateways(0).variable("WEIR_LEASE_TTL_MS", "10000")).await?;
    fleet.tenant("acme", &[continuous("burst", "tokens", 100, 1, 3_600_000)], &[]).await?;
    let api = service(&fleet).await?;
    api.post("/usage", &wish("a", 30)).await?.ok()?;
    wait_for("nothing to be held, before the lease ends", SOON / 3, async || {
        let held = bucket(&fleet, "acme", "burst").await?["held"].clone();
        Ok((held == json!({})).then_some(()))
    })
    .await?;
    let left = bucket(&fleet, "acme", "burst").await?;
    assert_eq!((&left["remaining"], &left["owed"]), (&json!(70), &json!(0)), "{left}");
    Ok(())
}

/// Each mistake is named, and nothing is recorded.
#[tokio::test]
async fn a_wrong_report_is_refused_with_the_reason() -> Result<()> {
    let fleet = fleet(1, &[monthly(100)]).await?;
    let api = service(&fleet).await?;
    let with = |field: &str, value: Value| {
        let mut body = used("k", 5);
        body[field] = value;
        body
    };
    let mut timed = wish("k", 5);
    timed["time"] = json!("2026-01-01T00:00:00Z");
    for (body, field) in [
        (json!({ "tenant": "acme", "tokens": 5 }), "key"),
        (with("key", json!("")), "key"),
        (with("key", json!("a b")), "key"),
        (with("key", json!("k".repeat(201))), "key"),
        (with("tenant", json!("a/b")), "tenant"),
        (with("meter", json!("storage")), "meter"),
        (with("model", json!("a\u{0}b")), "model"),
        (with("tokens", json!(-1)), "tokens"),
        (with("requests", json!(1.5)), "requests"),
        (json!({ "key": "k", "tenant": "acme" }), "tokens"),
        (with("time", json!("2020-01-01T00:00:00Z")), "time"),
        (with("time", json!("2199-01-01T00:00:00Z")), "time"),
        (with("cost", json!(5)), "cost"),
        (timed, "time"),
    ] {
        let answer = api.post("/usage", &body).await?;
        assert_eq!(answer.status, 400, "{body}: {}", answer.body);
        assert_eq!(answer.json()?["errors"][0]["field"], field, "{body}: {}", answer.body);
    }
    assert_eq!(api.post("/usage", &with("tenant", json!("nobody"))).await?.status, 404);
    let told = api.post("/usage", &with("meter", json!("storage"))).await?;
    assert!(told.body.contains("it has batch, default"), "{}", told.body);
    for token in
        [None, Some("wrong"), Some(&*fleet.stack.gateway_token), Some(&*fleet.stack.admin_token)]
    {
        let answer = api.with_token(token).post("/usage", &used("k", 5)).await?;
        assert_eq!(answer.status, 401, "{}", answer.body);
    }
    assert_eq!(stored(&fleet, "acme").await?, "0|0");

    fleet.admin.post("/tenants/acme/suspend", &json!({})).await?.ok()?;
    let shut = api.post("/usage", &wish("k", 5)).await?;
    assert_eq!(shut.status, 403, "{}", shut.body);
    assert!(shut.body.contains("suspended or closed"), "{}", shut.body);
    // It was used before.
    api.post("/usage", &used("k", 5)).await?.ok()?;
    assert_eq!(stored(&fleet, "acme").await?, "5|1");
    Ok(())
}

/// While Redis is away nothing is admitted; what was used is recorded, answered when it can be owed, and
/// then counted once.
#[tokio::test]
async fn without_redis_nothing_is_admitted_and_nothing_is_lost() -> Result<()> {
    let fleet = fleet(1, &[monthly(100)]).await?;
    let api = service(&fleet).await?;
    api.post("/usage", &used("first", 1)).await?.ok()?;
    fleet.stack.redis.kill();
    let away = api.post("/usage", &wish("a", 5)).await?;
    assert_eq!((away.status, away.header("retry-after")), (503, "1"), "{}", away.body);
    assert_eq!(api.post("/usage", &used("b", 7)).await?.status, 503);
    fleet.stack.redis.restart().await?;
    wait_for("the report to be owed", SOON, async || {
        let answer = api.post("/usage", &used("b", 7)).await?;
        assert!([200, 503].contains(&answer.status), "{}", answer.body);
        Ok((answer.status == 200).then_some(()))
    })
    .await?;
    api.post("/usage", &wish("a", 5)).await?.ok()?;
    assert_eq!(stored(&fleet, "acme").await?, "13|3");
    Ok(())
}
