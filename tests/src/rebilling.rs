//! Invoices that are void and billed again: their periods get new ones, and all usage is charged once.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    harness::*,
    invoices::{amounts, invoices, run, start, tenant_since, use_tokens},
};

const MARCH: &str = "2025-03-01T00:00:00Z";

/// A Weir with two invoices at 0.01 per token: 1.00 for January, and 0.50 for February with 0.10 that
/// January got late.
async fn invoiced() -> Result<Fleet> {
    let fleet = start().await?;
    let plan = json!({ "currency": "USD", "prices": [per_unit("0.01")] });
    tenant_since(&fleet, "acme", "2025-01-01T00:00:00Z", plan, "UTC").await?;
    use_tokens(&fleet, "acme", "2025-01-20T10:00:00Z", 100).await?;
    run(&fleet, "2025-02-01T00:00:00Z").await?;
    use_tokens(&fleet, "acme", "2025-01-20T10:00:00Z", 10).await?;
    use_tokens(&fleet, "acme", "2025-02-20T10:00:00Z", 50).await?;
    run(&fleet, MARCH).await?;
    Ok(fleet)
}

/// Voids the invoice with this number.
async fn void(fleet: &Fleet, number: &str, rebill: bool) -> Result<Answer> {
    let page = fleet.admin.get("/invoices?limit=500").await?.ok()?;
    let all = page["items"].as_array().context("items")?;
    let invoice =
        all.iter().find(|invoice| invoice["number"] == number).context("no such number")?;
    let body = json!({ "reason": "Wrong usage", "rebill": rebill });
    fleet.admin.post(&format!("/invoices/{}/void", invoice["id"]), &body).await
}

/// Number, month and amounts of those that count, by period.
async fn standing(fleet: &Fleet) -> Result<Vec<String>> {
    let mut all = invoices(fleet, "acme").await?;
    all.sort_by_key(|invoice| invoice["period_start"].to_string());
    let text = |invoice: &Value| {
        let [number, start] =
            ["number", "period_start"].map(|field| invoice[field].as_str().unwrap_or_default());
        format!("{number} {} {}", &start[5..7], amounts(invoice).join(" "))
    };
    Ok(all.iter().map(text).collect())
}

/// The last invoice is billed again with what was corrected since and with what it had billed for an
/// earlier period, and then the one before it. Nothing is lost or charged twice.
#[tokio::test]
async fn periods_are_billed_again_newest_first() -> Result<()> {
    let fleet = invoiced().await?;
    let first = ["INV-000001 01 1.00 1.00", "INV-000002 02 0.50 0.10 0.60"];
    assert_eq!(standing(&fleet).await?, first);
    let older = void(&fleet, "INV-000001", true).await?;
    assert!(older.status == 409 && older.body.contains("void INV-000002 first"), "{}", older.body);

    let entries = json!([{ "quarter": "2025-02-20T10:00:00Z", "tokens": -20 }]);
    let correction = json!({ "reason": "Bug 7", "entries": entries });
    fleet.admin.put("/tenants/acme/usage-corrections/bug-7", &correction).await?.ok()?;
    let voided = void(&fleet, "INV-000002", true).await?.ok()?;
    assert_eq!(
        (&voided["state"], &voided["rebilled"], &voided["credited"]),
        (&json!("void"), &json!(true), &json!("0.60")),
    );
    let again = void(&fleet, "INV-000002", false).await?;
    assert!(again.status == 409 && again.body.contains("billed again"), "{}", again.body);
    run(&fleet, MARCH).await?;
    assert_eq!(standing(&fleet).await?, [first[0], "INV-000003 02 0.30 0.10 0.40"]);

    let rebill = ["invoice", "void", "INV-000003", "--reason", "x", "--rebill"];
    assert!(fleet.stack.weir(&rebill).await?.status.success());
    void(&fleet, "INV-000001", true).await?.ok()?;
    // The period that is open is the first one again.
    run(&fleet, "2025-02-01T00:00:00Z").await?;
    assert_eq!(standing(&fleet).await?, ["INV-000004 01 1.10 1.10"]);
    let one = ["invoice", "run", "--tenant", "acme", "--as-of", MARCH];
    assert!(fleet.stack.weir(&one).await?.status.success());
    let last = ["INV-000004 01 1.10 1.10", "INV-000005 02 0.30 0.30"];
    assert_eq!(standing(&fleet).await?, last);

    // One whose usage is forgiven closes its period for good.
    void(&fleet, "INV-000005", false).await?.ok()?;
    assert_eq!(void(&fleet, "INV-000005", true).await?.status, 409);
    assert_eq!(void(&fleet, "INV-000004", true).await?.status, 409);
    assert_eq!(run(&fleet, MARCH).await?, "0 invoices made for 1 tenant.\n");
    Ok(())
}

/// Invoices that are void while runs are under way: each period ends up with one that counts.
#[tokio::test]
async fn runs_at_the_same_time_bill_each_period_once() -> Result<()> {
    let fleet = invoiced().await?;
    let (mut month, mut rounds) = (3, 0);
    while rounds < 4 {
        let as_of = format!("2025-{:02}-01T00:00:00Z", month + 1);
        let newest = standing(&fleet).await?.pop().context("no invoice")?;
        let number = newest.split(' ').next().context("number")?;
        let (voided, one, two) =
            tokio::join!(void(&fleet, number, true), run(&fleet, &as_of), run(&fleet, &as_of));
        one?;
        two?;
        // Where a run was first, it is not the last one any more.
        let status = voided?.status;
        ensure!([200, 409].contains(&status), "{status}");
        run(&fleet, &as_of).await?;
        (month, rounds) = (month + 1, rounds + 1);
    }
    let sql = "select count(*), count(distinct period_start), sum(total_minor),
                      bool_and(period_start = coalesce(before, period_start))
               from (select *, lag(period_end) over (order by period_start) as before
                     from invoice where not rebilled) counting";
    assert_eq!(fleet.stack.database.query(sql).await?.trim(), "6|6|160|t");
    let sql = "select count(*) = max(substr(number, 5)::int) from invoice";
    assert_eq!(fleet.stack.database.query(sql).await?.trim(), "t", "numbers have gaps");
    Ok(())
}

/// A period that is billed again keeps its bounds, whatever has become of the tenant's time zone since, and
/// periods after it count their dates as before.
#[tokio::test]
async fn a_period_that_is_billed_again_keeps_its_bounds() -> Result<()> {
    let fleet = start().await?;
    let plan = json!({ "currency": "USD", "billing_period": { "every_days": 7 }, "prices": [flat("7.00")] });
    tenant_since(&fleet, "acme", "2025-01-01T00:00:00Z", plan, "Asia/Tokyo").await?;
    run(&fleet, "2025-01-08T00:00:00Z").await?;
    // There it was still December.
    let zone = json!({ "time_zone": "America/New_York" });
    fleet.admin.patch("/tenants/acme", &zone).await?.ok()?;
    fleet.stack.database.query("update former_time_zone set until = '2025-01-03'").await?;
    void(&fleet, "INV-000001", true).await?.ok()?;
    run(&fleet, "2025-01-16T00:00:00Z").await?;
    let invoices = invoices(&fleet, "acme").await?;
    let ends: Vec<_> = invoices.iter().map(|invoice| invoice["period_end"].as_str()).collect();
    assert_eq!(ends, [Some("2025-01-07T15:00:00Z"), Some("2025-01-15T05:00:00Z")]);
    Ok(())
}

/// A period that was ended early and is billed again does not wait for the end that it would have had: it
/// is over, and the next one goes on.
#[tokio::test]
async fn a_period_that_was_ended_early_stays_ended() -> Result<()> {
    let fleet = start().await?;
    let plan = json!({ "currency": "USD", "billing_period": { "every_days": 300 }, "prices": [per_unit("0.01")] });
    tenant_since(&fleet, "acme", "2025-01-01T00:00:00Z", plan, "UTC").await?;
    run(&fleet, "2026-01-01T00:00:00Z").await?;
    let end = "/tenants/acme/billing-period/end";
    let first = fleet.admin.post(end, &json!({})).await?.ok()?;
    use_tokens(&fleet, "acme", first["period_start"].as_str().context("start")?, 50).await?;
    let next = fleet.admin.get("/tenants/acme/invoices/preview?invoice=current").await?.ok()?;
    let number = first["number"].as_str().context("number")?;
    void(&fleet, number, true).await?.ok()?;

    // The grace is an hour.
    let sql = format!(
        "select to_char((timestamptz {} + interval '1 hour') at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
        first["period_end"].to_string().replace('"', "'")
    );
    let due = fleet.stack.database.query(&sql).await?;
    assert_eq!(run(&fleet, due.trim()).await?, "1 invoice made for 1 tenant.\n");
    let bounds = |invoice: &Value| [invoice["period_start"].clone(), invoice["period_end"].clone()];
    let made = invoices(&fleet, "acme").await?.pop().context("no invoice")?;
    assert_eq!((bounds(&made), amounts(&made)), (bounds(&first), vec!["0.50", "0.50"]));
    let current = fleet.admin.get("/tenants/acme/invoices/preview").await?.ok()?;
    assert_eq!(bounds(&current), bounds(&next));
    Ok(())
}
