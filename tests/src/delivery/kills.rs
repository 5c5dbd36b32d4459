//! The control plane is killed at every call that it makes, before and after it is carried out.

use anyhow::{Context, Result, ensure};

use super::*;
use crate::fake::Fault;

/// Every call of a delivery to Stripe, in their order.
const CALLS: &[&str] = &[
    "POST customers",
    "POST invoices",
    "POST invoices/add_lines",
    "GET invoices/id",
    "POST invoices/finalize",
    "POST invoices/send",
];

/// Killed where the provider has not carried a call out, or has and nobody heard of it: the next
/// process takes over, and there is one invoice with the right lines.
#[tokio::test]
async fn killed_at_any_call_there_is_one_invoice() -> Result<()> {
    killed_at_every_call(false).await
}

/// The same when the provider has forgotten all keys before the next process starts.
#[tokio::test]
async fn killed_and_found_again_when_the_keys_are_forgotten() -> Result<()> {
    killed_at_every_call(true).await
}

async fn killed_at_every_call(keys_forgotten: bool) -> Result<()> {
    let stripe = FakeStripe::start().await?;
    let fleet = with_stripe(&stripe).await?;
    for (number, call) in CALLS.iter().enumerate() {
        for (moment, fault) in [("before", Fault::HoldBefore), ("after", Fault::SilentAfter)] {
            let tenant = format!("t{number}-{moment}");
            let context = || format!("killed {moment} {call}");
            customer(&fleet, &tenant, "stripe").await?;
            stripe.strike(call, fault);
            let invoice = bill(&fleet, &tenant, LINES).await?;
            stripe.struck().await.with_context(context)?;
            fleet.stack.control_planes[0].kill();
            claims_pass(&fleet).await?;
            if keys_forgotten {
                key_window_passes(&fleet, &stripe).await?;
            }
            fleet.stack.control_planes[0].restart().await?;
            let found = arrives_at_stripe(&fleet, &stripe, (&tenant, invoice)).await;
            let found = found.with_context(context)?;
            // Nobody can see whether an invoice was sent once the key is forgotten: then twice.
            let again = keys_forgotten && *call == "POST invoices/send" && moment == "after";
            let sent = if again { 2 } else { 1 };
            ensure!(found.sent == sent, "sent {} times, {}", found.sent, context());
        }
    }
    let customers = stripe.with(|stripe| stripe.customers.len());
    assert_eq!(customers, CALLS.len() * 2, "one customer for each tenant");
    Ok(())
}

/// Two replicas share the work, and each invoice is delivered by one; what one of them had in hand when
/// it was killed, the other takes over when its claim has passed.
#[tokio::test]
async fn another_replica_takes_over() -> Result<()> {
    let stripe = FakeStripe::start().await?;
    let fleet = with_stripe_and(&stripe, |stack| stack.control_planes(2)).await?;
    let mut invoices = Vec::new();
    for number in 0..12 {
        let tenant = format!("t{number}");
        customer(&fleet, &tenant, "stripe").await?;
        invoices.push((tenant.clone(), bill(&fleet, &tenant, LINES).await?));
    }
    for (tenant, invoice) in &invoices {
        let found = arrives_at_stripe(&fleet, &stripe, (tenant, *invoice)).await?;
        ensure!(found.sent == 1, "sent {} times", found.sent);
    }
    customer(&fleet, "held", "stripe").await?;
    let (first, second) = (&fleet.stack.control_planes[0], &fleet.stack.control_planes[1]);
    first.kill();
    stripe.strike("POST invoices/finalize", Fault::HoldBefore);
    let invoice = bill(&fleet, "held", LINES).await?;
    stripe.struck().await?;
    second.kill();
    first.restart().await?;
    arrives_at_stripe(&fleet, &stripe, ("held", invoice)).await?;
    let claims = "select claim from provider_customer where tenant_id = 'held'";
    assert_eq!(fleet.stack.database.query(claims).await?.trim(), "2", "each had it once");
    Ok(())
}

/// Told to stop, it ends the step that is under way, begins no other, and lets go of the customer.
// To stop it blocks this thread; the stand-in needs another.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_under_way_is_ended_before_it_stops() -> Result<()> {
    let stripe = FakeStripe::start().await?;
    let fleet = with_stripe(&stripe).await?;
    customer(&fleet, "acme", "stripe").await?;
    stripe.strike("POST invoices", Fault::Slow(std::time::Duration::from_millis(800)));
    let invoice = bill(&fleet, "acme", LINES).await?;
    wait_for("the call to be under way", SOON, async || {
        let calls = stripe.calls();
        Ok(calls.iter().any(|call| call.endpoint == "POST invoices").then_some(()))
    })
    .await?;
    fleet.stack.control_planes[0].stop();
    let sql = "select state, step, begun, claimed_until <= now() from delivery, provider_customer";
    assert_eq!(fleet.stack.database.query(sql).await?.trim(), "open|lines|f|t");
    assert_eq!(stripe.calls().len(), 4);
    fleet.stack.control_planes[0].restart().await?;
    arrives_at_stripe(&fleet, &stripe, ("acme", invoice)).await?;
    assert_eq!(stripe.calls().len(), 8, "nothing was looked for again or repeated");
    Ok(())
}

/// The four ways to be killed at a call.
const WAYS: [(Fault, bool); 4] = [
    (Fault::HoldBefore, false),
    (Fault::HoldBefore, true),
    (Fault::SilentAfter, false),
    (Fault::SilentAfter, true),
];

/// Kills the control plane at this call, which `begin` leads to, and starts it again.
async fn killed_at<P: Provider>(
    (fleet, fake): (&Fleet, &Fake<P>),
    call: &str,
    (fault, keys_forgotten): (Fault, bool),
    begin: impl Future<Output = Result<()>>,
) -> Result<()> {
    fake.strike(call, fault);
    begin.await?;
    fake.struck().await.with_context(|| format!("{fault:?} of {call}"))?;
    fleet.stack.control_planes[0].kill();
    claims_pass(fleet).await?;
    if keys_forgotten {
        key_window_passes(fleet, fake).await?;
    }
    fleet.stack.control_planes[0].restart().await
}

async fn void(fleet: &Fleet, invoice: i64) -> Result<()> {
    let sql = format!("update invoice set state = 'void' where id = {invoice}");
    fleet.stack.database.query(&sql).await.map(drop)
}

async fn killed_while_voiding(call: &str, is_draft: bool) -> Result<()> {
    let stripe = FakeStripe::start().await?;
    let fleet = with_stripe(&stripe).await?;
    for (number, way) in WAYS.into_iter().enumerate() {
        let tenant = format!("t{number}");
        customer(&fleet, &tenant, "stripe").await?;
        if is_draft {
            stripe.strike("POST invoices/finalize", Fault::Refused);
        }
        let invoice = bill(&fleet, &tenant, LINES).await?;
        delivery_is(&fleet, invoice, if is_draft { "failed" } else { "done" }).await?;
        killed_at((&fleet, &stripe), call, way, void(&fleet, invoice)).await?;
        delivery_is(&fleet, invoice, "done").await.with_context(|| format!("{way:?}"))?;
        ensure!(stripe.invoices_of(&tenant).is_empty(), "{way:?}");
    }
    Ok(())
}

#[tokio::test]
async fn killed_while_an_invoice_is_voided_at_stripe() -> Result<()> {
    killed_while_voiding("POST invoices/void", false).await
}

#[tokio::test]
async fn killed_while_a_draft_is_deleted_at_stripe() -> Result<()> {
    killed_while_voiding("DELETE invoices/id", true).await
}

/// At Chargebee, each credit note is there once, and what is void is void.
#[tokio::test]
async fn killed_while_chargebee_gets_credit_notes_and_voids() -> Result<()> {
    let chargebee = FakeChargebee::start().await?;
    let fleet = with_chargebee(&chargebee).await?;
    for (number, way) in WAYS.into_iter().enumerate() {
        let tenant = format!("t{number}");
        customer(&fleet, &tenant, "chargebee").await?;
        let invoice = bill(&fleet, &tenant, LINES).await?;
        delivery_is(&fleet, invoice, "done").await?;
        let both = (&fleet, &chargebee);
        let credited = super::credit_notes::credit(&fleet, invoice, "1.00");
        killed_at(both, "POST credit_notes/create", way, credited).await?;
        super::credit_notes::all_there(&fleet).await.with_context(|| format!("{way:?}"))?;
        let notes = chargebee.with(|chargebee| chargebee.credit_notes.len());
        ensure!(notes == number + 1, "{notes} credit notes, {way:?}");

        let tenant = format!("void{number}");
        customer(&fleet, &tenant, "chargebee").await?;
        let invoice = bill(&fleet, &tenant, LINES).await?;
        delivery_is(&fleet, invoice, "done").await?;
        killed_at(both, "POST invoices/void", way, void(&fleet, invoice)).await?;
        delivery_is(&fleet, invoice, "done").await.with_context(|| format!("{way:?}"))?;
        ensure!(chargebee.invoices_of(&tenant).is_empty(), "{way:?}");
    }
    Ok(())
}
