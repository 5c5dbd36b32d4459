//! Broken rows in Postgres.

use super::*;

/// Two invoices of a tenant, by 100 tokens in January and 50 in February.
async fn invoiced() -> Result<Fleet> {
    let fleet = start().await?;
    tenant(&fleet, "acme").await?;
    used(&fleet, "acme", JANUARY, 100).await?;
    used(&fleet, "acme", FEBRUARY, 50).await?;
    run(&fleet, "2025-03-01T00:00:00Z").await?;
    agrees(&fleet).await?;
    Ok(fleet)
}

/// A sum of a quarter hour that is not what was recorded, and usage that was recorded and is in no sum.
#[tokio::test]
async fn a_broken_sum_of_usage_is_found() -> Result<()> {
    let fleet = invoiced().await?;
    let sum = |tokens: i64| {
        format!(
            "update usage_rollup set tokens = tokens + {tokens} where tenant_id = 'acme' and quarter = '{JANUARY}'"
        )
    };
    break_by(&fleet, &sum(7)).await?;
    let found = differ(&fleet, &["ledger", "billed"]).await?;
    let expected = json!({
        "tenant": "acme", "invoice": null, "number": null, "from": "2025-01-20T10:00:00Z",
        "to": "2025-01-20T10:15:00Z", "what": "tokens of meter \"default\", model \"\"",
        "first": "100", "second": "107", "difference": "-7" });
    assert_eq!(found[0], expected);
    assert_eq!((&found[1]["first"], &found[1]["second"]), (&json!("107"), &json!("100")));
    break_by(&fleet, &sum(-7)).await?;
    agrees(&fleet).await?;

    break_by(&fleet, "update usage_record set requests = 3 where tokens = 50").await?;
    let found = differ(&fleet, &["ledger"]).await?;
    assert_eq!(found[0]["what"], "requests of meter \"default\", model \"\"");
    assert_eq!((&found[0]["first"], &found[0]["second"]), (&json!("3"), &json!("1")));

    // Elsewhere all is well.
    tenant(&fleet, "other").await?;
    assert!(reconcile(&fleet, &["--tenant", "other"]).await?.0);
    assert!(reconcile(&fleet, &["--to", "2025-02-01T00:00:00Z"]).await?.0);
    assert!(!reconcile(&fleet, &["--tenant", "acme", "--from", "2025-02-01T00:00:00Z"]).await?.0);
    let path = "/reconciliation?to=2025-02-01T00:00:00Z&tenant=acme";
    let report = fleet.admin.get(path).await?.ok()?;
    assert_eq!(
        (&report["sections"][0]["compared"], &report["sections"][0]["differing"]),
        (&json!(1), &json!(0))
    );
    Ok(())
}

/// A quantity that an invoice has billed and nobody used.
#[tokio::test]
async fn a_broken_billed_quantity_is_found() -> Result<()> {
    let fleet = invoiced().await?;
    break_by(&fleet, "update invoice_quantity set tokens = 99 where tokens = 100").await?;
    let found = differ(&fleet, &["billed", "priced"]).await?;
    let expected = json!({
        "tenant": "acme", "invoice": 1, "number": "INV-000001", "from": "2025-01-01T00:00:00Z",
        "to": "2025-02-01T00:00:00Z", "what": "tokens of meter \"default\", model \"\"",
        "first": "100", "second": "99", "difference": "1" });
    assert_eq!(found[0], expected);
    break_by(&fleet, "update invoice_quantity set tokens = 100 where tokens = 99").await?;
    // A row that is lost is one of each unit.
    break_by(&fleet, "delete from invoice_quantity where tokens = 50").await?;
    let billed = section(&fleet, "billed").await?;
    assert_eq!((&billed["differing"], &billed["awaited"]), (&json!(2), &json!(0)));
    Ok(())
}

/// A line that is not what it was, a credit, a credit note, and an invoice that is gone.
#[tokio::test]
async fn broken_invoices_are_found() -> Result<()> {
    let fleet = start().await?;
    tenant(&fleet, "acme").await?;
    used(&fleet, "acme", JANUARY, 100).await?;
    let credit = json!({ "name": "wire", "kind": "prepaid", "currency": "USD", "amount": "4.00" });
    fleet.admin.post("/tenants/acme/credits", &credit).await?.ok()?;
    run(&fleet, "2025-04-01T00:00:00Z").await?;
    let note = json!({ "amount": "1.50", "reason": "Sorry" });
    fleet.admin.post("/invoices/2/credit-notes", &note).await?.ok()?;
    fleet.admin.post("/invoices/3/void", &json!({ "reason": "Wrong" })).await?.ok()?;
    agrees(&fleet).await?;

    for (checks, broken, mended, what, [first, second, difference]) in [
        (
            &["lines", "priced"][..],
            "update invoice_line set amount_minor = 999 where invoice_id = 2 and position = 1",
            "update invoice_line set amount_minor = 1000 where invoice_id = 2 and position = 1",
            "total",
            ["9.99 USD", "10.00 USD", "-0.01"],
        ),
        (
            &["credits"],
            "update credit_use set amount_minor = 300",
            "update credit_use set amount_minor = 400",
            "taken of the credit with id 1",
            ["4.00 USD", "3.00 USD", "1.00"],
        ),
        (
            &["credits"],
            "update credit set amount_minor = 399",
            "update credit set amount_minor = 400",
            "left of the credit \"wire\"",
            ["0.00 USD", "-0.01 USD", "0.01"],
        ),
        (
            &["credit_notes"],
            "update credit_note set amount_minor = 1001 where invoice_id = 2",
            "update credit_note set amount_minor = 150 where invoice_id = 2",
            "credited, at most the total",
            ["10.01 USD", "10.00 USD", "0.01"],
        ),
        (
            &["credit_notes"],
            "update credit_note set amount_minor = 999 where invoice_id = 3",
            "update credit_note set amount_minor = 1000 where invoice_id = 3",
            "credited of an invoice that is void",
            ["9.99 USD", "10.00 USD", "-0.01"],
        ),
    ] {
        break_by(&fleet, broken).await?;
        let found = &differ(&fleet, checks).await?[0];
        assert_eq!(found["what"], what);
        let values = ["first", "second", "difference"].map(|name| found[name].as_str());
        assert_eq!(values, [first, second, difference].map(Some), "{found}");
        break_by(&fleet, mended).await?;
        agrees(&fleet).await?;
    }
    break_by(&fleet, "delete from invoice where id = 2").await?;
    let found = differ(&fleet, &["periods", "numbers"]).await?;
    let values = ["number", "first", "second"].map(|name| found[0][name].as_str());
    let expected = ["INV-000001", "2025-02-01T00:00:00Z", "2025-03-01T00:00:00Z"];
    assert_eq!(values, expected.map(Some));
    let gap = ["what", "first", "second"].map(|name| found[1][name].as_str());
    assert_eq!(gap, ["the number after INV-000001", "INV-000002", "INV-000003"].map(Some));
    // The last one, too.
    break_by(&fleet, "delete from credit_note where number = 'CN-000002'").await?;
    let numbers = section(&fleet, "numbers").await?["differences"].clone();
    let gap = ["what", "first", "second"].map(|name| numbers[0][name].as_str());
    assert_eq!(gap, ["the number after CN-000001", "CN-000002", "CN-000003"].map(Some));
    Ok(())
}

/// Usage that no invoice will ever bill: it could not be stored, or was before there was the tenant.
#[tokio::test]
async fn usage_that_nobody_is_billed_for_is_found() -> Result<()> {
    let fleet = invoiced().await?;
    used(&fleet, "acme", "2024-12-31T23:45:00Z", 3).await?;
    let before = section(&fleet, "before_first").await?;
    assert_eq!(before["differing"], 2, "{before}");
    let found = &before["differences"][1];
    let what = "tokens of meter \"default\", model \"\", before the first billing period";
    assert_eq!(
        (&found["tenant"], &found["what"], &found["first"]),
        (&json!("acme"), &json!(what), &json!("3"))
    );
    assert!(!reconcile(&fleet, &["--tenant", "acme"]).await?.0);
    // It is moved by a correction.
    let entries = json!([
        { "quarter": "2024-12-31T23:45:00Z", "tokens": -3, "requests": -1 },
        { "quarter": "2025-01-01T00:00:00Z", "tokens": 3, "requests": 1 }
    ]);
    let correction = json!({ "reason": "A clock was late", "entries": entries });
    fleet.admin.put("/tenants/acme/usage-corrections/clock", &correction).await?.ok()?;
    agrees(&fleet).await?;

    let batch = "insert into usage_quarantine (gateway, worker, sequence, body, reason)
                 values ('gw', 'w', 7, '{}', 'no tenant')";
    break_by(&fleet, batch).await?;
    let found = differ(&fleet, &["quarantined"]).await?;
    let says = ["what", "second"].map(|name| found[0][name].as_str());
    assert_eq!(
        says,
        ["batch 7 of worker \"w\" of gateway \"gw\"", "put aside: no tenant"].map(Some)
    );
    Ok(())
}

/// What is asked for wrongly is refused, and an unknown tenant is none.
#[tokio::test]
async fn mistakes_in_the_scope_are_told() -> Result<()> {
    let fleet = start().await?;
    for (query, status, says) in [
        ("tenant=none", 404, "none"),
        ("from=yesterday", 400, "from"),
        ("from=2025-02-01T00:00:00Z&to=2025-02-01T00:00:00Z", 400, "to"),
        ("limit=0", 400, "1 to 500"),
        ("month=1", 400, "month"),
    ] {
        let answer = fleet.admin.get(&format!("/reconciliation?{query}")).await?;
        assert_eq!(answer.status, status, "{query}: {}", answer.body);
        assert!(answer.body.contains(says), "{query}: {}", answer.body);
    }
    let (success, text) =
        reconcile(&fleet, &["--from", "2025-02-01T00:00:00Z", "--to", "2025-01-01T00:00:00Z"])
            .await?;
    assert!(!success && text.contains("--to must be after --from"), "{text}");
    Ok(())
}
