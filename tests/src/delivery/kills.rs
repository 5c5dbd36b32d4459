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

/// Of two replicas one works on an invoice; when it is killed, the other takes over when its claim has
/// passed.
#[tokio::test]
async fn another_replica_takes_over() -> Result<()> {
    let stripe = FakeStripe::start().await?;
    let fleet = Fleet::with(|stack| {
        stack
            .gateways(0)
            .control_planes(2)
            .variable("WEIR_STRIPE_URL", stripe.url())
            .variable("WEIR_STRIPE_API_KEY", API_KEY)
            .variable("WEIR_STRIPE_CALLS_PER_S", "1000")
            .variable("WEIR_PROVIDER_TIMEOUT_MS", TIMEOUT_MS.to_string())
    })
    .await?;
    let mut invoices = Vec::new();
    for number in 0..20 {
        let tenant = format!("t{number}");
        customer(&fleet, &tenant, "stripe").await?;
        invoices.push((tenant.clone(), bill(&fleet, &tenant, LINES).await?));
    }
    for call in ["POST invoices/add_lines", "POST invoices", "POST invoices/finalize"] {
        stripe.strike(call, Fault::Slow(std::time::Duration::from_millis(700)));
    }
    fleet.stack.control_planes[1].kill();
    for (tenant, invoice) in &invoices {
        arrives_at_stripe(&fleet, &stripe, (tenant, *invoice)).await?;
    }
    let calls = stripe.calls();
    let made = calls.iter().filter(|call| call.endpoint == "POST invoices/send");
    assert!(made.count() >= invoices.len());
    Ok(())
}
