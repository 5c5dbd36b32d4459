//! A tenant moves to another time zone: a billing period that has begun keeps its end, one that has ended
//! stays ended, and the next one ends in the new zone.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{
    harness::*,
    invoices::{invoices, run, start, tenant_since},
};

/// Eleven hours behind UTC, and fourteen ahead of it: their days are all but the same, a day apart.
const WEST: &str = "Pacific/Pago_Pago";
const EAST: &str = "Pacific/Kiritimati";

/// The start of a day in `zone` by Postgres' clock, so many days from today, in UTC.
async fn midnight(fleet: &Fleet, zone: &str, days: i32) -> Result<String> {
    let sql = format!(
        "select to_char((date_trunc('day', now() at time zone '{zone}') + {days} * interval '1 day')
                          at time zone '{zone}' at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
    );
    Ok(fleet.stack.database.query(&sql).await?.trim().to_owned())
}

/// Tenant `acme` of a plan with periods of two days, since a day in `zone`.
async fn tenant(fleet: &Fleet, zone: &str, days: i32) -> Result<()> {
    let plan = json!({ "currency": "USD", "prices": [flat("10.00")], "billing_period": { "every_days": 2 } });
    tenant_since(fleet, "acme", &midnight(fleet, zone, days).await?, plan, zone).await
}

async fn move_to(fleet: &Fleet, zone: &str) -> Result<()> {
    fleet.admin.patch("/tenants/acme", &json!({ "time_zone": zone })).await?.ok().map(drop)
}

async fn preview(fleet: &Fleet, which: &str) -> Result<Value> {
    fleet.admin.get(&format!("/tenants/acme/invoices/preview?invoice={which}")).await?.ok()
}

/// By the calendar of the east the period would be over already, and what waits for the next one would wait
/// for one more.
#[tokio::test]
async fn a_period_that_has_begun_and_what_waits_for_its_end_stay() -> Result<()> {
    let fleet = start().await?;
    // It began yesterday and ends tomorrow.
    tenant(&fleet, WEST, -1).await?;
    let next = json!({ "currency": "USD", "prices": [flat("30.00")] });
    fleet.admin.put("/plans/next", &next).await?.ok()?;
    let change = json!({ "plan": "next", "starts": "next_period" });
    let planned = fleet.admin.put("/tenants/acme/plan-change", &change).await?.ok()?;
    let before = preview(&fleet, "current").await?;
    let end = midnight(&fleet, WEST, 1).await?;
    assert_eq!((&before["period_end"], &planned["starts_at"]), (&json!(end), &json!(end)));

    move_to(&fleet, EAST).await?;
    assert_eq!(fleet.admin.get("/tenants/acme/plan-change").await?.ok()?, planned);
    assert_eq!(preview(&fleet, "current").await?, before);
    assert_eq!(preview(&fleet, "next").await?, before);

    // Nor does another cadence end it at another time.
    let days = json!({ "currency": "USD", "prices": [flat("10.00")], "billing_period": { "every_days": 1 } });
    fleet.admin.put("/plans/acme-plan", &days).await?.ok()?;
    assert_eq!(fleet.admin.get("/tenants/acme/plan-change").await?.ok()?, planned);
    assert_eq!(preview(&fleet, "current").await?["period_end"], end.as_str());
    Ok(())
}

/// By the calendar of the west the period that is in grace would go on. Its invoice is made with the end that
/// it had, and so is the next one's; the one after that ends at a midnight of the west. To and fro within a
/// period changes nothing.
#[tokio::test]
async fn a_period_that_has_ended_stays_ended() -> Result<()> {
    // 30 days of grace.
    let fleet =
        Fleet::with(|stack| stack.gateways(0).variable("WEIR_INVOICE_GRACE_MS", "2592000000"))
            .await?;
    tenant(&fleet, EAST, -2).await?;
    let shown = [preview(&fleet, "next").await?, preview(&fleet, "current").await?];
    let ends = [midnight(&fleet, EAST, 0).await?, midnight(&fleet, EAST, 2).await?];
    assert_eq!(shown.each_ref().map(|invoice| &invoice["state"]), ["grace", "draft"]);
    assert_eq!(
        shown.each_ref().map(|invoice| &invoice["period_end"]),
        ends.each_ref().map(|end| end.as_str())
    );

    for zone in ["Europe/Zurich", EAST, WEST] {
        move_to(&fleet, zone).await?;
        let now = [preview(&fleet, "next").await?, preview(&fleet, "current").await?];
        assert_eq!(now, shown, "{zone}");
    }
    run(&fleet, &midnight(&fleet, WEST, 30 + 6).await?).await?;
    // From the day on which the second one ends in the east, two are counted.
    let third = format!(
        "select to_char((timestamptz '{}' at time zone '{EAST}' + interval '2 days') at time zone '{WEST}'
                        at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
        ends[1]
    );
    let third = fleet.stack.database.query(&third).await?;
    let made = invoices(&fleet, "acme").await?;
    let found: Vec<_> = made.iter().filter_map(|invoice| invoice["period_end"].as_str()).collect();
    assert_eq!(found, [&ends[0], &ends[1], third.trim()]);
    let zones = "select string_agg(time_zone, ' ' order by period_start) from invoice";
    assert_eq!(fleet.stack.database.query(zones).await?.trim(), format!("{EAST} {EAST} {WEST}"));
    Ok(())
}

/// A period that was ended early and has not begun yet is the one that plans for the next period wait for,
/// and its zone is the one that the tenant has by then.
#[tokio::test]
async fn a_period_that_is_to_come_ends_in_the_new_zone() -> Result<()> {
    let fleet = start().await?;
    tenant(&fleet, EAST, -1).await?;
    let ended = fleet.admin.post("/tenants/acme/billing-period/end", &json!({})).await?.ok()?;
    fleet.admin.put("/plans/next", &json!({ "currency": "USD" })).await?.ok()?;
    let change = json!({ "plan": "next", "starts": "next_period" });
    let planned = fleet.admin.put("/tenants/acme/plan-change", &change).await?.ok()?;
    move_to(&fleet, WEST).await?;
    let next = preview(&fleet, "next").await?;
    assert_eq!(planned["starts_at"], ended["period_end"]);
    assert_eq!(next["period_start"], ended["period_end"]);
    let local = format!(
        "select (timestamptz '{}' at time zone '{WEST}')::time",
        next["period_end"].as_str().context("no end")?
    );
    assert_eq!(fleet.stack.database.query(&local).await?.trim(), "00:00:00");
    Ok(())
}
