//! Credit notes get to the provider of their invoice, each once.

use super::*;
use crate::fake::Fault;

pub(super) async fn credit(fleet: &Fleet, invoice: i64, amount: &str) -> Result<()> {
    let body = json!({ "amount": amount, "reason": "An hour offline" });
    fleet.admin.post(&format!("/invoices/{invoice}/credit-notes"), &body).await?.ok().map(drop)
}

/// Waits until the provider has all credit notes.
pub(super) async fn all_there(fleet: &Fleet) -> Result<()> {
    wait_for("all credit notes to be delivered", SOON, async || {
        let sql = "select count(*), (select count(*) from delivery where state <> 'done') from credit_note_due";
        let open = fleet.stack.database.query(sql).await?;
        ensure!(open.trim() == "0|0", "not yet: {}", open.trim());
        Ok(Some(()))
    })
    .await
}

/// Amount and memo of those at Stripe, oldest first.
fn at_stripe(stripe: &FakeStripe) -> Vec<(i64, String)> {
    let of = |note: &_| -> (i64, String) {
        let note: &crate::fake::stripe::CreditNote = note;
        (note.amount_minor, note.memo.clone())
    };
    stripe.with(|stripe| stripe.credit_notes.iter().map(of).collect())
}

/// At Stripe: before the invoice is there, when it is, and when it is paid; the last one takes off all
/// that is left. What was paid comes back as a credit of the customer.
#[tokio::test]
async fn stripe_takes_off_what_credit_notes_take_off() -> Result<()> {
    let stripe = FakeStripe::start().await?;
    let fleet = with_stripe(&stripe).await?;
    customer(&fleet, "acme", "stripe").await?;
    stripe.strike("POST invoices/finalize", Fault::Slow(std::time::Duration::from_millis(800)));
    let early = bill(&fleet, "acme", LINES).await?;
    credit(&fleet, early, "1.50").await?;
    delivery_is(&fleet, early, "done").await?;
    all_there(&fleet).await?;
    let mut expected = vec![(150, "CN-000001: An hour offline".to_owned())];
    assert_eq!(at_stripe(&stripe), expected);
    assert_eq!(stripe.invoices_of("acme")[0].sent, 1);

    credit(&fleet, early, "8.50").await?;
    credit(&fleet, early, "0.01").await?;
    all_there(&fleet).await?;
    let memo = |number: u32| format!("CN-{number:06}: An hour offline");
    expected.extend([(850, memo(2)), (1, memo(3))]);
    assert_eq!(at_stripe(&stripe), expected);
    assert_eq!(invoice_state(&fleet, early).await?, "sent");
    let section = async || {
        let report = fleet.admin.get("/reconciliation?providers=true&tenant=acme").await?.ok()?;
        let sections = report["sections"].as_array().cloned().unwrap_or_default();
        sections.into_iter().find(|one| one["check"] == "stripe").context("no section")
    };
    assert_eq!(section().await?["differing"], 0, "{}", section().await?);
    stripe.with(|stripe| stripe.invoices[0].credited_before_minor -= 1);
    let wrong = section().await?["differences"][0].clone();
    assert_eq!((&wrong["what"], &wrong["difference"]), (&json!("credited"), &json!("0.01")));
    stripe.with(|stripe| stripe.invoices[0].credited_before_minor += 1);

    // All that is left: then it is paid.
    credit(&fleet, early, "39.99").await?;
    all_there(&fleet).await?;
    assert_eq!(invoice_state(&fleet, early).await?, "paid");
    assert_eq!(section().await?["differing"], 0, "{}", section().await?);

    let paid = bill(&fleet, "acme", LINES).await?;
    delivery_is(&fleet, paid, "done").await?;
    stripe.with(|stripe| stripe.invoices[1].status = "paid");
    credit(&fleet, paid, "7.00").await?;
    all_there(&fleet).await?;
    assert_eq!(stripe.with(|stripe| stripe.customers[0].balance_minor), -700);

    // One that is void is void there, and has no credit note.
    let void = bill(&fleet, "acme", LINES).await?;
    delivery_is(&fleet, void, "done").await?;
    fleet
        .admin
        .post(&format!("/invoices/{void}/void"), &json!({ "reason": "Wrong" }))
        .await?
        .ok()?;
    all_there(&fleet).await?;
    assert_eq!(stripe.with(|stripe| stripe.invoices[2].status), "void");
    assert_eq!(at_stripe(&stripe).len(), 5);
    Ok(())
}

/// At Chargebee: an adjustment of what is to be paid, and money to give back of what was paid.
#[tokio::test]
async fn chargebee_takes_off_what_credit_notes_take_off() -> Result<()> {
    let chargebee = FakeChargebee::start().await?;
    let fleet = with_chargebee(&chargebee).await?;
    customer(&fleet, "acme", "chargebee").await?;
    let invoice = bill(&fleet, "acme", LINES).await?;
    credit(&fleet, invoice, "1.50").await?;
    delivery_is(&fleet, invoice, "done").await?;
    all_there(&fleet).await?;
    chargebee.with(|chargebee| chargebee.invoices[0].status = "paid");
    chargebee.strike("POST credit_notes/create", Fault::SilentAfter);
    credit(&fleet, invoice, "2.00").await?;
    all_there(&fleet).await?;
    let made = chargebee.with(|chargebee| {
        let notes = chargebee.credit_notes.iter();
        notes.map(|note| (note.is_adjustment, note.amount_minor)).collect::<Vec<_>>()
    });
    assert_eq!(made, [(true, 150), (false, 200)]);
    Ok(())
}

/// Killed before and after the call, with the keys remembered and forgotten: each credit note is there
/// once. One that is refused stops, and goes on when it is retried.
#[tokio::test]
async fn each_credit_note_is_there_once() -> Result<()> {
    let stripe = FakeStripe::start().await?;
    let fleet = with_stripe(&stripe).await?;
    customer(&fleet, "acme", "stripe").await?;
    let invoice = bill(&fleet, "acme", LINES).await?;
    delivery_is(&fleet, invoice, "done").await?;
    let mut amounts = Vec::new();
    for fault in [Fault::HoldBefore, Fault::SilentAfter] {
        for forgotten in [false, true] {
            stripe.strike("POST credit_notes", fault);
            credit(&fleet, invoice, "1.00").await?;
            stripe.struck().await?;
            fleet.stack.control_planes[0].kill();
            claims_pass(&fleet).await?;
            if forgotten {
                key_window_passes(&fleet, &stripe).await?;
            }
            fleet.stack.control_planes[0].restart().await?;
            all_there(&fleet).await?;
            amounts.push(100);
            let there: Vec<i64> =
                at_stripe(&stripe).into_iter().map(|(amount, _)| amount).collect();
            ensure!(there == amounts, "{there:?} after {fault:?}, keys forgotten: {forgotten}");
        }
    }
    for fault in [Fault::ErrorAfter, Fault::CutAfter, Fault::TooMany(0), Fault::Conflict] {
        stripe.strike("POST credit_notes", fault);
        credit(&fleet, invoice, "1.00").await?;
        all_there(&fleet).await?;
        amounts.push(100);
        ensure!(at_stripe(&stripe).len() == amounts.len(), "{fault:?}");
    }
    stripe.strike("POST credit_notes", Fault::Refused);
    credit(&fleet, invoice, "1.00").await?;
    let stopped = delivery_is(&fleet, invoice, "failed").await?;
    let error = stopped["last_error"].as_str().unwrap_or("");
    assert!(error.contains("stopped at the step credit"), "{error}");
    fleet.admin.post(&format!("/deliveries/{invoice}/retry"), &json!({})).await?.ok()?;
    all_there(&fleet).await?;
    assert_eq!((at_stripe(&stripe).len(), stripe.invoices_of("acme")[0].sent), (9, 1));
    Ok(())
}
