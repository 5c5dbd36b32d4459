//! Invoices that become void: at the provider first, here first, or while something is under way.

use super::{
    credit_notes::credit,
    webhooks::{event, now_s, pair, payment, stripe_says},
    *,
};
use crate::fake::Fault;

/// Somebody voids our invoice at Stripe, and Stripe says so.
async fn voided_at_stripe(fleet: &Fleet, stripe: &FakeStripe, tenant: &str) -> Result<()> {
    let found = stripe.with(|stripe| {
        let of_tenant = |one: &&mut Invoice| one.metadata.get("tenant_id") == Some(&json!(tenant));
        let found = stripe.invoices.iter_mut().find(of_tenant)?;
        found.status = "void";
        Some(found.clone())
    });
    let found = found.context("no invoice")?;
    let void = event(&format!("evt_{tenant}"), "invoice.voided", now_s()?, &found);
    let status = stripe_says(fleet, &void).await?;
    ensure!(status == 200, "answered {status}");
    Ok(())
}

/// What the provider has voided itself is void here, and nothing more is to be done there: neither is
/// what is left of it credited, nor does what was under way go on.
#[tokio::test]
async fn what_stripe_has_voided_is_done() -> Result<()> {
    let stripe = FakeStripe::start().await?;
    let fleet = with_stripe(&stripe).await?;
    for tenant in ["sent", "stopped", "put-off"] {
        customer(&fleet, tenant, "stripe").await?;
        let invoice = bill(&fleet, tenant, LINES).await?;
        arrives_at_stripe(&fleet, &stripe, (tenant, invoice)).await?;
        match tenant {
            "put-off" => {
                stripe.strike("POST credit_notes", Fault::ErrorBefore);
                stripe.strike("GET credit_notes", Fault::TooMany(30));
                credit(&fleet, invoice, "1.00").await?;
                stripe.struck().await?;
                let sql = "select count(*) from delivery where state = 'open' and last_error like '%429%'";
                wait_for("it to be put off", SOON, async || {
                    Ok((fleet.stack.database.query(sql).await?.trim() == "1").then_some(()))
                })
                .await?;
            }
            "stopped" => {
                let sql = format!(
                    "update delivery set state = 'failed', step = 'credit', last_error = 'x' where invoice_id = {invoice}"
                );
                fleet.stack.database.query(&sql).await?;
            }
            _ => {}
        }
        voided_at_stripe(&fleet, &stripe, tenant).await?;
        let now = delivery(&fleet, invoice).await?;
        ensure!(now["state"] == "done" && now["last_error"].is_null(), "{tenant}: {now}");
        assert_eq!(payment(&fleet, invoice).await?, pair("void", "void"), "{tenant}");
    }
    assert_eq!(stripe.with(|stripe| stripe.credit_notes.len()), 0);
    Ok(())
}

/// An invoice is asked to be sent at the moment at which it becomes void: it is not sent.
#[tokio::test]
async fn what_becomes_void_meanwhile_is_not_sent() -> Result<()> {
    let stripe = FakeStripe::start().await?;
    let fleet = with_stripe(&stripe).await?;
    fleet.tenant("acme", &[], &[flat("5.00")]).await?;
    let invoice = bill(&fleet, "acme", LINES).await?;
    let provider = json!({ "provider": { "kind": "stripe", "email": "a@b.example" } });
    fleet.admin.patch("/tenants/acme", &provider).await?.ok()?;
    let void = format!(
        "begin; update invoice set state = 'void' where id = {invoice}; select pg_sleep(1); commit"
    );
    let resend = async {
        let asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
        wait_for("the other transaction to have its locks", SOON, async || {
            Ok((fleet.stack.database.query(asleep).await?.trim() == "1").then_some(()))
        })
        .await?;
        fleet.admin.post(&format!("/invoices/{invoice}/resend"), &json!({})).await
    };
    let (voided, answer) = tokio::join!(fleet.stack.database.query(&void), resend);
    voided?;
    let answer = answer?;
    assert!(answer.status == 409 && answer.body.contains("void"), "{}", answer.body);
    assert_eq!(fleet.admin.get(&format!("/deliveries/{invoice}")).await?.status, 404);
    Ok(())
}

/// However a delivery comes to have another step: of an invoice that is void nothing is sent.
#[tokio::test]
async fn of_a_void_invoice_nothing_is_sent() -> Result<()> {
    let stripe = FakeStripe::start().await?;
    let fleet = with_stripe(&stripe).await?;
    customer(&fleet, "acme", "stripe").await?;
    let invoice = bill(&fleet, "acme", LINES).await?;
    arrives_at_stripe(&fleet, &stripe, ("acme", invoice)).await?;
    let sql = format!(
        "update invoice set state = 'void' where id = {invoice}; update delivery set state = 'open', step = 'send'"
    );
    fleet.stack.database.query(&sql).await?;
    let ended = delivery_is(&fleet, invoice, "done").await?;
    assert_eq!(ended["step"], "void");
    let known = stripe.with(|stripe| (stripe.invoices[0].status, stripe.invoices[0].sent));
    assert_eq!(known, ("void", 1));
    Ok(())
}

/// An invoice becomes void while the call that makes it is under way, and nobody hears what became of
/// that: it is made after nothing was found, and it is found.
#[tokio::test]
async fn what_is_made_while_it_becomes_void_is_voided() -> Result<()> {
    let chargebee = FakeChargebee::start().await?;
    let fleet = with_chargebee(&chargebee).await?;
    customer(&fleet, "acme", "chargebee").await?;
    let late = std::time::Duration::from_millis(TIMEOUT_MS * 3 / 2);
    chargebee.strike("POST invoices/create", Fault::Late(late));
    let invoice = bill(&fleet, "acme", LINES).await?;
    chargebee.struck().await?;
    let sql = format!("update invoice set state = 'void' where id = {invoice}");
    fleet.stack.database.query(&sql).await?;
    wait_for("the invoice to be at Chargebee", SOON, async || {
        Ok(chargebee.with(|chargebee| (chargebee.invoices.len() == 1).then_some(())))
    })
    .await?;
    delivery_is(&fleet, invoice, "done").await?;
    assert_eq!(chargebee.with(|chargebee| chargebee.invoices[0].status), "voided");
    Ok(())
}
