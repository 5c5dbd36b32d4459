//! The data API answers as OPA does, and takes the tokens of what it allows.

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::{Value, json};

use super::{ALLOW, DECISION, request, service, stored};
use crate::harness::*;

async fn fleet() -> Result<Fleet> {
    let fleet = Fleet::with(|stack| stack.gateways(0)).await?;
    fleet.tenant("acme", &[monthly(3)], &[]).await?;
    Ok(fleet)
}

/// A caller that knows only OPA is told true while tokens are left, then false. What is allowed is in the
/// ledger, and a request that is repeated counts once.
#[tokio::test]
async fn a_caller_of_opa_is_allowed_while_tokens_are_left() -> Result<()> {
    let fleet = fleet().await?;
    let api = service(&fleet).await?;
    let yes = json!({ "result": true });
    // As OpenClaw's engine says it, with more than is looked at.
    let input =
        json!({ "input": { "tenant_id": "acme", "model": "gpt-4", "user": { "roles": ["x"] } } });
    assert_eq!(api.post(ALLOW, &input).await?.ok()?, yes);
    for _ in 0..3 {
        assert_eq!(api.post(ALLOW, &request("acme", "r-1")).await?.ok()?, yes);
    }
    let decided = api.post(DECISION, &request("acme", "r-2")).await?.ok()?["result"].clone();
    assert_eq!((&decided["allow"], &decided["cost"]), (&json!(true), &json!(1)), "{decided}");
    assert_eq!((&decided["meter"], &decided["remaining"]), (&json!("default"), &json!(0)));
    assert!(decided["reset_s"].as_u64().is_some_and(|reset_s| reset_s > 0), "{decided}");

    assert_eq!(api.post(ALLOW, &input).await?.ok()?, json!({ "result": false }));
    let refused = api.post(DECISION, &request("acme", "r-3")).await?.ok()?["result"].clone();
    assert_eq!((&refused["allow"], &refused["reason"]), (&json!(false), &json!("limit_exceeded")));
    assert!(refused["retry_after_s"].as_u64().is_some_and(|after_s| after_s > 0), "{refused}");
    // The one that was allowed is told so again, at either end.
    assert_eq!(api.post(ALLOW, &request("acme", "r-2")).await?.ok()?, yes);
    assert_eq!(api.post(DECISION, &request("acme", "r-2")).await?.ok()?["result"], decided);
    assert_eq!(stored(&fleet, "acme").await?, "3|3");
    let models = "select model, sum(requests) from usage_record group by model order by model";
    assert_eq!(fleet.stack.database.query(models).await?, "|2\ngpt-4|1");
    Ok(())
}

/// Errors, undefined documents and a missing input look as OPA's do. Nothing is taken.
#[tokio::test]
async fn mistakes_are_answered_as_by_opa() -> Result<()> {
    let fleet = fleet().await?;
    let api = service(&fleet).await?;
    let no = json!({ "result": false });
    for path in ["/data", "/data/openclaw", "/data/openclaw/rate_limit", "/data/some/thing"] {
        assert_eq!(api.post(path, &request("acme", "r")).await?.ok()?, json!({}), "{path}");
    }
    for body in [json!({}), json!({ "tenant_id": "acme" })] {
        let answer = api.post(ALLOW, &body).await?.ok()?;
        assert_eq!(answer["result"], false);
        assert_eq!(answer["warning"]["code"], "api_usage_warning", "{answer}");
    }
    let empty = Answer::of(api.request(Method::POST, ALLOW)).await?.ok()?;
    assert_eq!(empty["warning"]["code"], "api_usage_warning");
    for input in
        [json!({}), json!(7), json!({ "tenant_id": "nobody" }), json!({ "tenant_id": "a/b" })]
    {
        assert_eq!(api.post(ALLOW, &json!({ "input": input })).await?.ok()?, no, "{input}");
    }
    let wrong = |status: u16,
                 code: &'static str,
                 told: &'static str,
                 answer: Answer|
     -> Result<()> {
        let body = answer.json()?;
        assert_eq!((answer.status, &body["code"]), (status, &json!(code)), "{body}");
        assert_eq!(answer.header("content-type"), "application/json");
        assert!(body["message"].as_str().is_some_and(|message| message.contains(told)), "{body}");
        Ok(())
    };
    let broken = Answer::of(api.request(Method::POST, ALLOW).body("{\"input\":")).await?;
    wrong(400, "invalid_parameter", "malformed input", broken)?;
    let typed: Value = json!({ "input": { "tenant_id": 7 } });
    wrong(400, "invalid_parameter", "input.tenant_id", api.post(ALLOW, &typed).await?)?;
    let id = request("acme", "a b");
    wrong(400, "invalid_parameter", "input.request_id", api.post(ALLOW, &id).await?)?;
    let stranger = api.with_token(None);
    for path in [ALLOW, "/data/some/thing"] {
        wrong(401, "unauthorized", "token", stranger.post(path, &request("acme", "r")).await?)?;
    }
    let gateway = api.with_token(Some(&fleet.stack.gateway_token));
    wrong(401, "unauthorized", "token", gateway.post(ALLOW, &request("acme", "r")).await?)?;
    assert_eq!(stranger.get(ALLOW).await?.status, 401);
    wrong(405, "invalid_parameter", "GET is not possible", api.get(ALLOW).await?)?;
    assert_eq!(stored(&fleet, "acme").await?, "0|0");

    // One name for two requests is a mistake that would let one pass for free.
    api.post(ALLOW, &request("acme", "r")).await?.ok()?;
    let mut other = request("acme", "r");
    other["input"]["model"] = json!("gpt-4");
    wrong(409, "resource_conflict", "something else", api.post(ALLOW, &other).await?)?;
    fleet.admin.post("/tenants/acme/suspend", &json!({})).await?.ok()?;
    let shut = api.post(DECISION, &request("acme", "r-2")).await?.ok()?;
    assert_eq!(
        (&shut["result"]["allow"], &shut["result"]["reason"]),
        (&json!(false), &json!("suspended"))
    );
    assert_eq!(stored(&fleet, "acme").await?, "1|1");
    Ok(())
}

const BY_MODEL: &str = "package weir.rating

default allow := false

allow if data.buckets[input.tenant].tokens > 10

reason := \"keep the rest\" if not allow

default cost := 1

cost := 20 if input.model == \"gpt-4\"

meter := \"models\"
";

const FREE: &str = "package weir.rating\n\nallow := input.method == \"GET\"\n\ncost := 0\n";

const BROKEN: &str = "package weir.rating\n\nallow := true\n\ncost := 3 if input.path == \"/\"\n";

/// Puts `text` as the policy `main` and makes it the one of this API; its version.
async fn policy(fleet: &Fleet, text: &str) -> Result<u64> {
    let put = fleet.admin.request(Method::PUT, "/../../v1/policies/main").body(text.to_owned());
    Answer::of(put).await?.ok()?;
    let choice = json!({ "gateways": null, "data_api": "main" });
    let chosen = fleet.admin.put("/rating-policy", &choice).await?.ok()?;
    chosen["data_api"]["version"].as_u64().context("no version")
}

/// The active policy says who is allowed, what it costs and on which meter, from what the tenant has left
/// too; the record says which version did. A new one holds for the next request, and one that fails
/// denies.
#[tokio::test]
async fn the_active_policy_rates_requests() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(0)).await?;
    fleet.tenant("acme", &[monthly(50)], &[]).await?;
    let api = service(&fleet).await?;
    let decide = async |id: &str, input: Value| {
        let mut body = request("acme", id);
        for (name, value) in input.as_object().into_iter().flatten() {
            body["input"][name] = value.clone();
        }
        Ok::<_, anyhow::Error>(api.post(DECISION, &body).await?.ok()?["result"].clone())
    };
    let first = policy(&fleet, BY_MODEL).await?;
    let named = json!({ "id": "main", "version": first });
    let gpt = json!({ "model": "gpt-4" });
    let told = decide("a", gpt.clone()).await?;
    assert_eq!(
        (&told["allow"], &told["cost"], &told["remaining"]),
        (&json!(true), &json!(20), &json!(30))
    );
    assert_eq!((&told["meter"], &told["policy"]), (&json!("models"), &named), "{told}");
    decide("b", gpt.clone()).await?;
    // 10 are left, which the policy keeps.
    let denied = decide("c", gpt).await?;
    assert_eq!((&denied["allow"], &denied["reason"]), (&json!(false), &json!("denied_by_policy")));
    assert_eq!(
        (&denied["detail"], &denied["policy"]),
        (&json!("keep the rest"), &named),
        "{denied}"
    );

    let second = policy(&fleet, FREE).await?;
    let get = json!({ "method": "get", "path": "/x?y=1" });
    let free = decide("d", get).await?;
    assert_eq!(
        (&free["allow"], &free["cost"], &free["remaining"]),
        (&json!(true), &json!(0), &json!(10))
    );
    assert_eq!(free["policy"]["version"], second);
    // What was decided by the other one stays so.
    assert_eq!(decide("a", json!({ "model": "gpt-4" })).await?, told);

    policy(&fleet, BROKEN).await?;
    assert_eq!(decide("e", json!({ "path": "/?q" })).await?["cost"], 3);
    let failed = decide("f", json!({ "path": "/other" })).await?;
    assert_eq!((&failed["allow"], &failed["reason"]), (&json!(false), &json!("policy_failed")));
    assert!(fleet.stack.control_planes[0].log()?.contains("the policy fails, which denies"));
    let records = "select policy_version, meter, sum(tokens), sum(requests) from usage_record
                   group by policy_version, meter order by policy_version";
    let third = second + 1;
    assert_eq!(
        fleet.stack.database.query(records).await?,
        format!("{first}|models|40|2\n{second}|default|0|1\n{third}|default|3|1")
    );
    assert_eq!(stored(&fleet, "acme").await?, "43|4");
    Ok(())
}
