//! From requests to the provider's total, and many tenants at once.

use std::{env, time::Instant};

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

/// How many tenants: 100, or so many as this variable says.
const TENANTS: &str = "WEIR_TEST_TENANTS";

/// Many tenants at a provider that takes so many calls a second: each gets its invoice, the totals
/// agree, and the provider hardly ever has to say that there are too many.
#[tokio::test]
async fn many_tenants_under_the_providers_limit() -> Result<()> {
    let tenants: u32 = env::var(TENANTS).ok().map_or(Ok(100), |count| count.parse())?;
    let per_second = if tenants > 100 { 400 } else { 100 };
    let stripe = FakeStripe::start().await?;
    stripe.allow(per_second);
    // A little less, as calls do not arrive as evenly as they are made.
    let pace = (per_second * 9 / 10).to_string();
    let fleet =
        with_stripe_and(&stripe, |stack| stack.variable("WEIR_STRIPE_CALLS_PER_S", pace)).await?;
    fleet.tenant("one", &[], &[flat("5.00")]).await?;
    // As many as wanted, at once; of the tenant number n the total is n cents.
    let sql = format!(
        "insert into tenant (id, name, plan_id, provider)
           select 't' || n, 't' || n, 'one-plan', 'stripe' from generate_series(1, {tenants}) n;
         insert into provider_customer (tenant_id, provider, email)
           select id, 'stripe', id || '@example.com' from tenant where provider = 'stripe';
         with made as (
           insert into invoice (number, tenant_id, state, currency, period_start, period_end, time_zone, total_minor)
           select 'INV-' || n, 't' || n, 'final', 'USD', '2025-01-01', '2025-02-01', 'UTC', n
           from generate_series(1, {tenants}) n returning id, total_minor)
         insert into invoice_line (invoice_id, position, name, charge, share_quarters, share_of, amount_minor)
         select id, 1, 'Tokens', '{{}}', 1, 1, total_minor from made"
    );
    let started = Instant::now();
    fleet.stack.database.query(&sql).await?;
    let within = SOON * (2 + tenants / 400);
    wait_for("all to be delivered", within, async || {
        let open = "select count(*) from delivery where state <> 'done'";
        let open = fleet.stack.database.query(open).await?;
        ensure!(open.trim() == "0", "{} are not", open.trim());
        Ok(Some(()))
    })
    .await?;
    let took = started.elapsed();
    let totals = stripe.with(|stripe| {
        let mut totals: Vec<_> = stripe
            .invoices
            .iter()
            .map(|invoice| (invoice.metadata["tenant_id"].to_string(), invoice.total_minor()))
            .collect();
        totals.sort_by_key(|(_, total)| *total);
        totals
    });
    let expected: Vec<_> = (1..=i64::from(tenants)).map(|n| (format!("\"t{n}\""), n)).collect();
    assert_eq!(totals, expected);
    assert!(stripe.with(|stripe| stripe.invoices.iter().all(|invoice| invoice.sent == 1)));
    let calls = stripe.calls().len();
    eprintln!("{tenants} invoices in {took:?}, {calls} calls, {} refused", stripe.refused());
    // Where this machine stands still for a moment, calls come in a heap afterwards.
    assert!(stripe.refused() < calls / 5, "{} of {calls} calls", stripe.refused());
    Ok(())
}
