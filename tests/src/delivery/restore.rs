//! The database is restored from a backup that was taken before an invoice was delivered: the invoice that
//! the provider has is found, though its keys are long forgotten.

use super::*;

/// Nothing of the deliveries is known any more.
const BEFORE_DELIVERY: &str = "
    update delivery set state = 'open', step = 'customer', begun = false, key_generation = 0,
        key_used_at = null, attempts = 0, next_attempt_at = now(), provider_invoice_id = null,
        provider_number = null, payment = 'open';
    update provider_customer set customer_id = null;";
/// Nor are the invoices; those that are made again get other ids.
const BEFORE_INVOICES: &str = "
    begin; set local session_replication_role = replica;
    delete from delivery; delete from invoice_line; delete from invoice;
    update invoice_number set last = 0; update provider_customer set customer_id = null; commit;";

async fn restored<P: Provider>(fleet: &Fleet, fake: &Fake<P>, sql: &str) -> Result<()> {
    fleet.stack.control_planes[0].kill();
    claims_pass(fleet).await?;
    fake.pass_key_window();
    fleet.stack.database.query(sql).await?;
    fleet.stack.control_planes[0].restart().await
}

#[tokio::test]
async fn after_a_restore_stripe_has_one_invoice() -> Result<()> {
    let stripe = FakeStripe::start().await?;
    let fleet = with_stripe(&stripe).await?;
    customer(&fleet, "acme", "stripe").await?;
    let first = bill(&fleet, "acme", LINES).await?;
    arrives_at_stripe(&fleet, &stripe, ("acme", first)).await?;
    restored(&fleet, &stripe, BEFORE_DELIVERY).await?;
    arrives_at_stripe(&fleet, &stripe, ("acme", first)).await?;
    restored(&fleet, &stripe, BEFORE_INVOICES).await?;
    let again = bill(&fleet, "acme", LINES).await?;
    assert_ne!(again, first, "ids are not given twice here");
    arrives_at_stripe(&fleet, &stripe, ("acme", again)).await?;
    assert_eq!(stripe.with(|stripe| (stripe.customers.len(), stripe.invoices.len())), (1, 1));
    Ok(())
}

#[tokio::test]
async fn after_a_restore_chargebee_has_one_invoice() -> Result<()> {
    let chargebee = FakeChargebee::start().await?;
    let fleet = with_chargebee(&chargebee).await?;
    customer(&fleet, "acme", "chargebee").await?;
    let first = bill(&fleet, "acme", LINES).await?;
    delivery_is(&fleet, first, "done").await?;
    for sql in [BEFORE_DELIVERY, BEFORE_INVOICES] {
        restored(&fleet, &chargebee, sql).await?;
        let invoice =
            if sql == BEFORE_INVOICES { bill(&fleet, "acme", LINES).await? } else { first };
        delivery_is(&fleet, invoice, "done").await?;
        assert_eq!(chargebee.with(|chargebee| chargebee.invoices.len()), 1);
        assert_eq!(chargebee.invoices_of("acme").len(), 1);
    }
    Ok(())
}
