//! Every way in which a call may fail without anybody being killed.

use std::time::Duration;

use anyhow::{Context, Result};

use super::*;
use crate::fake::Fault;

/// Whatever happens to this call, the invoice arrives once.
async fn any_fault_is_survived(call: &str) -> Result<()> {
    let stripe = FakeStripe::start().await?;
    let fleet = with_stripe(&stripe).await?;
    let faults = [
        Fault::TooMany(0),
        Fault::Conflict,
        Fault::LockedOut,
        Fault::ErrorBefore,
        Fault::ErrorAfter,
        Fault::CutBefore,
        Fault::CutAfter,
        Fault::Late(Duration::from_millis(1_300)),
        Fault::Slow(Duration::from_millis(300)),
    ];
    for (kind, fault) in faults.into_iter().enumerate() {
        let tenant = format!("t{kind}");
        customer(&fleet, &tenant, "stripe").await?;
        stripe.strike(call, fault);
        let invoice = bill(&fleet, &tenant, LINES).await?;
        let context = || format!("{fault:?} of {call}");
        stripe.struck().await.with_context(context)?;
        arrives_at_stripe(&fleet, &stripe, (&tenant, invoice)).await.with_context(context)?;
    }
    Ok(())
}

#[tokio::test]
async fn any_fault_of_making_the_customer_is_survived() -> Result<()> {
    any_fault_is_survived("POST customers").await
}

#[tokio::test]
async fn any_fault_of_making_the_draft_is_survived() -> Result<()> {
    any_fault_is_survived("POST invoices").await
}

#[tokio::test]
async fn any_fault_of_adding_lines_is_survived() -> Result<()> {
    any_fault_is_survived("POST invoices/add_lines").await
}

#[tokio::test]
async fn any_fault_of_finalizing_is_survived() -> Result<()> {
    any_fault_is_survived("POST invoices/finalize").await
}

#[tokio::test]
async fn any_fault_of_sending_is_survived() -> Result<()> {
    any_fault_is_survived("POST invoices/send").await
}

/// A call that is carried out and not answered is given up after the time-out, and found.
#[tokio::test]
async fn silence_after_the_commit_is_survived() -> Result<()> {
    let stripe = FakeStripe::start().await?;
    let fleet = with_stripe(&stripe).await?;
    let calls = ["POST invoices", "POST invoices/add_lines", "POST invoices/finalize"];
    for (number, call) in calls.iter().enumerate() {
        let tenant = format!("t{number}");
        customer(&fleet, &tenant, "stripe").await?;
        stripe.strike(call, Fault::SilentAfter);
        let invoice = bill(&fleet, &tenant, LINES).await?;
        arrives_at_stripe(&fleet, &stripe, (&tenant, invoice)).await.context(*call)?;
    }
    Ok(())
}

/// After a 429 nothing is called before the time that it names.
#[tokio::test]
async fn a_provider_that_has_too_much_is_left_alone() -> Result<()> {
    let stripe = FakeStripe::start().await?;
    let fleet = with_stripe(&stripe).await?;
    customer(&fleet, "acme", "stripe").await?;
    stripe.strike("POST invoices", Fault::TooMany(3));
    let invoice = bill(&fleet, "acme", LINES).await?;
    stripe.struck().await?;
    let told = std::time::Instant::now();
    let calls = stripe.calls().len();
    wait_for("the next call", SOON, async || Ok((stripe.calls().len() > calls).then_some(())))
        .await?;
    assert!(told.elapsed() > Duration::from_millis(2_800), "called after {:?}", told.elapsed());
    arrives_at_stripe(&fleet, &stripe, ("acme", invoice)).await?;
    Ok(())
}
