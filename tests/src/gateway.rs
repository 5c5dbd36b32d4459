//! What clients see at a gateway: each refusal with its reason, exempt routes, shadow mode, and what
//! a wrong plugin configuration does.

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Fleet, SOON, monthly, periodic, wait_for};

/// The reason code stands in the header and in the problem, and nobody refused reaches the upstream.
fn assert_refused(answer: &Answer, status: u16, reason: &str) -> Result<Value> {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("x-weir-reason"), reason, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let problem = answer.json()?;
    assert_eq!(problem["reason"], reason);
    assert_eq!(problem["status"], status);
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{problem}");
    Ok(problem)
}

/// Strangers, the suspended, and those who say nothing reach no upstream.
#[tokio::test]
async fn who_may_not_pass_is_told_why() -> Result<()> {
    let fleet = Fleet::start().await?;
    fleet.tenant("acme", &[monthly(100)], &[]).await?;
    fleet.admin.post("/tenants/acme/suspend", &json!({})).await?.ok()?;

    let missing = Answer::of(fleet.request(Method::GET, "/")).await?;
    assert_refused(&missing, 401, "missing_credential")?;
    assert_refused(&fleet.call("nobody", "/").await?, 401, "unknown_tenant")?;
    assert_refused(&fleet.call("no such id", "/").await?, 401, "unknown_tenant")?;
    assert_refused(&fleet.call(&"x".repeat(65), "/").await?, 401, "unknown_tenant")?;
    assert_refused(&fleet.call("acme", "/").await?, 403, "suspended")?;
    assert_eq!(fleet.stack.upstream.requests(), 0);
    Ok(())
}

/// Suspending and resuming a tenant, and creating one that was asked for before, reach the gateway
/// by the long poll, not by a time-out.
#[tokio::test]
async fn changes_reach_the_gateway() -> Result<()> {
    let fleet = Fleet::start().await?;
    assert_eq!(fleet.call("acme", "/").await?.status, 401);
    fleet.tenant("acme", &[monthly(1_000)], &[]).await?;
    let answers = async |status| {
        wait_for(&format!("{status} for acme"), SOON, async || {
            Ok((fleet.call("acme", "/").await?.status == status).then_some(()))
        })
        .await
    };
    answers(200).await?;
    fleet.admin.post("/tenants/acme/suspend", &json!({})).await?.ok()?;
    answers(403).await?;
    fleet.admin.post("/tenants/acme/resume", &json!({})).await?.ok()?;
    answers(200).await
}

/// A client without tokens learns which limit it hit and when to come back.
#[tokio::test]
async fn a_429_says_which_limit_and_when() -> Result<()> {
    let fleet = Fleet::start().await?;
    let limits = [
        periodic("daily", "tokens", 3, json!("day")),
        periodic("plenty", "requests", 1_000, json!("hour")),
    ];
    fleet.tenant("acme", &limits, &[]).await?;
    for _ in 0..3 {
        assert_eq!(fleet.call("acme", "/").await?.status, 200);
    }
    let answer = fleet.call("acme", "/").await?;
    let problem = assert_refused(&answer, 429, "limit_exceeded")?;

    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(problem["violated-policies"], json!(["daily"]));
    let policy = answer.header("ratelimit-policy");
    assert_eq!(policy, r#""daily";q=3;w=86400;qu="tokens", "plenty";q=1000;w=3600"#);
    let remaining = answer.header("ratelimit");
    assert!(remaining.starts_with(r#""daily";r=0;t="#), "{remaining}");
    let number = |text: &str| {
        text.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u64>()
    };
    let reset_s = number(remaining.trim_start_matches(r#""daily";r=0;t="#))?;
    let retry_s = number(answer.header("retry-after"))?;
    assert!((reset_s..=86_400).contains(&retry_s), "{retry_s} is earlier than {reset_s}");
    Ok(())
}

/// A gRPC caller gets the grpc-status that fits, with the same reason and fields.
#[tokio::test]
async fn a_grpc_caller_gets_a_grpc_status() -> Result<()> {
    let fleet = Fleet::start().await?;
    fleet.tenant("acme", &[periodic("daily", "tokens", 1, json!("day"))], &[]).await?;
    let call = async |tenant: &str| {
        let request = fleet.request(Method::POST, "/orders.Orders/List");
        let request = request.header("content-type", "application/grpc");
        Answer::of(request.header("x-tenant-id", tenant)).await
    };
    assert_eq!(call("acme").await?.status, 200);
    let answer = call("acme").await?;
    assert_eq!((answer.status, answer.header("grpc-status")), (200, "8"), "{answer:?}");
    assert_eq!(answer.header("x-weir-reason"), "limit_exceeded");
    assert!(answer.header("ratelimit").starts_with(r#""daily";r=0;"#), "{answer:?}");
    assert_eq!(call("nobody").await?.header("grpc-status"), "16");
    Ok(())
}

/// A cost that no bucket of the plan can ever hold is refused as such, without a Retry-After.
#[tokio::test]
async fn a_cost_above_the_capacity_can_never_succeed() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.plugin(json!({ "cost": 50 }))).await?;
    fleet.tenant("small", &[monthly(49)], &[]).await?;
    fleet.tenant("large", &[monthly(120)], &[]).await?;

    let answer = fleet.call("small", "/").await?;
    let problem = assert_refused(&answer, 429, "cost_exceeds_capacity")?;
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("never")), "{problem}");
    assert_eq!(answer.header("retry-after"), "");

    let counts = fleet.drive("large", 4, 12).await?;
    assert_eq!((counts.of(200), counts.of(429)), (2, 10), "whole or not at all");
    wait_for("100 tokens in the ledger", SOON, async || {
        Ok((fleet.ledger("large").await? == (100, 2)).then_some(()))
    })
    .await
}

/// With `rate_limit_fields: always`, each admitted answer says what is left.
#[tokio::test]
async fn every_answer_can_say_what_is_left() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.plugin(json!({ "rate_limit_fields": "always" }))).await?;
    fleet.tenant("acme", &[periodic("daily", "tokens", 10, json!("day"))], &[]).await?;
    let first = fleet.call("acme", "/").await?;
    assert_eq!(first.header("ratelimit-policy"), r#""daily";q=10;w=86400;qu="tokens""#);
    let second = fleet.call("acme", "/").await?;
    let remaining = |answer: &Answer| answer.header("ratelimit").to_owned();
    assert!(remaining(&first).starts_with(r#""daily";r=9;"#), "{}", remaining(&first));
    assert!(remaining(&second).starts_with(r#""daily";r=8;"#), "{}", remaining(&second));
    Ok(())
}

/// Exempt routes pass without a tenant and cost nothing, with one too.
#[tokio::test]
async fn exempt_routes_cost_nothing() -> Result<()> {
    let exempt = json!([{ "path": "/ping" }, { "method": "OPTIONS" }]);
    let fleet = Fleet::with(|stack| stack.plugin(json!({ "exempt": exempt }))).await?;
    fleet.tenant("acme", &[monthly(1)], &[]).await?;

    for path in ["/ping", "/ping?deep=1"] {
        assert_eq!(Answer::of(fleet.request(Method::GET, path)).await?.status, 200);
        assert_eq!(fleet.call("acme", path).await?.status, 200);
    }
    assert_eq!(Answer::of(fleet.request(Method::OPTIONS, "/orders")).await?.status, 200);
    assert_eq!(Answer::of(fleet.request(Method::GET, "/pingpong")).await?.status, 401);
    assert_eq!(fleet.call("acme", "/").await?.status, 200);
    assert_eq!(fleet.call("acme", "/").await?.status, 429);
    fleet.ledger_reaches("acme", 1).await
}

/// Shadow mode refuses nothing, and counts what it would have refused.
#[tokio::test]
async fn shadow_mode_refuses_nothing() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.plugin(json!({ "shadow": true }))).await?;
    fleet.tenant("acme", &[monthly(10)], &[]).await?;
    let counts = fleet.drive("acme", 4, 30).await?;
    assert_eq!(counts.of(200), 30);
    assert_eq!(fleet.call("nobody", "/").await?.status, 200);
    assert_eq!(Answer::of(fleet.request(Method::GET, "/")).await?.status, 200);
    wait_for("the counters of shadow mode", SOON, async || {
        let gateway = &fleet.stack.gateways[0];
        let stats = [
            gateway.weir_stat("shadow_refused").await?,
            gateway.weir_stat("refused.limit_exceeded").await?,
            gateway.weir_stat("refused.unknown_tenant").await?,
            gateway.weir_stat("refused.missing_credential").await?,
        ];
        Ok((stats == [22, 20, 1, 1]).then_some(()))
    })
    .await?;
    fleet.ledger_reaches("acme", 10).await
}

/// When no lease can be had, requests are refused in time and say so.
#[tokio::test]
async fn without_a_control_plane_nothing_passes() -> Result<()> {
    let fleet = Fleet::start().await?;
    fleet.tenant("acme", &[monthly(100)], &[]).await?;
    fleet.stack.control_planes[0].kill();
    let answer = fleet.call("acme", "/").await?;
    assert_refused(&answer, 503, "control_plane_unreachable")?;
    assert_eq!(answer.header("retry-after"), "1");
    fleet.stack.control_planes[0].restart().await?;
    wait_for("200 for acme", SOON, async || {
        Ok((fleet.call("acme", "/").await?.status == 200).then_some(()))
    })
    .await?;
    fleet.ledger_reaches("acme", 1).await
}

/// Envoy refuses to start with a wrong plugin configuration, and its log names the field.
#[tokio::test]
async fn a_wrong_plugin_configuration_names_the_field() -> Result<()> {
    let mut fleet = Fleet::with(|stack| stack.gateways(0)).await?;
    for (plugin, field) in [
        (json!({ "cost": -1 }), "cost"),
        (json!({ "cost": 9_007_199_254_740_992_u64 }), "cost"),
        (json!({ "control_plane": { "token": null } }), "control_plane"),
        (json!({ "identity": { "kind": "cookie" } }), "identity"),
        (json!({ "max_wait": 5 }), "max_wait"),
        (json!({ "exempt": [{}] }), "exempt[0]"),
    ] {
        let Err(error) = fleet.stack.add_gateway(&plugin).await else {
            anyhow::bail!("Envoy started with {plugin}");
        };
        let error = format!("{error:#}");
        assert!(error.contains("plugin configuration is wrong at"), "{plugin}: {error}");
        assert!(error.contains(field), "{plugin} must name {field}: {error}");
    }
    Ok(())
}
