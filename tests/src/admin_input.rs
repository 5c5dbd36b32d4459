//! Mistakes in calls of the admin API: each answer says what was wrong, and nothing changes.

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::json;

use crate::{admin_api::operator, harness::Answer};

/// Malformed input is a 400 that names the field, and changes nothing.
#[tokio::test]
async fn bad_input_is_refused_with_the_field() -> Result<()> {
    let fleet = operator().await?;
    fleet.tenant("acme", &[], &[]).await?;
    let plan = |limits: &str, prices: &str| {
        format!(r#"{{"currency":"USD","limits":[{limits}],"prices":[{prices}]}}"#)
    };
    let limit = |capacity: &str, refill: &str| {
        let refill = format!(r#"{{"kind":{refill}}}"#);
        plan(
            &format!(r#"{{"name":"l","unit":"tokens","capacity":{capacity},"refill":{refill}}}"#),
            "",
        )
    };
    let day = r#""periodic","period":"day""#;
    let price = |charge: &str| plan("", &format!(r#"{{"name":"p","charge":{{"kind":{charge}}}}}"#));
    let per_token = r#"{"name":"p","charge":{"kind":"per_unit","unit":"tokens","unit_price":"1"}}"#;
    let cases = [
        ("PUT", "/plans/bad", limit("-1", day), "limits[0].capacity"),
        ("PUT", "/plans/bad", limit("1.5", day), "limits[0].capacity"),
        ("PUT", "/plans/bad", limit("9007199254740992", day), "limits[0].capacity"),
        ("PUT", "/plans/bad", limit("99999999999999999999999", day), "limits[0].capacity"),
        ("PUT", "/plans/bad", limit("0", day), "limits[0]"),
        ("PUT", "/plans/bad", limit("1", r#""periodic","period":"eon""#), "limits[0].refill"),
        ("PUT", "/plans/bad", limit("1", r#""periodic","period":"day","x":1"#), "limits[0].refill"),
        ("PUT", "/plans/bad", limit("1", r#""continuous","amount":-1,"interval_ms":1"#), "limits[0].refill"),
        ("PUT", "/plans/bad", limit("1", r#""continuous","amount":1,"interval_ms":0"#), "limits[0]"),
        ("PUT", "/plans/bad", price(r#""flat","amount":"-1""#), "prices[0]"),
        ("PUT", "/plans/bad", price(r#""flat","amount":"0.001""#), "prices[0]"),
        ("PUT", "/plans/bad", price(r#""flat","amount":1"#), "prices[0].charge"),
        ("PUT", "/plans/bad", price(r#""flat","amount":"1e400""#), "prices[0].charge"),
        ("PUT", "/plans/bad", price(r#""per_unit","unit":"tokens","unit_price":"-0.01""#), "prices[0]"),
        ("PUT", "/plans/bad", price(r#""package","unit":"tokens","package_size":10,"package_price":"-1""#), "prices[0]"),
        ("PUT", "/plans/bad", price(r#""graduated","unit":"tokens","tiers":[]"#), "prices[0]"),
        ("PUT", "/plans/bad", price(r#""graduated","unit":"tokens","tiers":[{"up_to":null,"unit_price":"-1"}]"#), "prices[0]"),
        ("PUT", "/plans/bad", price(r#""graduated","unit":"tokens","tiers":[{"up_to":10,"unit_price":"1"},{"up_to":10,"unit_price":"2"},{"up_to":null,"unit_price":"3"}]"#), "prices[0]"),
        ("PUT", "/plans/bad", price(r#""volume","unit":"tokens","tiers":[{"up_to":10,"unit_price":"1"},{"up_to":5,"unit_price":"2"},{"up_to":null,"unit_price":"3"}]"#), "prices[0]"),
        ("PUT", "/plans/bad", price(r#""volume","unit":"tokens","tiers":[{"up_to":10,"unit_price":"1"}]"#), "prices[0]"),
        ("PUT", "/plans/bad", r#"{"currency":"USD","minimum":"-5"}"#.into(), "minimum"),
        ("PUT", "/plans/bad", r#"{"currency":"usd"}"#.into(), "currency"),
        ("PUT", "/plans/bad", r#"{"currency":""}"#.into(), "currency"),
        ("PATCH", "/tenants/acme", r#"{"time_zone":"Mars/Olympus"}"#.into(), "time_zone"),
        ("PATCH", "/tenants/acme", r#"{"time_zone":"+02:00"}"#.into(), "time_zone"),
        ("PUT", "/plans/bad", price(r#""package","unit":"tokens","package_size":0,"package_price":"1""#), "prices[0]"),
        ("PUT", "/plans/bad", plan("", &format!("{per_token},{per_token}")), "prices[1]"),
        ("PUT", "/plans/bad", plan("", &per_token.replacen('{', r#"{"model":"*-4o","#, 1)), "prices[0].model"),
        ("PUT", "/plans/bad", plan("", &per_token.replacen('{', r#"{"model":"*","#, 1)), "prices[0].model"),
        ("PUT", "/plans/bad", r#"{"currency":"USD","minimum":5}"#.into(), "minimum"),
        ("PUT", "/plans/bad", r#"{"currency":"USD","minimum":"0.001"}"#.into(), "minimum"),
        ("PUT", "/plans/bad", r#"{"currency":"USD","discount_percent":"101"}"#.into(), "discount_percent"),
        ("PUT", "/plans/bad", r#"{"currency":"USD","billing_period":"weekly"}"#.into(), "billing_period"),
        ("PUT", "/plans/bad", r#"{"currency":"USD","billing_period":{"every_days":0}}"#.into(), "billing_period.every_days"),
        ("PUT", "/plans/acme-plan/prices", format!("[{per_token},{per_token}]"), "[1]"),
        ("PUT", "/plans/bad", r#"{"currency":"XXY"}"#.into(), "currency"),
        ("PUT", "/plans/bad", r#"{"limits":[]}"#.into(), ""),
        ("PUT", "/plans/bad", r#"{"currency":"USD","limit":[]}"#.into(), "limit"),
        ("PUT", "/plans/b%20d", r#"{"currency":"USD"}"#.into(), ""),
        ("PUT", "/plans/acme-plan/limits", r#"[{"name":"l","unit":"tokens","capacity":0,"refill":{"kind":"periodic","period":"day"}}]"#.into(), "[0]"),
        ("POST", "/tenants", r#"{"id":"a/b","plan":"acme-plan"}"#.into(), "id"),
        ("POST", "/tenants", r#"{"id":"","plan":"acme-plan"}"#.into(), "id"),
        ("POST", "/tenants", format!(r#"{{"id":"{}","plan":"acme-plan"}}"#, "a".repeat(65)), "id"),
        ("POST", "/tenants", r#"{"id":7,"plan":"acme-plan"}"#.into(), "id"),
        ("POST", "/tenants", r#"{"id":"b","plan":"none"}"#.into(), "plan"),
        ("POST", "/tenants", r#"{"id":"b","plan":"acme-plan","state":"active"}"#.into(), "state"),
        ("POST", "/tenants", r#"{"id":"b","plan":"acme-plan","name":"\u0000"}"#.into(), "name"),
        ("POST", "/tenants", r#"{"id":"b","plan":"acme-plan","time_zone":"Mars/Olympus"}"#.into(), "time_zone"),
        ("POST", "/tenants", r#"{"id":"b","plan":"#.into(), "plan"),
        ("POST", "/tenants", r#"{"id":"b","plan":"acme-plan"} {}"#.into(), ""),
        ("POST", "/tenants", String::new(), ""),
        ("PATCH", "/tenants/acme", r#"{"plan":"none"}"#.into(), "plan"),
        ("PATCH", "/tenants/acme", r#"{"id":"b"}"#.into(), "id"),
        ("PATCH", "/tenants/a%2Fb", "{}".into(), ""),
        ("POST", "/tenants/acme/api-keys", "{}".into(), ""),
        ("POST", "/access-tokens", r#"{"role":"root","name":"x"}"#.into(), "role"),
        ("DELETE", "/access-tokens/x", String::new(), ""),
        ("GET", "/plans?limit=0", String::new(), ""),
        ("GET", "/plans?limit=501", String::new(), ""),
        ("GET", "/plans?after=00", String::new(), "after"),
        ("GET", "/plans?page=2", String::new(), ""),
    ];
    for (method, path, body, field) in cases {
        let request = fleet.admin.request(method.parse()?, path).body(body.clone());
        let answer = Answer::of(request).await?;
        let case = format!("{method} {path} {body} answered {} {}", answer.status, answer.body);
        assert_eq!(answer.status, 400, "{case}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{case}");
        let problem = answer.json()?;
        assert_eq!(problem["errors"][0]["field"].as_str().unwrap_or(""), field, "{case}");
        assert!(!problem["detail"].as_str().context("no detail")?.is_empty(), "{case}");
    }
    let unchanged =
        [("/plans", 1), ("/tenants", 1), ("/plans/acme-plan/versions", 1), ("/access-tokens", 0)];
    for (path, count) in unchanged {
        let list = fleet.admin.get(path).await?.ok()?;
        assert_eq!(list["items"].as_array().map(Vec::len), Some(count), "{path}: {list}");
    }
    Ok(())
}

/// What does not exist is a 404, a wrong method a 405, a duplicate a 409, too much a 413.
#[tokio::test]
async fn other_mistakes_have_their_own_status() -> Result<()> {
    let fleet = operator().await?;
    fleet.tenant("acme", &[], &[]).await?;
    fleet.admin.put("/plans/euro", &json!({ "currency": "EUR" })).await?.ok()?;
    let cases = [
        (Method::GET, "/nothing", json!(null), 404),
        (Method::GET, "/plans/none", json!(null), 404),
        (Method::GET, "/plans/none/versions", json!(null), 404),
        (Method::PUT, "/plans/none/limits", json!([]), 404),
        (Method::PATCH, "/tenants/none", json!({}), 404),
        (Method::POST, "/tenants/none/suspend", json!(null), 404),
        (Method::POST, "/tenants/none/api-keys", json!({ "name": "ci" }), 404),
        (Method::GET, "/tenants/none/api-keys", json!(null), 404),
        (Method::DELETE, "/tenants/acme/api-keys/1", json!(null), 404),
        (Method::DELETE, "/access-tokens/1", json!(null), 404),
        (Method::DELETE, "/tenants", json!(null), 405),
        (Method::POST, "/plans/acme-plan", json!({}), 405),
        (Method::POST, "/tenants", json!({ "id": "acme", "plan": "acme-plan" }), 409),
        (Method::PUT, "/plans/acme-plan", json!({ "currency": "EUR" }), 409),
        (Method::PATCH, "/tenants/acme", json!({ "plan": "euro" }), 409),
        (Method::PATCH, "/tenants/acme", json!({ "name": "x".repeat(300_000) }), 413),
    ];
    for (method, path, body, status) in cases {
        let answer = Answer::of(fleet.admin.request(method.clone(), path).json(&body)).await?;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{method} {path}");
    }
    Ok(())
}
