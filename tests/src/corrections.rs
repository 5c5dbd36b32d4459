//! Usage that operators add or take away afterwards: it is billed like all usage, once, and what was
//! used never falls below nothing.

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    harness::*,
    invoices::{amounts, invoices, run, start, tenant_since, use_tokens},
};

const JANUARY: &str = "2025-01-20T10:00:00Z";

/// A Weir with a tenant that pays 0.01 USD per token since January 2025, and used 100 of them then.
async fn acme() -> Result<Fleet> {
    let fleet = start().await?;
    let plan = json!({ "currency": "USD", "prices": [per_unit("0.01")] });
    tenant_since(&fleet, "acme", "2025-01-01T00:07:00Z", plan, "UTC").await?;
    use_tokens(&fleet, "acme", JANUARY, 100).await?;
    Ok(fleet)
}

fn correction(quarter: &str, tokens: i64) -> Value {
    json!({ "reason": "Bug 7", "entries": [{ "quarter": quarter, "tokens": tokens }] })
}

async fn correct(fleet: &Fleet, name: &str, body: &Value) -> Result<Answer> {
    fleet.admin.put(&format!("/tenants/acme/usage-corrections/{name}"), body).await
}

/// Tokens and requests that the tenant has used in January and February.
async fn used(fleet: &Fleet) -> Result<(i64, i64)> {
    let range = "from=2025-01-01T00:00:00Z&to=2025-03-01T00:00:00Z";
    let usage = fleet.admin.get(&format!("/tenants/acme/usage?{range}")).await?.ok()?;
    Ok((usage["tokens"].as_i64().unwrap_or(-1), usage["requests"].as_i64().unwrap_or(-1)))
}

/// What is added to a period that is open is on its invoice; what is taken from one that is closed is
/// on the next one, as an adjustment. A call that is repeated counts once, at the same moment too.
#[tokio::test]
async fn corrections_are_billed_once() -> Result<()> {
    let fleet = acme().await?;
    run(&fleet, "2025-02-01T00:00:00Z").await?;

    let body = correction(JANUARY, -30);
    let put = || correct(&fleet, "bug-7", &body);
    let (one, two, three, four) = tokio::try_join!(put(), put(), put(), put())?;
    let mut statuses = [one, two, three, four].map(|answer| answer.status);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 201]);
    let entry = |model: &str, tokens: i64, requests: i64| {
        json!({ "quarter": "2025-02-10T10:15:00Z", "meter": "default", "model": model,
                "tokens": tokens, "requests": requests })
    };
    // Of a row of the ledger that there was none of, and twice of the same.
    let entries = [entry("gpt-4", 60, 3), entry("", 50, 0), entry("gpt-4", -10, -1)];
    let body = json!({ "reason": "Lost by a gateway", "entries": entries });
    assert_eq!(correct(&fleet, "backfill", &body).await?.status, 201);
    assert_eq!(used(&fleet).await?, (170, 3));
    run(&fleet, "2025-04-01T00:00:00Z").await?;

    let made = invoices(&fleet, "acme").await?;
    assert_eq!(amounts(&made[0]), ["1.00", "1.00"]);
    assert_eq!(amounts(&made[1]), ["1.00", "-0.30", "0.70"]);
    assert_eq!(made[1]["lines"][1]["adjusts"]["invoice"], made[0]["id"]);
    assert_eq!(amounts(&made[2]), ["0.00", "0.00"]);

    let list = fleet.admin.get("/tenants/acme/usage-corrections?limit=1").await?.ok()?;
    assert_eq!(list["items"][0]["name"], "backfill");
    assert_eq!(list["items"][0]["entries"], json!(entries));
    let next = list["next"].as_str().unwrap_or_default();
    let rest = format!("/tenants/acme/usage-corrections?after={next}");
    assert_eq!(fleet.admin.get(&rest).await?.ok()?["items"][0]["name"], "bug-7");
    let one = fleet.admin.get("/tenants/acme/usage-corrections/bug-7").await?.ok()?;
    assert_eq!((&one["reason"], &one["entries"][0]["tokens"]), (&json!("Bug 7"), &json!(-30)));
    Ok(())
}

/// A correction that is wrong is refused with the reason, and one that is stored stays as it is.
#[tokio::test]
async fn a_wrong_correction_changes_nothing() -> Result<()> {
    let fleet = acme().await?;
    assert_eq!(correct(&fleet, "first", &correction(JANUARY, -30)).await?.status, 201);
    let of = |field: &str, value: Value| {
        let mut body = correction(JANUARY, 5);
        body["entries"][0][field] = value;
        body
    };
    let many = json!({ "reason": "x", "entries": vec![json!({ "quarter": JANUARY, "tokens": 1 }); 1_001] });
    for (name, body, field) in [
        ("a", of("quarter", json!("2025-01-20T10:01:00Z")), "entries[0].quarter"),
        ("a", of("quarter", json!("2024-12-31T23:45:00Z")), "entries[0].quarter"),
        ("a", of("quarter", json!("2199-01-01T00:00:00Z")), "entries[0].quarter"),
        ("a", of("tokens", json!(0)), "entries[0].tokens"),
        ("a", of("tokens", json!(1u64 << 53)), "entries[0].tokens"),
        ("a", of("requests", json!(1.5)), "entries[0].requests"),
        ("a", of("meter", json!("a b")), "entries[0].meter"),
        ("a", of("model", json!("a\u{0}b")), "entries[0].model"),
        ("a", of("cost", json!(5)), "entries[0].cost"),
        ("a", json!({ "reason": "", "entries": [] }), "reason"),
        ("a", json!({ "reason": "x", "entries": [] }), "entries"),
        ("a", many, "entries"),
        ("a%20b", correction(JANUARY, 5), "name"),
    ] {
        let answer = correct(&fleet, name, &body).await?;
        assert_eq!(answer.status, 400, "{}", answer.body);
        assert_eq!(answer.json()?["errors"][0]["field"], field, "{}", answer.body);
    }
    for (name, body, told) in [
        ("a", correction(JANUARY, -71), "-1 tokens"),
        ("a", correction("2025-01-20T10:15:00Z", -1), "-1 tokens"),
        ("a", of("tokens", json!((1u64 << 53) - 1)), "2^53"),
        ("first", correction(JANUARY, -29), "another correction"),
    ] {
        let answer = correct(&fleet, name, &body).await?;
        assert_eq!(answer.status, 409, "{}", answer.body);
        assert!(answer.body.contains(told), "{}", answer.body);
    }
    let path = "/tenants/nobody/usage-corrections/a";
    assert_eq!(fleet.admin.put(path, &correction(JANUARY, 5)).await?.status, 404);
    assert_eq!(fleet.admin.get("/tenants/acme/usage-corrections/a").await?.status, 404);
    for sql in ["delete from usage_correction_entry", "update usage_correction set reason = ''"] {
        assert!(fleet.stack.database.query(sql).await.is_err(), "{sql}");
    }
    assert_eq!(used(&fleet).await?, (70, 1));
    let list = fleet.admin.get("/tenants/acme/usage-corrections").await?.ok()?;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list}");
    // What is left may be taken away.
    assert_eq!(correct(&fleet, "rest", &correction(JANUARY, -70)).await?.status, 201);
    assert_eq!(used(&fleet).await?, (0, 1));
    Ok(())
}
