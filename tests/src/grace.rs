//! From draft to grace to final: when an invoice is made, by whom, and what is shown before.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    harness::*,
    invoices::{amounts, invoices, tenant_since, use_tokens},
};

/// 30 days.
const GRACE_MS: &str = "2592000000";

/// A Weir in which a period of `acme` has ended yesterday or today, with usage in that and in the
/// current one. The ended one is in grace for 30 days.
async fn in_grace() -> Result<(Fleet, String)> {
    let fleet =
        Fleet::with(|stack| stack.gateways(0).variable("WEIR_INVOICE_GRACE_MS", GRACE_MS)).await?;
    let start = midnight(&fleet, -2).await?;
    let prices = [flat("10.00"), per_unit("0.01")];
    let plan =
        json!({ "currency": "USD", "prices": prices, "billing_period": { "every_days": 2 } });
    tenant_since(&fleet, "acme", &start, plan, "UTC").await?;
    use_tokens(&fleet, "acme", &start, 100).await?;
    let end = midnight(&fleet, 0).await?;
    use_tokens(&fleet, "acme", &end, 7).await?;
    Ok((fleet, end))
}

/// The start of a day by Postgres' clock, so many days from today.
async fn midnight(fleet: &Fleet, days: i32) -> Result<String> {
    text_of(fleet, &format!("date_trunc('day', now(), 'UTC') + {days} * interval '1 day'")).await
}

async fn text_of(fleet: &Fleet, time: &str) -> Result<String> {
    let sql =
        format!("select to_char(({time}) at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')");
    Ok(fleet.stack.database.query(&sql).await?.trim().to_owned())
}

async fn preview(fleet: &Fleet, which: &str) -> Result<Value> {
    fleet.admin.get(&format!("/tenants/acme/invoices/preview?invoice={which}")).await?.ok()
}

async fn weir(fleet: &Fleet, arguments: &[&str]) -> Result<String> {
    let output = fleet.stack.weir(arguments).await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// While a period runs its invoice is a draft; after its end it is in grace, takes what arrives late, and
/// is made when the grace has passed and not before.
#[tokio::test]
async fn an_invoice_is_a_draft_then_in_grace_then_final() -> Result<()> {
    let (fleet, end) = in_grace().await?;
    let current = preview(&fleet, "current").await?;
    assert_eq!((&current["state"], &current["final_at"]), (&json!("draft"), &Value::Null));
    assert_eq!(current["period_start"], end.as_str());
    assert_eq!(amounts(&current), ["10.00", "0.07", "10.07"]);

    let next = fleet.admin.get("/tenants/acme/invoices/preview").await?.ok()?;
    assert_eq!((&next["state"], &next["id"]), (&json!("grace"), &Value::Null));
    assert_eq!(next["period_end"], end.as_str());
    let final_at = midnight(&fleet, 30).await?;
    assert_eq!(next["final_at"], final_at.as_str());
    assert_eq!(amounts(&next), ["10.00", "1.00", "11.00"]);
    use_tokens(&fleet, "acme", &midnight(&fleet, -1).await?, 23).await?;
    assert_eq!(amounts(&preview(&fleet, "next").await?), ["10.00", "1.23", "11.23"]);

    let (browser, ..) = crate::portal::signed_in(&fleet, "acme").await?;
    let page = browser.get("").await?.body;
    let (_, shown) = page.split_once("id=\"in-grace\"").context("not on the page")?;
    assert!(shown.contains("11.23") && page.contains("The period before"), "{page}");
    let said = weir(&fleet, &["invoice", "preview", "acme"]).await?;
    assert!(said.contains("Tokens") && said.contains("123 tokens × 0.01"), "{said}");
    assert!(said.contains("Total USD") && said.contains("11.23"), "{said}");
    let said = weir(&fleet, &["invoice", "preview", "acme", "--current", "--json"]).await?;
    assert_eq!(serde_json::from_str::<Value>(&said)?["total"], "10.07");

    let none = "0 invoices made for 1 tenant.\n";
    assert_eq!(weir(&fleet, &["invoice", "run"]).await?, none);
    let before =
        text_of(&fleet, &format!("'{final_at}'::timestamptz - interval '1 second'")).await?;
    assert_eq!(weir(&fleet, &["invoice", "run", "--as-of", &before]).await?, none);
    let made = weir(&fleet, &["invoice", "run", "--as-of", &final_at]).await?;
    assert_eq!(made, "1 invoice made for 1 tenant.\n");
    let made = &invoices(&fleet, "acme").await?[0];
    assert_eq!(amounts(made), ["10.00", "1.23", "11.23"]);
    assert_eq!((&made["state"], made["final_at"].is_null()), (&json!("final"), true));
    let next = preview(&fleet, "next").await?;
    assert_eq!((&next["state"], &next["period_start"]), (&json!("draft"), &json!(end)));
    Ok(())
}

/// An operator need not wait for the grace to pass; there is nothing to make twice, and a period that runs
/// is not ended by it. To end one early makes its invoice at once.
#[tokio::test]
async fn an_invoice_in_grace_is_made_at_once_when_asked_for() -> Result<()> {
    let (fleet, end) = in_grace().await?;
    assert_eq!(weir(&fleet, &["invoice", "finalize", "acme"]).await?, "INV-000001 is final.\n");
    let again = fleet.stack.weir(&["invoice", "finalize", "acme"]).await?;
    let said = String::from_utf8(again.stderr)?;
    assert!(!again.status.success() && said.contains("the current one ends at"), "{said}");
    let path = "/tenants/acme/invoices/finalize";
    let nothing = json!({});
    let answer = fleet.admin.post(path, &nothing).await?;
    assert!(answer.status == 409 && answer.body.contains("ends at"), "{}", answer.body);
    assert_eq!(fleet.admin.post("/tenants/nobody/invoices/finalize", &nothing).await?.status, 404);
    let missing = fleet.stack.weir(&["invoice", "preview", "nobody"]).await?;
    assert!(String::from_utf8(missing.stderr)?.contains("there is no tenant \"nobody\""));

    let ended = fleet.admin.post("/tenants/acme/billing-period/end", &nothing).await?.ok()?;
    assert_eq!((&ended["state"], &ended["period_start"]), (&json!("final"), &json!(end)));

    let plan = json!({ "currency": "USD", "billing_period": { "every_days": 1 } });
    tenant_since(&fleet, "other", &midnight(&fleet, -3).await?, plan, "UTC").await?;
    let (one, two) =
        tokio::try_join!(fleet.admin.post("/tenants/other/invoices/finalize", &nothing), async {
            fleet.admin.post("/tenants/other/invoices/finalize", &nothing).await
        })?;
    let made = [one, two]
        .iter()
        .filter_map(|answer| answer.ok().ok())
        .fold(0, |made, answer| made + answer["items"].as_array().map_or(0, Vec::len));
    assert_eq!((made, invoices(&fleet, "other").await?.len()), (3, 3));
    Ok(())
}
