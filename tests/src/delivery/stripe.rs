//! What Stripe gets, and what stops a delivery.

use anyhow::Result;

use super::*;
use crate::fake::Fault;

/// Only tenants with a provider have their invoices sent, by the setting at the moment at which the
/// invoice became final; what is sent is what the invoice says.
#[tokio::test]
async fn a_final_invoice_is_sent_to_the_provider_of_its_tenant() -> Result<()> {
    let stripe = FakeStripe::start().await?;
    let fleet = with_stripe(&stripe).await?;
    fleet.tenant("later", &[], &[flat("5.00")]).await?;
    let kept = bill(&fleet, "later", LINES).await?;
    let provider =
        json!({ "provider": { "kind": "stripe", "email": "a@b.example", "name": "Later Ltd" } });
    let tenant = fleet.admin.patch("/tenants/later", &provider).await?.ok()?;
    assert_eq!(tenant["provider"], provider["provider"]);
    let sent = bill(&fleet, "later", LINES).await?;
    arrives_at_stripe(&fleet, &stripe, ("later", sent)).await?;

    assert_eq!(invoice_state(&fleet, kept).await?, "final");
    assert_eq!(fleet.admin.get(&format!("/deliveries/{kept}")).await?.status, 404);
    let tenant = fleet.admin.get("/tenants/later").await?.ok()?;
    assert_eq!(tenant["provider"]["customer"], "cus_000001");
    let known = delivery(&fleet, sent).await?;
    assert_eq!(
        (&known["provider"], &known["provider_invoice"], &known["payment"]),
        (&json!("stripe"), &json!("in_000002"), &json!("open")),
    );
    assert!(known["provider_number"].as_str().is_some_and(|number| number.starts_with("STRIPE-")));
    let calls = stripe.calls();
    let made = calls.iter().find(|call| call.endpoint == "POST customers").context("customer")?;
    assert_eq!((made.param("name"), made.param("email")), ("Later Ltd", "a@b.example"));
    let made = calls.iter().find(|call| call.endpoint == "POST invoices").context("invoice")?;
    assert_eq!((made.param("days_until_due"), made.param("auto_advance")), ("30", "false"));
    assert_eq!(made.param("description"), "INV-2");

    // A second one has the same customer; of the same tenant the older comes first.
    let second = bill(&fleet, "later", LINES).await?;
    delivery_is(&fleet, second, "done").await?;
    assert_eq!(stripe.with(|stripe| (stripe.customers.len(), stripe.invoices.len())), (1, 2));
    let manual = json!({ "provider": { "kind": "manual" } });
    fleet.admin.patch("/tenants/later", &manual).await?.ok()?;
    let last = bill(&fleet, "later", LINES).await?;
    assert_eq!(fleet.admin.get(&format!("/deliveries/{last}")).await?.status, 404);
    Ok(())
}

/// An invoice whose total Stripe sees otherwise is never finalized; when that is mended, it is sent.
#[tokio::test]
async fn a_total_that_differs_stops_the_delivery() -> Result<()> {
    let stripe = FakeStripe::start().await?;
    let fleet = with_stripe(&stripe).await?;
    customer(&fleet, "acme", "stripe").await?;
    stripe.with(|stripe| stripe.extra_minor = 7);
    let invoice = bill(&fleet, "acme", LINES).await?;
    let stopped = delivery_is(&fleet, invoice, "failed").await?;
    let error = stopped["last_error"].as_str().unwrap_or("");
    assert!(error.contains("5007 USD") && error.contains("5000 USD"), "{error}");
    assert!(error.contains(&format!("/deliveries/{invoice}/retry")), "{error}");
    assert_eq!(stripe.invoices_of("acme")[0].status, "draft");
    assert_eq!(invoice_state(&fleet, invoice).await?, "final");
    let failed = fleet.admin.get("/deliveries?state=failed").await?.ok()?;
    assert_eq!(failed["items"], json!([stopped]));
    let metrics = metrics(&fleet).await?;
    assert!(metrics.contains("weir_delivery_mismatches_total{provider=\"stripe\"} 1"), "{metrics}");
    assert!(fleet.stack.control_planes[0].log()?.contains("total of the invoice"));

    let retry = format!("/deliveries/{invoice}/retry");
    stripe.with(|stripe| {
        stripe.extra_minor = 0;
        stripe.invoices.clear();
    });
    fleet.admin.post(&retry, &json!({})).await?.ok()?;
    arrives_at_stripe(&fleet, &stripe, ("acme", invoice)).await?;
    assert_eq!(fleet.admin.post(&retry, &json!({})).await?.status, 409);
    assert_eq!(fleet.admin.post("/deliveries/999/retry", &json!({})).await?.status, 404);
    Ok(())
}

/// What Stripe refuses for good is not repeated, holds up nobody else, and is done after a retry.
#[tokio::test]
async fn a_refusal_stops_one_delivery_until_it_is_retried() -> Result<()> {
    let stripe = FakeStripe::start().await?;
    let fleet = with_stripe(&stripe).await?;
    for call in
        ["POST customers", "POST invoices", "POST invoices/add_lines", "POST invoices/finalize"]
    {
        let tenant = call.replace([' ', '/', '_'], "-");
        customer(&fleet, &tenant, "stripe").await?;
        stripe.strike(call, Fault::Refused);
        let invoice = bill(&fleet, &tenant, LINES).await?;
        let stopped = delivery_is(&fleet, invoice, "failed").await?;
        let error = stopped["last_error"].as_str().unwrap_or("");
        assert!(error.contains("402 refused_here: This is not possible"), "{error}");
        fleet.admin.post(&format!("/deliveries/{invoice}/retry"), &json!({})).await?.ok()?;
        arrives_at_stripe(&fleet, &stripe, (&tenant, invoice)).await?;
    }
    Ok(())
}

/// 300 lines are 250 at Stripe, in calls of at most 100; the last stands for the rest. An invoice of
/// nothing is paid and not sent; one below nothing is a credit at Stripe.
#[tokio::test]
async fn long_empty_and_negative_invoices() -> Result<()> {
    let stripe = FakeStripe::start().await?;
    let fleet = with_stripe(&stripe).await?;
    for tenant in ["long", "empty", "credit"] {
        customer(&fleet, tenant, "stripe").await?;
    }
    let long = bill(&fleet, "long", &[("Tokens", 3); 300]).await?;
    delivery_is(&fleet, long, "done").await?;
    let found = &stripe.invoices_of("long")[0];
    assert_eq!((found.lines.len(), found.total_minor(), found.status), (250, 900, "open"));
    assert_eq!(found.lines[249].description, format!("51 more lines, see invoice INV-{long}"));
    assert_eq!(found.lines[249].amount_minor, 153);
    let calls = stripe.calls();
    let calls = calls.iter().filter(|call| call.endpoint == "POST invoices/add_lines");
    assert_eq!(calls.count(), 3);

    let empty = bill(&fleet, "empty", &[("Base fee", 500), ("Credit", -500)]).await?;
    assert_eq!(delivery_is(&fleet, empty, "done").await?["payment"], "paid");
    assert_eq!(invoice_state(&fleet, empty).await?, "paid");
    assert!(stripe.invoices_of("empty").is_empty());

    let credit = bill(&fleet, "credit", &[("Tokens", 100), ("Late usage", -350)]).await?;
    assert_eq!(delivery_is(&fleet, credit, "done").await?["payment"], "paid");
    assert_eq!(invoice_state(&fleet, credit).await?, "paid");
    let found = &stripe.invoices_of("credit")[0];
    assert_eq!((found.status, found.sent, found.total_minor()), ("paid", 0, -250));
    let owner = found.customer.clone();
    let balance = stripe.with(|stripe| {
        stripe.customers.iter().find(|known| known.id == owner).map(|known| known.balance_minor)
    });
    assert_eq!(balance, Some(-250));
    Ok(())
}

/// An invoice that becomes void in Weir is deleted or voided at Stripe, whenever that happens.
#[tokio::test]
async fn a_void_invoice_is_voided_at_stripe() -> Result<()> {
    let stripe = FakeStripe::start().await?;
    let fleet = with_stripe(&stripe).await?;
    for (tenant, until) in [("at-once", ""), ("draft", "POST invoices/finalize"), ("sent", "")] {
        customer(&fleet, tenant, "stripe").await?;
        if !until.is_empty() {
            stripe.strike(until, Fault::Refused);
        }
        let invoice = bill(&fleet, tenant, LINES).await?;
        match tenant {
            "draft" => drop(delivery_is(&fleet, invoice, "failed").await?),
            "sent" => drop(delivery_is(&fleet, invoice, "done").await?),
            _ => {}
        }
        let sql = format!("update invoice set state = 'void' where id = {invoice}");
        fleet.stack.database.query(&sql).await?;
        wait_for("the invoice to be void at Stripe", SOON, async || {
            let delivery = delivery(&fleet, invoice).await?;
            ensure!(delivery["step"] == "void" && delivery["state"] == "done", "{delivery}");
            Ok(Some(()))
        })
        .await?;
        assert!(stripe.invoices_of(tenant).is_empty(), "{tenant}");
        assert_eq!(invoice_state(&fleet, invoice).await?, "void");
    }
    Ok(())
}

async fn metrics(fleet: &Fleet) -> Result<String> {
    let url = format!("{}/metrics", fleet.stack.control_planes[0].url());
    Ok(reqwest::get(url).await?.text().await?)
}

/// An invoice is sent again when somebody asks for it: one that was made when the tenant had no provider,
/// one whose delivery has stopped, and one that Stripe has sent. Nothing is made twice.
#[tokio::test]
async fn an_invoice_is_sent_again_when_asked_for() -> Result<()> {
    let stripe = FakeStripe::start().await?;
    let fleet = with_stripe(&stripe).await?;
    fleet.tenant("acme", &[], &[flat("5.00")]).await?;
    let invoice = bill(&fleet, "acme", LINES).await?;
    let resend =
        async || fleet.admin.post(&format!("/invoices/{invoice}/resend"), &json!({})).await;
    let refused = resend().await?;
    assert!(refused.status == 409 && refused.body.contains("manual"), "{}", refused.body);

    let provider = json!({ "provider": { "kind": "stripe", "email": "a@b.example" } });
    fleet.admin.patch("/tenants/acme", &provider).await?.ok()?;
    stripe.strike("POST invoices/finalize", Fault::Refused);
    let output = fleet.stack.weir(&["invoice", "resend", "INV-1"]).await?;
    assert!(output.status.success(), "{output:?}");
    delivery_is(&fleet, invoice, "failed").await?;
    assert_eq!(resend().await?.status, 202);
    arrives_at_stripe(&fleet, &stripe, ("acme", invoice)).await?;

    let sent =
        || stripe.calls().iter().filter(|call| call.endpoint == "POST invoices/send").count();
    assert_eq!(sent(), 1);
    assert_eq!(resend().await?.status, 202);
    wait_for("the second mail", SOON, async || Ok((sent() == 2).then_some(()))).await?;
    arrives_at_stripe(&fleet, &stripe, ("acme", invoice)).await?;

    // Also after a credit note.
    super::credit_notes::credit(&fleet, invoice, "1.00").await?;
    super::credit_notes::all_there(&fleet).await?;
    assert_eq!(resend().await?.status, 202);
    wait_for("the third mail", SOON, async || Ok((sent() == 3).then_some(()))).await?;
    delivery_is(&fleet, invoice, "done").await?;

    let pay = format!("update invoice set state = 'paid' where id = {invoice}");
    fleet.stack.database.query(&pay).await?;
    fleet.stack.database.query("update delivery set payment = 'paid'").await?;
    let refused = fleet.stack.weir(&["invoice", "resend", "INV-1"]).await?;
    assert!(String::from_utf8(refused.stderr)?.contains("INV-1 is paid"));
    let paid = fleet.admin.post(&format!("/invoices/{invoice}/paid"), &json!({})).await?;
    assert_eq!(paid.status, 200);
    let other = bill(&fleet, "acme", LINES).await?;
    let refused = fleet.admin.post(&format!("/invoices/{other}/paid"), &json!({})).await?;
    assert!(refused.status == 409 && refused.body.contains("provider"), "{}", refused.body);
    assert_eq!(fleet.admin.post("/invoices/999/resend", &json!({})).await?.status, 404);
    Ok(())
}
