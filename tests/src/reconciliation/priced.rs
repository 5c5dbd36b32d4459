//! Lines that are not what the stored quantities cost.

use super::*;

/// 100 tokens in January, 10 more that came late, and 50 in February.
async fn invoiced() -> Result<Fleet> {
    let fleet = start().await?;
    let plan = json!({ "currency": "USD", "discount_percent": "10", "minimum": "12.00",
                       "prices": [flat("10.00"), per_unit("0.01")] });
    tenant_since(&fleet, "acme", "2025-01-01T00:00:00Z", plan, "UTC").await?;
    used(&fleet, "acme", JANUARY, 400).await?;
    run(&fleet, "2025-02-01T00:00:00Z").await?;
    used(&fleet, "acme", JANUARY, 100).await?;
    used(&fleet, "acme", FEBRUARY, 50).await?;
    run(&fleet, "2025-03-01T00:00:00Z").await?;
    agrees(&fleet).await?;
    Ok(fleet)
}

/// Each line is compared with the quantities that it bills, also where the total still adds up.
#[tokio::test]
async fn a_line_that_its_quantities_do_not_give_is_found() -> Result<()> {
    let fleet = invoiced().await?;
    let moved = |by: i64| {
        format!("update invoice_line set amount_minor = amount_minor + {by} where invoice_id = 2 and adjusts_invoice_id = 1;
                 update invoice set total_minor = total_minor + {by} where id = 2")
    };
    let line =
        |set: &str| format!("update invoice_line set {set} where invoice_id = 1 and position = 2");
    for (broken, mended, what, values) in [
        (
            line("quantity = 401"),
            line("quantity = 400"),
            "line 2 (Tokens): quantity",
            ["401", "400", "1"],
        ),
        (
            "update invoice_quantity set tokens = 399, requests = 1 where invoice_id = 1"
                .to_owned(),
            "update invoice_quantity set tokens = 400 where invoice_id = 1".to_owned(),
            "line 2 (Tokens): quantity",
            ["400", "399", "1"],
        ),
        (
            moved(7),
            moved(-7),
            "Late or corrected usage of 1 Jan 2025, 00:00 to 1 Feb 2025, 00:00, of the invoice with id 1: amount",
            ["0.97 USD", "0.90 USD", "0.07"],
        ),
    ] {
        break_by(&fleet, &broken).await?;
        let priced = section(&fleet, "priced").await?;
        let found = priced["differences"].as_array().context("differences")?;
        let said =
            found.iter().find(|one| one["what"] == what).with_context(|| format!("{priced}"))?;
        let said = ["first", "second", "difference"].map(|name| said[name].as_str());
        assert_eq!(said, values.map(Some), "{what}");
        let (success, text) = reconcile(&fleet, &[]).await?;
        ensure!(!success && text.contains(what), "{text}");
        break_by(&fleet, &mended).await?;
        agrees(&fleet).await?;
    }
    // From one line to another: the total is what it was.
    break_by(
        &fleet,
        "update invoice_line set amount_minor = amount_minor + case position when 1 then 5 else -5 end
         where invoice_id = 1 and position <= 2",
    )
    .await?;
    let priced = section(&fleet, "priced").await?;
    assert_eq!((&priced["compared"], &priced["differing"]), (&json!(2), &json!(2)), "{priced}");
    assert_eq!(section(&fleet, "lines").await?["differing"], 0);
    Ok(())
}

/// A line that is gone, with its amount: the total adds up, and the quantities say what is missing.
#[tokio::test]
async fn a_line_that_is_gone_is_found() -> Result<()> {
    let fleet = invoiced().await?;
    break_by(&fleet, "delete from invoice_line where invoice_id = 2 and adjusts_invoice_id = 1")
        .await?;
    break_by(&fleet, "update invoice set total_minor = total_minor - 90 where id = 2").await?;
    let found = differ(&fleet, &["priced"]).await?;
    let what = "late usage, of the invoice with id 1: amount";
    let values = [&found[0]["what"], &found[0]["first"], &found[0]["second"]];
    assert_eq!(values, [&json!(what), &json!(null), &json!("0.90 USD")]);
    Ok(())
}
