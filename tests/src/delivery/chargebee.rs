//! Chargebee, which has no drafts: one call makes an invoice, and one that is wrong is voided.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::*;
use crate::fake::Fault;

/// Every call of a delivery to Chargebee, in their order.
const CALLS: &[&str] = &["POST customers", "POST invoices/create", "GET invoices/id"];

/// Waits until the invoice is sent, and holds what Chargebee has against it.
async fn arrives(
    fleet: &Fleet,
    chargebee: &FakeChargebee,
    tenant: &str,
    invoice: i64,
) -> Result<()> {
    delivery_is(fleet, invoice, "done").await?;
    let found = chargebee.invoices_of(tenant);
    ensure!(found.len() == 1, "Chargebee has {} invoices: {found:?}", found.len());
    let charges: Vec<_> =
        found[0].charges.iter().map(|(name, amount)| (name.as_str(), *amount)).collect();
    ensure!(charges == LINES[..2], "Chargebee's charges are {charges:?}");
    ensure!(found[0].discounts == [23], "Chargebee's discounts are {:?}", found[0].discounts);
    ensure!(found[0].total_minor() == TOTAL_MINOR);
    ensure!(invoice_state(fleet, invoice).await? == "sent");
    Ok(())
}

/// Killed at any call, before or after it is carried out.
#[tokio::test]
async fn killed_at_any_call_there_is_one_invoice_at_chargebee() -> Result<()> {
    killed_at_every_call(false).await
}

/// The same when Chargebee has forgotten all keys before the next process starts.
#[tokio::test]
async fn killed_and_found_again_at_chargebee_when_the_keys_are_forgotten() -> Result<()> {
    killed_at_every_call(true).await
}

async fn killed_at_every_call(keys_forgotten: bool) -> Result<()> {
    let chargebee = FakeChargebee::start().await?;
    let fleet = with_chargebee(&chargebee).await?;
    for (number, call) in CALLS.iter().enumerate() {
        for (kind, fault) in [("before", Fault::HoldBefore), ("after", Fault::SilentAfter)] {
            let tenant = format!("t{number}-{kind}");
            let context = || format!("killed {kind} {call}");
            customer(&fleet, &tenant, "chargebee").await?;
            chargebee.strike(call, fault);
            let invoice = bill(&fleet, &tenant, LINES).await?;
            chargebee.struck().await.with_context(context)?;
            fleet.stack.control_planes[0].kill();
            claims_pass(&fleet).await?;
            if keys_forgotten {
                key_window_passes(&fleet, &chargebee).await?;
            }
            fleet.stack.control_planes[0].restart().await?;
            arrives(&fleet, &chargebee, &tenant, invoice).await.with_context(context)?;
        }
    }
    Ok(())
}

/// Whatever happens to this call, the invoice arrives once.
async fn any_fault_is_survived(call: &str) -> Result<()> {
    let chargebee = FakeChargebee::start().await?;
    let fleet = with_chargebee(&chargebee).await?;
    let faults = [
        Fault::TooMany(0),
        Fault::Conflict,
        Fault::LockedOut,
        Fault::ErrorBefore,
        Fault::ErrorAfter,
        Fault::CutBefore,
        Fault::CutAfter,
        Fault::SilentAfter,
        Fault::Late(Duration::from_millis(1_300)),
        Fault::Slow(Duration::from_millis(300)),
    ];
    for (kind, fault) in faults.into_iter().enumerate() {
        let tenant = format!("t{kind}");
        customer(&fleet, &tenant, "chargebee").await?;
        chargebee.strike(call, fault);
        let invoice = bill(&fleet, &tenant, LINES).await?;
        let context = || format!("{fault:?} of {call}");
        chargebee.struck().await.with_context(context)?;
        arrives(&fleet, &chargebee, &tenant, invoice).await.with_context(context)?;
    }
    Ok(())
}

#[tokio::test]
async fn any_fault_of_making_the_customer_at_chargebee_is_survived() -> Result<()> {
    any_fault_is_survived("POST customers").await
}

#[tokio::test]
async fn any_fault_of_making_the_invoice_at_chargebee_is_survived() -> Result<()> {
    any_fault_is_survived("POST invoices/create").await
}

#[tokio::test]
async fn any_fault_of_comparing_at_chargebee_is_survived() -> Result<()> {
    any_fault_is_survived("GET invoices/id").await
}

/// An invoice whose total Chargebee sees otherwise is voided there, also when the control plane is
/// killed before or after that, with the keys remembered or forgotten; a retry makes another one.
#[tokio::test]
async fn a_total_that_differs_is_voided() -> Result<()> {
    let chargebee = FakeChargebee::start().await?;
    let fleet = with_chargebee(&chargebee).await?;
    let ways = [
        None,
        Some((Fault::HoldBefore, false)),
        Some((Fault::HoldBefore, true)),
        Some((Fault::SilentAfter, false)),
        Some((Fault::SilentAfter, true)),
    ];
    for (number, way) in ways.into_iter().enumerate() {
        let tenant = &format!("t{number}");
        customer(&fleet, tenant, "chargebee").await?;
        chargebee.with(|chargebee| chargebee.extra_minor = 7);
        if let Some((fault, _)) = way {
            chargebee.strike("POST invoices/void", fault);
        }
        let invoice = bill(&fleet, tenant, LINES).await?;
        if let Some((_, keys_forgotten)) = way {
            chargebee.struck().await?;
            fleet.stack.control_planes[0].kill();
            claims_pass(&fleet).await?;
            if keys_forgotten {
                key_window_passes(&fleet, &chargebee).await?;
            }
            fleet.stack.control_planes[0].restart().await?;
        }
        let stopped = delivery_is(&fleet, invoice, "failed").await?;
        let error = stopped["last_error"].as_str().unwrap_or("");
        assert!(error.contains("5007 USD") && error.contains("was voided"), "{way:?}: {error}");
        assert!(chargebee.invoices_of(tenant).is_empty(), "{way:?}");
        assert_eq!(invoice_state(&fleet, invoice).await?, "final");

        chargebee.with(|chargebee| chargebee.extra_minor = 0);
        fleet.admin.post(&format!("/deliveries/{invoice}/retry"), &json!({})).await?.ok()?;
        arrives(&fleet, &chargebee, tenant, invoice).await.with_context(|| format!("{way:?}"))?;
    }
    Ok(())
}

/// What Chargebee can't say is not sent, and the error says what to do; an invoice that becomes void
/// is voided there.
#[tokio::test]
async fn negative_totals_stop_and_void_invoices_are_voided_at_chargebee() -> Result<()> {
    let chargebee = FakeChargebee::start().await?;
    let fleet = with_chargebee(&chargebee).await?;
    customer(&fleet, "acme", "chargebee").await?;
    let negative = bill(&fleet, "acme", &[("Tokens", 100), ("Late usage", -101)]).await?;
    let stopped = delivery_is(&fleet, negative, "failed").await?;
    let error = stopped["last_error"].as_str().unwrap_or("");
    assert!(error.contains("promotional credits"), "{error}");

    let invoice = bill(&fleet, "acme", LINES).await?;
    arrives(&fleet, &chargebee, "acme", invoice).await?;
    let sql = format!("update invoice set state = 'void' where id in ({invoice}, {negative})");
    fleet.stack.database.query(&sql).await?;
    wait_for("both to be void", SOON, async || {
        for id in [invoice, negative] {
            let delivery = delivery(&fleet, id).await?;
            ensure!(delivery["step"] == "void" && delivery["state"] == "done", "{delivery}");
        }
        Ok(Some(()))
    })
    .await?;
    assert!(chargebee.invoices_of("acme").is_empty());
    Ok(())
}
