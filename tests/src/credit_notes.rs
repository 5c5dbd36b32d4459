//! What is taken off invoices afterwards: credit notes, and invoices that are void. The invoices stay
//! as they were made.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{
    harness::*,
    invoices::{amounts, invoices, run, start, tenant_since, use_tokens},
};

/// A Weir with a tenant's invoice of January 2025, for 100 tokens at 0.01 beside a fee of 59.00.
async fn invoiced() -> Result<(Fleet, i64)> {
    let fleet = start().await?;
    let plan = json!({ "currency": "USD", "prices": [flat("59.00"), per_unit("0.01")] });
    tenant_since(&fleet, "acme", "2025-01-01T00:00:00Z", plan, "UTC").await?;
    use_tokens(&fleet, "acme", "2025-01-20T10:00:00Z", 100).await?;
    run(&fleet, "2025-02-01T00:00:00Z").await?;
    let id = invoices(&fleet, "acme").await?[0]["id"].as_i64().context("id")?;
    Ok((fleet, id))
}

async fn credit(fleet: &Fleet, invoice: i64, amount: &str) -> Result<Answer> {
    let body = json!({ "amount": amount, "reason": "An <hour> offline" });
    fleet.admin.post(&format!("/invoices/{invoice}/credit-notes"), &body).await
}

async fn void(fleet: &Fleet, invoice: i64) -> Result<Answer> {
    let body = json!({ "reason": "Wrong plan" });
    fleet.admin.post(&format!("/invoices/{invoice}/void"), &body).await
}

/// State, total and what was credited.
async fn standing(fleet: &Fleet, invoice: i64) -> Result<[String; 3]> {
    let invoice = fleet.admin.get(&format!("/invoices/{invoice}")).await?.ok()?;
    Ok(["state", "total", "credited"].map(|field| invoice[field].as_str().unwrap_or("").to_owned()))
}

/// Number and amount of all credit notes, oldest first.
async fn notes(fleet: &Fleet, query: &str) -> Result<Vec<String>> {
    let page = fleet.admin.get(&format!("/credit-notes{query}")).await?.ok()?;
    let text = |note: &Value| format!("{} {}", note["number"], note["amount"]).replace('"', "");
    Ok(page["items"].as_array().context("items")?.iter().rev().map(text).collect())
}

/// Parts of an invoice are credited up to all of it, also by several at once; voiding credits the rest.
/// Credit notes are numbered without gaps.
#[tokio::test]
async fn credits_never_exceed_the_invoice_and_voiding_takes_the_rest() -> Result<()> {
    let (fleet, id) = invoiced().await?;
    assert_eq!(standing(&fleet, id).await?, ["final", "60.00", "0.00"]);
    for amount in ["0", "-1", "0.001", "x"] {
        let answer = credit(&fleet, id, amount).await?;
        assert_eq!(answer.status, 400, "{amount}: {}", answer.body);
        assert_eq!(answer.json()?["errors"][0]["field"], "amount", "{}", answer.body);
    }
    assert_eq!(credit(&fleet, id, "60.01").await?.status, 409);
    assert_eq!(credit(&fleet, 99, "1").await?.status, 404);
    let first = credit(&fleet, id, "1.5").await?.ok()?;
    assert_eq!((&first["number"], &first["amount"]), (&json!("CN-000001"), &json!("1.50")));

    let (one, two) = tokio::try_join!(credit(&fleet, id, "40"), credit(&fleet, id, "40"))?;
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409], "only 58.50 was left: {} {}", one.body, two.body);
    assert_eq!(standing(&fleet, id).await?, ["final", "60.00", "41.50"]);

    let (one, two) = tokio::try_join!(void(&fleet, id), void(&fleet, id))?;
    assert_eq!((one.status, two.status), (200, 200));
    assert_eq!(standing(&fleet, id).await?, ["void", "60.00", "60.00"]);
    let expected = ["CN-000001 1.50", "CN-000002 40.00", "CN-000003 18.50"];
    assert_eq!(notes(&fleet, &format!("?invoice={id}&tenant=acme")).await?, expected);
    assert!(notes(&fleet, "?tenant=other").await?.is_empty());
    let answer = credit(&fleet, id, "0.01").await?;
    assert!(answer.status == 409 && answer.body.contains("INV-000001 is void"), "{}", answer.body);
    Ok(())
}

/// The usage of a void invoice stays billed: only what comes later is charged, and its period is not
/// invoiced again. What is paid can't be void, and where nothing is left there is nothing to credit.
#[tokio::test]
async fn a_void_invoice_stays_and_its_usage_is_not_charged_again() -> Result<()> {
    let (fleet, id) = invoiced().await?;
    let voided =
        fleet.stack.weir(&["invoice", "void", "INV-000001", "--reason", "Wrong plan"]).await?;
    assert_eq!(String::from_utf8(voided.stdout)?, "INV-000001 is void.\n");
    use_tokens(&fleet, "acme", "2025-01-20T10:00:00Z", 5).await?;
    run(&fleet, "2025-03-01T00:00:00Z").await?;
    let rest = invoices(&fleet, "acme").await?;
    assert_eq!(rest.iter().map(amounts).collect::<Vec<_>>(), [["59.00", "0.00", "0.05", "59.05"]]);
    assert_eq!(rest[0]["period_start"], "2025-02-01T00:00:00Z");

    let february = rest[0]["id"].as_i64().context("id")?;
    let paid = format!("update invoice set state = 'paid' where id = {february}");
    fleet.stack.database.query(&paid).await?;
    let answer = void(&fleet, february).await?;
    assert!(answer.status == 409 && answer.body.contains("is paid"), "{}", answer.body);
    assert_eq!(credit(&fleet, february, "59.05").await?.status, 201);
    assert_eq!(standing(&fleet, february).await?, ["paid", "59.05", "59.05"]);

    let free = json!({ "currency": "KWD", "prices": [per_unit("0.01")] });
    tenant_since(&fleet, "free", "2025-01-01T00:00:00Z", free, "UTC").await?;
    run(&fleet, "2025-02-01T00:00:00Z").await?;
    let nothing = invoices(&fleet, "free").await?[0]["id"].as_i64().context("id")?;
    assert_eq!(void(&fleet, nothing).await?.ok()?["void_reason"], "Wrong plan");
    assert_eq!(standing(&fleet, nothing).await?, ["void", "0.000", "0.000"]);
    assert_eq!(notes(&fleet, "").await?, ["CN-000001 60.00", "CN-000002 59.05"]);

    for (arguments, told) in [
        (["invoice", "void", "INV-000099", "--reason", "x"], "there is no invoice \"INV-000099\""),
        (["invoice", "void", "INV-000002", "--reason", "x"], "is paid"),
        (["invoice", "void", "INV-000002", "--reason", " "], "a name has"),
    ] {
        let output = fleet.stack.weir(&arguments).await?;
        let errors = String::from_utf8(output.stderr)?;
        assert!(!output.status.success() && errors.contains(told), "{arguments:?}: {errors}");
    }
    assert_eq!(standing(&fleet, id).await?, ["void", "60.00", "60.00"]);
    Ok(())
}

/// Nobody changes an invoice or a credit note, not even past the API; an invoice only moves on.
#[tokio::test]
async fn what_is_made_is_never_changed() -> Result<()> {
    let (fleet, id) = invoiced().await?;
    credit(&fleet, id, "1").await?.ok()?;
    for sql in [
        "update invoice set total_minor = 1",
        "update invoice set number = 'INV-7'",
        "update invoice set period_end = period_end + interval '15 minutes'",
        "update invoice set state = 'grace'",
        "update invoice set state = 'paid'; update invoice set state = 'sent'",
        "update invoice set state = 'paid'; update invoice set state = 'void'",
        "update invoice set state = 'void'; update invoice set state = 'final'",
        "delete from invoice",
        "update invoice_line set amount_minor = 1",
        "delete from invoice_line",
        "update invoice_quantity set tokens = 1",
        "delete from invoice_quantity",
        "update invoice_terms set plan_version = 1",
        "update credit_note set amount_minor = 1",
        "delete from credit_note",
    ] {
        assert!(
            fleet.stack.database.query(&format!("begin; {sql}; commit")).await.is_err(),
            "{sql}"
        );
    }
    assert_eq!(standing(&fleet, id).await?, ["final", "60.00", "1.00"]);
    Ok(())
}

/// A credit note is printed with its invoice's parties, and the portal says what was credited.
#[tokio::test]
async fn credit_notes_are_printed() -> Result<()> {
    let (fleet, id) = invoiced().await?;
    let note = credit(&fleet, id, "12.5").await?.ok()?;
    let path = format!("/credit-notes/{}", note["id"]);
    assert_eq!(fleet.admin.get(&path).await?.ok()?, note);
    assert_eq!((&note["invoice"], &note["invoice_number"]), (&json!(id), &json!("INV-000001")));
    let page = fleet.admin.get(&format!("{path}?format=html")).await?;
    for text in [
        "Credit note",
        "CN-000001",
        "INV-000001",
        "acme",
        "An &#60;hour&#62; offline",
        "id=\"total\">12.50<",
    ] {
        assert!(page.body.contains(text), "{text} in {}", page.body);
    }
    let pdf = fleet.admin.request(reqwest::Method::GET, &path).header("accept", "application/pdf");
    let pdf = pdf.send().await?;
    assert_eq!(pdf.headers()["content-disposition"], "inline; filename=\"CN-000001.pdf\"");
    assert!(pdf.bytes().await?.starts_with(b"%PDF-1."));
    assert_eq!(fleet.admin.get("/credit-notes/99?format=pdf").await?.status, 404);
    let (browser, ..) = crate::portal::signed_in(&fleet, "acme").await?;
    assert!(browser.get("").await?.body.contains("12.50 USD credited"));
    Ok(())
}
