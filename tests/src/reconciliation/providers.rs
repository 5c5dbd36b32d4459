//! What differs at Stripe and Chargebee.

use super::{
    quiet::{all_delivered, customer, with_providers},
    *,
};
use crate::fake::{Fault, chargebee::FakeChargebee, stripe::FakeStripe};

/// A total, a currency, a state, an invoice that is gone and one too many, at each provider; and calls
/// that fail for the moment are made again.
#[tokio::test]
async fn broken_invoices_at_the_providers_are_found() -> Result<()> {
    let (stripe, chargebee) = (FakeStripe::start().await?, FakeChargebee::start().await?);
    let fleet = with_providers(&stripe, &chargebee).await?;
    for id in ["stripe", "chargebee"] {
        customer(&fleet, id, id).await?;
        used(&fleet, id, JANUARY, 100).await?;
    }
    run(&fleet, "2025-02-01T00:00:00Z").await?;
    all_delivered(&fleet).await?;
    agrees(&fleet).await?;
    let number = |tenant: &str| {
        let sql = format!("select number from invoice where tenant_id = '{tenant}'");
        let fleet = &fleet;
        async move { anyhow::Ok(fleet.stack.database.query(&sql).await?.trim().to_owned()) }
    };
    let numbers = [number("stripe").await?, number("chargebee").await?];
    let found = async |check: &str, what: &str, [first, second]: [Option<&str>; 2]| {
        let found = differ(&fleet, &[check]).await?;
        let of = if check == "stripe" { &numbers[0] } else { &numbers[1] };
        let [found] = &found[..] else { anyhow::bail!("{found:?}") };
        ensure!(found["tenant"] == check && found["number"] == **of, "{found}");
        let values = ["what", "first", "second"].map(|name| found[name].as_str());
        ensure!(values[..2] == [Some(what), first], "{found}");
        let says = |value: &str| second.is_some_and(|second| value.contains(second));
        ensure!(values[2].map_or(second.is_none(), says), "{found}");
        Ok(())
    };

    stripe.with(|stripe| stripe.invoices[0].extra_minor = 1);
    found("stripe", "total", [Some("11.00 USD"), Some("11.01 USD")]).await?;
    stripe.with(|stripe| stripe.invoices[0].extra_minor = 0);
    chargebee.with(|chargebee| chargebee.invoices[0].extra_minor = -1_000);
    found("chargebee", "total", [Some("11.00 USD"), Some("1.00 USD")]).await?;
    chargebee.with(|chargebee| chargebee.invoices[0].extra_minor = 0);
    chargebee.with(|chargebee| chargebee.invoices[0].currency = "EUR".to_owned());
    found("chargebee", "total", [Some("11.00 USD"), Some("11.00 EUR")]).await?;
    chargebee.with(|chargebee| chargebee.invoices[0].currency = "USD".to_owned());

    stripe.with(|stripe| stripe.invoices[0].status = "paid");
    found("stripe", "state", [Some("sent"), Some("paid")]).await?;
    stripe.with(|stripe| stripe.invoices[0].status = "void");
    found("stripe", "state", [Some("sent"), Some("void")]).await?;
    stripe.with(|stripe| stripe.invoices[0].status = "open");
    chargebee.with(|chargebee| chargebee.invoices[0].status = "voided");
    found("chargebee", "state", [Some("sent"), Some("void")]).await?;
    chargebee.with(|chargebee| chargebee.invoices[0].status = "not_paid");
    agrees(&fleet).await?;

    let another = "an invoice that was not delivered from here";
    stripe.with(|stripe| {
        let mut twice = stripe.invoices[0].clone();
        twice.id = "in_twice".to_owned();
        stripe.invoices.push(twice);
    });
    found("stripe", another, [None, Some("in_twice, 11.00 USD, open")]).await?;
    stripe.with(|stripe| stripe.invoices.truncate(1));
    chargebee.with(|chargebee| {
        let mut twice = chargebee.invoices[0].clone();
        twice.id = "CB-twice".to_owned();
        chargebee.invoices.push(twice);
    });
    found("chargebee", another, [None, Some("CB-twice")]).await?;
    chargebee.with(|chargebee| chargebee.invoices.truncate(1));

    // Of others, and of the past, nothing is said.
    stripe.strike("GET invoices", Fault::TooMany(0));
    stripe.strike("GET invoices", Fault::CutBefore);
    stripe.strike("GET invoices", Fault::ErrorBefore);
    agrees(&fleet).await?;
    stripe.struck().await?;
    stripe.with(|stripe| stripe.invoices.clear());
    found("stripe", "the invoice", [Some("sent"), None]).await?;
    assert!(reconcile(&fleet, &["--tenant", "chargebee"]).await?.0);
    assert!(reconcile(&fleet, &["--from", "2025-02-01T00:00:00Z"]).await?.0);
    assert!(reconcile(&fleet, &["--no-providers"]).await?.0);
    Ok(())
}

/// A delivery that has failed is not on its way: it is named, with what the provider said. And an invoice at
/// the provider that names one of this deployment which is gone here, as after a restore, is named.
#[tokio::test]
async fn deliveries_that_failed_and_invoices_that_are_gone_are_found() -> Result<()> {
    let (stripe, chargebee) = (FakeStripe::start().await?, FakeChargebee::start().await?);
    let fleet = with_providers(&stripe, &chargebee).await?;
    customer(&fleet, "acme", "stripe").await?;
    used(&fleet, "acme", JANUARY, 100).await?;
    run(&fleet, "2025-03-01T00:00:00Z").await?;
    all_delivered(&fleet).await?;
    agrees(&fleet).await?;
    let state = |state: &str, error: &str| {
        format!("update delivery set state = '{state}', last_error = {error} where invoice_id = 2")
    };
    break_by(&fleet, &state("failed", "'Your card was declined'")).await?;
    assert_eq!(section(&fleet, "stripe").await?["awaited"], 0);
    let found = differ(&fleet, &["stripe"]).await?;
    let says = ["number", "first", "second"].map(|name| found[0][name].as_str());
    assert_eq!(says, ["INV-000002", "sent", "failed: Your card was declined"].map(Some));
    assert!(reconcile(&fleet, &["--to", "2025-02-01T00:00:00Z"]).await?.0);
    break_by(&fleet, &state("done", "null")).await?;
    agrees(&fleet).await?;

    break_by(&fleet, "delete from delivery where invoice_id = 2").await?;
    break_by(&fleet, "delete from invoice where id = 2").await?;
    let found = differ(&fleet, &["stripe", "numbers"]).await?;
    let lost = &found[1];
    // Which one it was, only its name at the provider tells.
    assert_eq!(
        (&lost["invoice"], &lost["what"]),
        (&json!(null), &json!("an invoice that is gone here"))
    );
    assert!(lost["second"].as_str().is_some_and(|text| text.contains("10.00 USD, open")), "{lost}");
    Ok(())
}

/// The database is restored from a backup from before an invoice was void and billed again. What the provider
/// has of both is told.
#[tokio::test]
async fn a_rebill_that_a_restore_has_lost_is_found() -> Result<()> {
    let (stripe, chargebee) = (FakeStripe::start().await?, FakeChargebee::start().await?);
    let fleet = with_providers(&stripe, &chargebee).await?;
    customer(&fleet, "acme", "stripe").await?;
    used(&fleet, "acme", JANUARY, 100).await?;
    run(&fleet, "2025-02-01T00:00:00Z").await?;
    all_delivered(&fleet).await?;
    let delivery =
        "select state || ' ' || step || ' ' || payment from delivery where invoice_id = 1";
    let before = fleet.stack.database.query(delivery).await?;
    let body = json!({ "reason": "Wrong", "rebill": true });
    fleet.admin.post("/invoices/1/void", &body).await?.ok()?;
    run(&fleet, "2025-02-01T00:00:00Z").await?;
    all_delivered(&fleet).await?;
    agrees(&fleet).await?;

    let before: Vec<&str> = before.trim().split(' ').collect();
    let restored = format!(
        "delete from delivery where invoice_id > 1; delete from invoice where id > 1;
         delete from invoice_line where invoice_id > 1; delete from invoice_quantity where invoice_id > 1;
         delete from invoice_terms where invoice_id > 1; delete from credit_note;
         update invoice_number set last = 1; update credit_note_number set last = 0;
         update delivery set state = '{}', step = '{}', payment = '{}';
         update invoice set state = 'sent', rebilled = false, void_reason = null",
        before[0], before[1], before[2]
    );
    break_by(&fleet, &restored).await?;
    let found = section(&fleet, "stripe").await?;
    assert_eq!(found["differing"], 2, "{found}");
    let said = |what: &str| {
        let all = found["differences"].as_array().into_iter().flatten();
        all.clone().find(|one| one["what"] == what).cloned().with_context(|| format!("{found}"))
    };
    let void = said("state")?;
    assert_eq!((&void["first"], &void["second"]), (&json!("sent"), &json!("void")));
    let lost = said("an invoice that is gone here")?;
    assert!(lost["second"].as_str().is_some_and(|text| text.contains("11.00 USD, open")), "{lost}");
    Ok(())
}
