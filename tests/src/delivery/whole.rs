//! From requests to the provider's total.

use anyhow::{Context, Result};

use super::*;

/// What clients saw admitted is what the ledger has, what the invoice charges, and what Stripe asks
/// for.
#[tokio::test]
async fn from_requests_to_the_total_at_stripe() -> Result<()> {
    let stripe = FakeStripe::start().await?;
    let fleet = Fleet::with(|stack| {
        stack
            .variable("WEIR_STRIPE_URL", stripe.url())
            .variable("WEIR_STRIPE_API_KEY", API_KEY)
            .variable("WEIR_STRIPE_CALLS_PER_S", "1000")
    })
    .await?;
    fleet.tenant("acme", &[monthly(250)], &[flat("49.00"), per_unit("0.013")]).await?;
    let provider = json!({ "provider": { "kind": "stripe", "email": "billing@acme.example" } });
    fleet.admin.patch("/tenants/acme", &provider).await?.ok()?;
    let counts = fleet.drive("acme", 16, 300).await?;
    let admitted = counts.of(200);
    assert_eq!((admitted, counts.of(429)), (250, 50));
    fleet.ledger_reaches("acme", admitted).await?;

    let ended = fleet.admin.post("/tenants/acme/billing-period/end", &json!({})).await?.ok()?;
    let invoice = ended["id"].as_i64().context("no id")?;
    delivery_is(&fleet, invoice, "done").await?;
    // 250 × 0.013 = 3.25
    assert_eq!(ended["total"], "52.25");
    let found = stripe.invoices_of("acme");
    assert_eq!((found.len(), found[0].total_minor(), found[0].sent), (1, 5_225, 1));
    let lines: Vec<_> =
        found[0].lines.iter().map(|line| (line.description.as_str(), line.amount_minor)).collect();
    assert_eq!(lines, [("Base fee", 4_900), ("Tokens: 250 tokens", 325)]);
    Ok(())
}

/// An invoice that credits have paid is paid, and nobody is asked for anything; what they pay of the next
/// one is a line below zero at the provider.
#[tokio::test]
async fn what_credits_have_paid_is_not_asked_for() -> Result<()> {
    let (stripe, chargebee) = (FakeStripe::start().await?, FakeChargebee::start().await?);
    let fleet = Fleet::with(|stack| {
        stack
            .gateways(0)
            .variable("WEIR_STRIPE_URL", stripe.url())
            .variable("WEIR_STRIPE_API_KEY", API_KEY)
            .variable("WEIR_CHARGEBEE_URL", chargebee.url())
            .variable("WEIR_CHARGEBEE_API_KEY", fake_chargebee::API_KEY)
    })
    .await?;
    for tenant in ["stripe", "chargebee"] {
        customer(&fleet, tenant, tenant).await?;
        let credit =
            json!({ "name": "wire", "kind": "prepaid", "currency": "USD", "amount": "7.00" });
        fleet.admin.post(&format!("/tenants/{tenant}/credits"), &credit).await?.ok()?;
        let end = format!("/tenants/{tenant}/billing-period/end");
        let ended = fleet.admin.post(&end, &json!({})).await?.ok()?;
        assert_eq!(ended["total"], "0.00");
        let invoice = ended["id"].as_i64().context("no id")?;
        assert_eq!(delivery_is(&fleet, invoice, "done").await?["payment"], "paid");
    }
    assert!(stripe.invoices_of("stripe").is_empty());
    assert!(chargebee.invoices_of("chargebee").is_empty());

    let preview = fleet.admin.get("/tenants/stripe/invoices/preview").await?.ok()?;
    crate::invoices::run(&fleet, preview["period_end"].as_str().context("no end")?).await?;
    for tenant in ["stripe", "chargebee"] {
        // Newest first.
        let made = fleet.admin.get(&format!("/invoices?tenant={tenant}")).await?.ok()?;
        let made = &made["items"][0];
        assert_eq!(made["total"], "3.00");
        delivery_is(&fleet, made["id"].as_i64().context("no id")?, "done").await?;
    }
    let at_stripe = &stripe.invoices_of("stripe")[0];
    let amounts: Vec<_> = at_stripe.lines.iter().map(|line| line.amount_minor).collect();
    assert_eq!((amounts, at_stripe.total_minor()), (vec![500, -200], 300));
    let at_chargebee = &chargebee.invoices_of("chargebee")[0];
    assert_eq!((&at_chargebee.discounts[..], at_chargebee.total_minor()), (&[200][..], 300));
    Ok(())
}
