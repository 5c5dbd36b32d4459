//! What the next invoice will bill is awaited, and nothing beside it.

use super::*;

/// Holds what the section says of all billed usage: how many values differ and how many are awaited.
async fn billed(fleet: &Fleet, differing: i64, awaited: i64) -> Result<Value> {
    let billed = section(fleet, "billed").await?;
    ensure!(
        (&billed["differing"], &billed["awaited"]) == (&json!(differing), &json!(awaited)),
        "{billed}"
    );
    Ok(billed)
}

/// Usage came late, and beside it something is wrong with the same period: that is named.
#[tokio::test]
async fn a_broken_sum_is_found_where_usage_is_late() -> Result<()> {
    let fleet = start().await?;
    tenant(&fleet, "acme").await?;
    used(&fleet, "acme", JANUARY, 100).await?;
    run(&fleet, "2025-02-01T00:00:00Z").await?;
    used(&fleet, "acme", JANUARY, 11).await?;
    billed(&fleet, 0, 2).await?;
    agrees(&fleet).await?;

    let sum = |tokens: i64| format!("update usage_rollup set tokens = tokens + {tokens}");
    for (more, first, difference) in [(7, "118", "18"), (-11, "100", "0")] {
        break_by(&fleet, &sum(more)).await?;
        let found = billed(&fleet, 1, 1).await?["differences"][0].clone();
        let says = ["what", "first", "second", "difference"].map(|name| found[name].as_str());
        let what = "tokens of meter \"default\", model \"\" (the next invoice bills 11)";
        assert_eq!(says, [what, first, "100", difference].map(Some));
        assert!(!reconcile(&fleet, &["--no-providers"]).await?.0);
        break_by(&fleet, &sum(-more)).await?;
    }
    run(&fleet, "2025-03-01T00:00:00Z").await?;
    billed(&fleet, 0, 0).await?;

    // What an invoice that is void had billed late waits again, as exactly as before.
    let void = json!({ "reason": "Wrong", "rebill": true });
    fleet.admin.post("/invoices/2/void", &void).await?.ok()?;
    billed(&fleet, 0, 2).await?;
    break_by(&fleet, &sum(7)).await?;
    billed(&fleet, 1, 1).await.map(drop)
}

/// An invoice was made before its last quarter hours were over: what comes to them unnoted is awaited, and
/// nothing else of that period.
#[tokio::test]
async fn a_broken_sum_is_found_where_a_period_was_ended_early() -> Result<()> {
    let fleet = start().await?;
    fleet.tenant("acme", &[], &[per_unit("0.01")]).await?;
    let quarter = "select to_char(date_bin('15 minutes', now(), 'epoch') at time zone 'UTC',
                                  'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";
    let quarter = fleet.stack.database.query(quarter).await?;
    used(&fleet, "acme", quarter.trim(), 100).await?;
    fleet.admin.post("/tenants/acme/billing-period/end", &json!({})).await?.ok()?;
    billed(&fleet, 0, 0).await?;
    used(&fleet, "acme", quarter.trim(), 5).await?;
    billed(&fleet, 0, 2).await?;
    agrees(&fleet).await?;
    break_by(&fleet, "update invoice_quantity set tokens = 98").await?;
    let found = billed(&fleet, 1, 1).await?["differences"][0].clone();
    assert_eq!((&found["first"], &found["second"]), (&json!("105"), &json!("98")));
    Ok(())
}
