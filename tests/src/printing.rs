//! Invoices for people: pages to print and PDFs, with the parties and the amounts of the invoice.

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::json;

use crate::{
    harness::*,
    invoices::{invoices, run, start, tenant_since, use_tokens},
    portal::{Browser, signed_in},
};

/// A page has who bills and who is billed, each line, and the total in the currency's own digits; what
/// is changed later does not change it. The PDF comes from the same sheet.
#[tokio::test]
async fn a_printed_invoice_says_what_the_invoice_says() -> Result<()> {
    let fleet = start().await?;
    let settings = json!({ "seller": "Weir & Sons\n1 River Street", "note": "Pay to <IBAN>", "payment_days": 14 });
    fleet.admin.put("/invoice-settings", &settings).await?.ok()?;
    for (currency, fee, total) in
        [("USD", "1234567.50", "1,234,567.62"), ("JPY", "49", "49"), ("KWD", "49.505", "49.628")]
    {
        let plan = json!({ "currency": currency, "prices": [flat(fee), per_unit("0.0001")] });
        tenant_since(&fleet, currency, "2025-01-01T00:00:00Z", plan, "Europe/Zurich").await?;
        let buyer =
            json!({ "name": format!("{currency} <Ltd>"), "billing_address": "Łódź\nTax 42" });
        fleet.admin.patch(&format!("/tenants/{currency}"), &buyer).await?.ok()?;
        use_tokens(&fleet, currency, "2025-01-02T00:00:00Z", 1_234).await?;
        let draft = format!("/tenants/{currency}/invoices/preview?format=html");
        let draft = fleet.admin.get(&draft).await?.body;
        assert!(draft.contains("Draft invoice") && draft.contains("Łódź"), "{draft}");
        run(&fleet, "2025-01-31T23:00:00Z").await?;
        let invoice = invoices(&fleet, currency).await?.remove(0);
        let path = format!("/invoices/{}", invoice["id"]);
        let number = invoice["number"].as_str().context("number")?;

        let page = fleet.admin.get(&format!("{path}?format=html")).await?;
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
        assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
        let escaped = format!("{currency} &#60;Ltd&#62;");
        for text in [
            "Weir &#38; Sons",
            "1 River Street",
            "Pay to &#60;IBAN&#62;",
            &escaped,
            "Łódź",
            "Tax 42",
            number,
            "1,234 tokens",
            "0.0001",
            "1 Jan 2025, 01:00 to 1 Feb 2025, 00:00",
            &format!("id=\"total\">{total}<"),
        ] {
            assert!(page.body.contains(text), "{text} in {}", page.body);
        }
        assert_eq!(page.body.matches("<tr class=\"line\">").count(), 2);

        let pdf = fleet.admin.request(Method::GET, &path).header("accept", "application/pdf");
        let pdf = pdf.send().await?;
        assert_eq!(pdf.headers()["content-type"], "application/pdf");
        let inline = format!("inline; filename=\"{number}.pdf\"");
        assert_eq!(pdf.headers()["content-disposition"], inline.as_str());
        let file = pdf.bytes().await?;
        assert!(file.starts_with(b"%PDF-1.") && file.len() > 2_000, "{} bytes", file.len());
        let moved = json!({ "name": "Other", "billing_address": "" });
        fleet.admin.patch(&format!("/tenants/{currency}"), &moved).await?.ok()?;
        assert_eq!(fleet.admin.get(&format!("{path}?format=html")).await?.body, page.body);
    }
    for (path, body) in [
        ("/invoice-settings", json!({ "seller": "", "note": "", "payment_days": -1 })),
        ("/invoice-settings", json!({ "seller": "a\u{0}b", "note": "", "payment_days": 1 })),
        ("/invoice-settings", json!({ "seller": "x\n".repeat(21), "note": "", "payment_days": 1 })),
    ] {
        assert_eq!(fleet.admin.put(path, &body).await?.status, 400, "{body}");
    }
    assert_eq!(fleet.admin.get("/invoice-settings").await?.ok()?, settings);
    assert_eq!(fleet.admin.get("/invoices/1?format=docx").await?.status, 400);
    assert_eq!(fleet.admin.get("/invoices/99?format=pdf").await?.status, 404);
    Ok(())
}

/// Tiers are told by how they charge, and usage of an earlier period by the times of the tenant's zone.
#[tokio::test]
async fn lines_say_how_their_amounts_come_about() -> Result<()> {
    let fleet = start().await?;
    let tiers =
        json!([{ "up_to": 1_000, "unit_price": "0.02" }, { "up_to": null, "unit_price": "0.01" }]);
    let tiered = |kind: &str| json!({ "name": kind, "charge": { "kind": kind, "unit": "tokens", "included": 0, "tiers": tiers } });
    let plan = json!({ "currency": "USD", "prices": [tiered("volume")] });
    tenant_since(&fleet, "acme", "2024-12-31T23:00:00Z", plan, "Europe/Zurich").await?;
    run(&fleet, "2025-02-01T00:00:00Z").await?;
    use_tokens(&fleet, "acme", "2025-01-02T00:00:00Z", 50).await?;
    let mut chat = tiered("graduated");
    chat["meter"] = json!("chat");
    let plan = json!({ "currency": "USD", "prices": [tiered("volume"), chat] });
    fleet.admin.put("/plans/acme-plan", &plan).await?.ok()?;
    let sql = "update tenant_terms set starts_at = '2025-01-31T23:00:00Z' where plan_version = 2";
    fleet.stack.database.query(sql).await?;
    run(&fleet, "2025-03-01T00:00:00Z").await?;
    let page = fleet.admin.get("/invoices/2?format=html").await?.body;
    for text in [
        "all of them at 0.02 up to 1,000, 0.01 for more",
        ">0.02 up to 1,000, 0.01 for each further one",
        "Late or corrected usage of 1 Jan 2025, 00:00 to 1 Feb 2025, 00:00",
    ] {
        assert!(page.contains(text), "{text} in {page}");
    }
    Ok(())
}

/// Tenants get their own invoices in the portal, and nobody else's.
#[tokio::test]
async fn tenants_print_their_own_invoices() -> Result<()> {
    let fleet = start().await?;
    for tenant in ["acme", "other"] {
        let plan = json!({ "currency": "USD", "prices": [per_unit("0.01")] });
        tenant_since(&fleet, tenant, "2025-01-01T00:00:00Z", plan, "UTC").await?;
        use_tokens(&fleet, tenant, "2025-01-02T00:00:00Z", 1_234).await?;
    }
    run(&fleet, "2025-02-01T00:00:00Z").await?;
    let own = &invoices(&fleet, "acme").await?[0]["id"];
    let (browser, ..) = signed_in(&fleet, "acme").await?;
    let page = browser.get("").await?.body;
    for link in [
        format!("href=\"/portal/invoices/{own}\""),
        format!("href=\"/portal/invoices/{own}?format=pdf\""),
    ] {
        assert!(page.contains(&link), "{link} in {page}");
    }
    let html = browser.get(&format!("/invoices/{own}")).await?;
    assert!(html.status == 200 && html.body.contains("12.34"), "{}", html.body);
    assert_eq!(html.header("cache-control"), "no-store");
    let pdf = browser.get(&format!("/invoices/{own}?format=pdf")).await?;
    assert_eq!((pdf.status, pdf.header("content-type")), (200, "application/pdf"));

    let foreign = &invoices(&fleet, "other").await?[0]["id"];
    let stranger = Browser::new(&fleet)?;
    for path in ["", "?format=pdf"] {
        let answer = browser.get(&format!("/invoices/{foreign}{path}")).await?;
        assert_eq!(answer.status, 404, "{path}: {}", answer.body);
        let answer = stranger.get(&format!("/invoices/{own}{path}")).await?;
        assert_eq!((answer.status, answer.header("location")), (303, "/portal"), "{path}");
    }
    Ok(())
}
