//! Invoices that are not paid in time.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{harness::*, invoices::start};

async fn state(fleet: &Fleet, id: &Value) -> Result<Value> {
    Ok(fleet.admin.get(&format!("/invoices/{id}")).await?.ok()?["state"].take())
}

/// The ids of the invoices that are listed in this state, newest first.
async fn listed(fleet: &Fleet, state: &str) -> Result<Vec<Value>> {
    let page = fleet.admin.get(&format!("/invoices?state={state}")).await?.ok()?;
    let items = page["items"].as_array().context("items")?;
    Ok(items.iter().map(|invoice| invoice["id"].clone()).collect())
}

/// An invoice is overdue while its due date has passed and something of it is left to be paid, whether it
/// is final or sent; it is shown and listed as that, and as nothing else.
#[tokio::test]
async fn what_is_left_to_be_paid_after_the_due_date_is_overdue() -> Result<()> {
    let fleet = start().await?;
    let nothing = json!({});
    let mut ids = Vec::new();
    // The first has time; of the last nothing is to be paid.
    for (tenant, days, price) in [
        ("in-time", 30, "5.00"),
        ("manual", 0, "5.00"),
        ("credited", 0, "5.00"),
        ("sent", 0, "5.00"),
        ("void", 0, "5.00"),
        ("free", 0, "0.00"),
    ] {
        let settings = json!({ "seller": "", "note": "", "payment_days": days });
        fleet.admin.put("/invoice-settings", &settings).await?.ok()?;
        fleet.tenant(tenant, &[], &[flat(price)]).await?;
        let end = format!("/tenants/{tenant}/billing-period/end");
        ids.push(fleet.admin.post(&end, &nothing).await?.ok()?["id"].take());
    }
    let [in_time, manual, credited, sent, void, free] = &ids[..] else { unreachable!() };
    let to_sent = format!("update invoice set state = 'sent' where id = {sent}");
    fleet.stack.database.query(&to_sent).await?;
    let overdue = [void, sent, credited, manual].map(Clone::clone);
    assert_eq!(listed(&fleet, "overdue").await?, overdue);
    assert_eq!(listed(&fleet, "final").await?, [free.clone(), in_time.clone()]);
    assert_eq!(listed(&fleet, "sent").await?, [Value::Null; 0]);
    assert_eq!(state(&fleet, sent).await?, "overdue");
    let invoice = fleet.admin.get(&format!("/invoices/{manual}")).await?.ok()?;
    assert_eq!(
        (&invoice["state"], &invoice["due_at"]),
        (&json!("overdue"), &invoice["created_at"])
    );
    let printed = fleet.admin.get(&format!("/invoices/{manual}?format=html")).await?.body;
    assert!(printed.contains("Overdue"), "{printed}");
    let (browser, ..) = crate::portal::signed_in(&fleet, "manual").await?;
    let page = browser.get("").await?.body;
    assert!(page.contains(">overdue<") && page.contains("was due by"), "{page}");
    let (browser, ..) = crate::portal::signed_in(&fleet, "in-time").await?;
    assert!(browser.get("").await?.body.contains(">final<"));

    let credit = async |amount: &str| {
        let body = json!({ "amount": amount, "reason": "Goodwill" });
        fleet.admin.post(&format!("/invoices/{credited}/credit-notes"), &body).await?.ok()
    };
    credit("4.99").await?;
    assert_eq!(state(&fleet, credited).await?, "overdue");
    credit("0.01").await?;
    assert_eq!(state(&fleet, credited).await?, "final");
    let paid = fleet.admin.post(&format!("/invoices/{manual}/paid"), &nothing).await?;
    assert_eq!(paid.ok()?["state"], "paid");
    assert_eq!(fleet.admin.post(&format!("/invoices/{manual}/paid"), &nothing).await?.status, 200);
    let wrong = json!({ "reason": "Wrong" });
    fleet.admin.post(&format!("/invoices/{void}/void"), &wrong).await?.ok()?;
    let refused = fleet.admin.post(&format!("/invoices/{void}/paid"), &nothing).await?;
    assert!(refused.status == 409 && refused.body.contains("is void"), "{}", refused.body);
    assert_eq!(listed(&fleet, "overdue").await?, std::slice::from_ref(sent));
    assert_eq!(fleet.admin.post("/invoices/999/paid", &nothing).await?.status, 404);
    Ok(())
}
