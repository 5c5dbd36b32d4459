//! On which dates billing periods end: by the cadence of the plan, whatever else happens.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{
    harness::*,
    invoices::{amounts, invoices, run, start, tenant_since},
};

fn plan(billing_period: &Value) -> Value {
    json!({ "currency": "USD", "prices": [flat("10.00")], "billing_period": billing_period })
}

/// A new version of the tenant's plan, as if it had been made then.
async fn change(fleet: &Fleet, tenant: &str, billing_period: Value, since: &str) -> Result<()> {
    let plan = plan(&billing_period);
    let made = fleet.admin.put(&format!("/plans/{tenant}-plan"), &plan).await?.ok()?;
    assert_eq!(made.get("billing_period").unwrap_or(&json!("calendar_month")), &billing_period);
    let sql = format!(
        "update tenant_terms set starts_at = '{since}'
         where tenant_id = '{tenant}' and plan_version = {}",
        made["version"],
    );
    fleet.stack.database.query(&sql).await.map(drop)
}

/// The ends of the tenant's invoiced periods, which follow each other from its creation.
async fn ends(fleet: &Fleet, tenant: &str) -> Result<Vec<String>> {
    let invoices = invoices(fleet, tenant).await?;
    for (earlier, later) in invoices.iter().zip(invoices.iter().skip(1)) {
        assert_eq!(earlier["period_end"], later["period_start"]);
    }
    // A cadence that changes within a period leaves its price alone.
    assert!(invoices.iter().all(|invoice| amounts(invoice) == ["10.00", "10.00"]));
    let end = |invoice: &Value| invoice["period_end"].as_str().map(str::to_owned);
    invoices.iter().map(|invoice| end(invoice).context("period_end")).collect()
}

fn quoted(time: &Value) -> String {
    format!("'{}'", time.as_str().unwrap_or_default())
}

fn midnights(days: &[&str]) -> Vec<String> {
    days.iter().map(|day| format!("{day}T00:00:00Z")).collect()
}

/// Anniversaries come back to the 31st after a short month, every so many days are counted from the
/// first such period, and a change of cadence waits for the next period, over several runs.
#[tokio::test]
async fn periods_end_on_the_dates_of_their_plan() -> Result<()> {
    let fleet = start().await?;
    let anniversary = json!("anniversary");
    for tenant in ["acme", "flip"] {
        let since = "2025-01-31T10:07:00Z";
        tenant_since(&fleet, tenant, since, plan(&anniversary), "UTC").await?;
    }
    change(&fleet, "acme", json!({ "every_days": 10 }), "2025-05-10T12:00:00Z").await?;
    // Another cadence that is gone before a period starts does not count.
    change(&fleet, "flip", json!("calendar_month"), "2025-02-05T00:00:00Z").await?;
    change(&fleet, "flip", anniversary, "2025-02-20T00:00:00Z").await?;
    let month = plan(&json!("calendar_month"));
    tenant_since(&fleet, "late", "2025-01-10T00:00:00Z", month, "UTC").await?;
    change(&fleet, "late", json!({ "every_days": 45 }), "2025-02-15T00:00:00Z").await?;
    for as_of in ["2025-02-28T00:00:00Z", "2025-04-02T00:00:00Z", "2025-06-30T00:00:00Z"] {
        run(&fleet, as_of).await?;
    }

    let acme = midnights(&[
        "2025-02-28",
        "2025-03-31",
        "2025-04-30",
        "2025-05-31",
        "2025-06-10",
        "2025-06-20",
        "2025-06-30",
    ]);
    assert_eq!(ends(&fleet, "acme").await?, acme);
    let flip = midnights(&["2025-02-28", "2025-03-31", "2025-04-30", "2025-05-31", "2025-06-30"]);
    assert_eq!(ends(&fleet, "flip").await?, flip);
    let late = midnights(&["2025-02-01", "2025-03-01", "2025-04-15", "2025-05-30"]);
    assert_eq!(ends(&fleet, "late").await?, late);

    // The period of today, over all those that have no invoice yet.
    for (tenant, first, days) in [("acme", "2025-05-31", 10), ("late", "2025-03-01", 45)] {
        let path = format!("/tenants/{tenant}/invoices/preview?invoice=current");
        let draft = fleet.admin.get(&path).await?.ok()?;
        let sql = format!(
            "select (span_start - '{first}') % {days}, span_end - span_start, now() >= span_start, now() < span_end
             from (select ({}::timestamptz at time zone 'UTC')::date as span_start,
                          ({}::timestamptz at time zone 'UTC')::date as span_end) span",
            quoted(&draft["period_start"]),
            quoted(&draft["period_end"]),
        );
        let period = fleet.stack.database.query(&sql).await?;
        assert_eq!(period.trim(), format!("0|{days}|t|t"), "{tenant}: {draft}");
    }
    Ok(())
}
