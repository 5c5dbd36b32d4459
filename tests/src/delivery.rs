//! Invoices that became final get to the tenant's provider, each exactly once and with the right
//! lines, whatever fails on the way. The providers are stand-ins that are as strict as the real ones.

mod chargebee;
mod credit_notes;
mod faults;
mod kills;
mod many;
mod restore;
mod stripe;
mod voids;
mod webhooks;
mod whole;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xtask::stack::Builder;

use crate::{
    fake::{
        Fake, Provider,
        chargebee::{self as fake_chargebee, FakeChargebee},
        stripe::{API_KEY, FakeStripe, Invoice},
    },
    harness::*,
};

/// How long a call may take here, in milliseconds; a claim lasts twice as long.
const TIMEOUT_MS: u64 = 1_500;

/// The lines of the invoices in these tests: name and amount in minor units.
const LINES: &[(&str, i64)] = &[("Base fee", 4_900), ("Tokens", 123), ("Late usage", -23)];
const TOTAL_MINOR: i64 = 5_000;

/// A Weir without gateways that can use the stand-in of Stripe.
async fn with_stripe(stripe: &FakeStripe) -> Result<Fleet> {
    with_stripe_and(stripe, |stack| stack).await
}

async fn with_stripe_and(
    stripe: &FakeStripe,
    change: impl FnOnce(Builder<'_>) -> Builder<'_>,
) -> Result<Fleet> {
    Fleet::with(|stack| {
        change(stack)
            .gateways(0)
            .variable("WEIR_STRIPE_URL", stripe.url())
            .variable("WEIR_STRIPE_API_KEY", API_KEY)
            .variable("WEIR_STRIPE_WEBHOOK_SECRET", "whsec_of_a_private_run")
            .variable("WEIR_STRIPE_CALLS_PER_S", "1000")
            .variable("WEIR_PROVIDER_TIMEOUT_MS", TIMEOUT_MS.to_string())
    })
    .await
}

/// The same with the stand-in of Chargebee.
async fn with_chargebee(chargebee: &FakeChargebee) -> Result<Fleet> {
    Fleet::with(|stack| {
        stack
            .gateways(0)
            .variable("WEIR_CHARGEBEE_URL", chargebee.url())
            .variable("WEIR_CHARGEBEE_API_KEY", fake_chargebee::API_KEY)
            .variable("WEIR_CHARGEBEE_WEBHOOK_USER", "chargebee")
            .variable("WEIR_CHARGEBEE_WEBHOOK_PASSWORD", "password-of-webhooks")
            .variable("WEIR_CHARGEBEE_CALLS_PER_S", "1000")
            .variable("WEIR_PROVIDER_TIMEOUT_MS", TIMEOUT_MS.to_string())
    })
    .await
}

/// A tenant whose invoices this provider sends.
async fn customer(fleet: &Fleet, id: &str, kind: &str) -> Result<()> {
    fleet.tenant(id, &[], &[flat("5.00")]).await?;
    let provider = json!({ "kind": kind, "email": format!("billing@{id}.example") });
    fleet.admin.patch(&format!("/tenants/{id}"), &json!({ "provider": provider })).await?.ok()?;
    Ok(())
}

/// An invoice of this tenant that has just become final; its id.
async fn bill(fleet: &Fleet, tenant: &str, lines: &[(&str, i64)]) -> Result<i64> {
    let total: i64 = lines.iter().map(|(_, amount)| amount).sum();
    let rows = lines.iter().zip(1..).map(|((name, amount), position)| {
        format!("((select id from made), {position}, '{name}', '{{\"kind\":\"flat\",\"amount\":\"1\"}}', 1, 1, {amount})")
    });
    let rows: Vec<_> = rows.collect();
    // The trigger sees the invoice; the lines are there when the transaction ends.
    let sql = format!(
        "with number as (update invoice_number set last = last + 1 returning last),
              made as (
           insert into invoice (number, tenant_id, state, currency, period_start, period_end, time_zone, total_minor)
           select 'INV-' || last, '{tenant}', 'final', 'USD',
                  '2025-01-01T00:00:00Z'::timestamptz + last * interval '1 day',
                  '2025-01-02T00:00:00Z'::timestamptz + last * interval '1 day', 'UTC', {total}
           from number returning id),
              lines as (
           insert into invoice_line (invoice_id, position, name, charge, share_quarters, share_of, amount_minor)
           values {} returning 1)
         select id from made",
        rows.join(", ")
    );
    let id = fleet.stack.database.query(&sql).await?;
    id.trim().parse().with_context(|| format!("not an id: {id}"))
}

/// What the admin API says of a delivery.
async fn delivery(fleet: &Fleet, invoice: i64) -> Result<Value> {
    fleet.admin.get(&format!("/deliveries/{invoice}")).await?.ok()
}

/// Waits until a delivery is in this state, and says what is to be said of it.
async fn delivery_is(fleet: &Fleet, invoice: i64, state: &str) -> Result<Value> {
    let what = format!("the delivery of {invoice} to be {state}");
    wait_for(&what, SOON, async || {
        let delivery = delivery(fleet, invoice).await?;
        ensure!(delivery["state"] == state, "it is {delivery}");
        Ok(Some(delivery))
    })
    .await
}

async fn invoice_state(fleet: &Fleet, invoice: i64) -> Result<String> {
    let invoice = fleet.admin.get(&format!("/invoices/{invoice}")).await?.ok()?;
    Ok(invoice["state"].as_str().unwrap_or("").to_owned())
}

/// Waits until the invoice is sent, and holds what Stripe has against it: one invoice with exactly
/// these lines, and one customer.
async fn arrives_at_stripe(
    fleet: &Fleet,
    stripe: &FakeStripe,
    (tenant, invoice): (&str, i64),
) -> Result<Invoice> {
    delivery_is(fleet, invoice, "done").await?;
    let mut found = stripe.invoices_of(tenant);
    ensure!(found.len() == 1, "Stripe has {} invoices: {found:?}", found.len());
    let found = found.remove(0);
    ensure!(found.status == "open", "Stripe's is {}", found.status);
    let lines: Vec<_> =
        found.lines.iter().map(|line| (line.description.as_str(), line.amount_minor)).collect();
    ensure!(lines == LINES, "Stripe's lines are {lines:?}");
    ensure!(found.total_minor() == TOTAL_MINOR, "Stripe's total is {}", found.total_minor());
    ensure!(invoice_state(fleet, invoice).await? == "sent");
    Ok(found)
}

/// Lets the claims of a worker that was killed pass at once.
async fn claims_pass(fleet: &Fleet) -> Result<()> {
    fleet.stack.database.query("update provider_customer set claimed_until = now()").await?;
    Ok(())
}

/// The provider has forgotten all keys, and Weir's clock says so too.
async fn key_window_passes<P: Provider>(fleet: &Fleet, fake: &Fake<P>) -> Result<()> {
    fake.pass_key_window();
    let sql = "update delivery set key_used_at = key_used_at - interval '25 hours'";
    fleet.stack.database.query(sql).await?;
    Ok(())
}
