//! What providers say of invoices: believed where it is signed, carried out once, in any order.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Client;
use sha2::Sha256;

use super::*;

const SECRET: &str = "whsec_of_a_private_run";

pub(super) fn now_s() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

/// The header with which Stripe signs `body`.
fn signature(secret: &str, at: u64, body: &str) -> Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())?;
    mac.update(format!("{at}.{body}").as_bytes());
    let bytes = mac.finalize().into_bytes();
    Ok(format!("t={at},v1={}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}

async fn post(fleet: &Fleet, header: &str, body: &str) -> Result<Answer> {
    let url = format!("{}/webhooks/stripe", fleet.stack.control_planes[0].url());
    let call = Client::new().post(url).header("stripe-signature", header).body(body.to_owned());
    Answer::of(call).await
}

/// A call of Stripe as it should be.
pub(super) async fn stripe_says(fleet: &Fleet, event: &Value) -> Result<u16> {
    let body = event.to_string();
    Ok(post(fleet, &signature(SECRET, now_s()?, &body)?, &body).await?.status)
}

pub(super) fn event(id: &str, kind: &str, created: u64, invoice: &Invoice) -> Value {
    json!({ "id": id, "object": "event", "type": kind, "created": created,
            "data": { "object": invoice.json() } })
}

/// All that a webhook call may change.
async fn stored(fleet: &Fleet) -> Result<String> {
    let sql = "select (select jsonb_agg(to_jsonb(invoice) order by id) from invoice),
                      (select jsonb_agg(to_jsonb(delivery) order by invoice_id) from delivery),
                      (select count(*) from webhook_event)";
    fleet.stack.database.query(sql).await
}

pub(super) async fn payment(fleet: &Fleet, invoice: i64) -> Result<(String, String)> {
    let delivery = delivery(fleet, invoice).await?;
    let payment = delivery["payment"].as_str().unwrap_or("").to_owned();
    Ok((payment, invoice_state(fleet, invoice).await?))
}

pub(super) fn pair(payment: &str, state: &str) -> (String, String) {
    (payment.to_owned(), state.to_owned())
}

/// Payments that fail, are overdue and succeed; repeats, and events that come late.
#[tokio::test]
async fn what_stripe_says_moves_invoices_forward_only() -> Result<()> {
    let stripe = FakeStripe::start().await?;
    let fleet = with_stripe(&stripe).await?;
    customer(&fleet, "acme", "stripe").await?;
    let first = bill(&fleet, "acme", LINES).await?;
    let at_stripe = arrives_at_stripe(&fleet, &stripe, ("acme", first)).await?;
    let now = now_s()?;
    let failed = event("evt_1", "invoice.payment_failed", now, &at_stripe);
    assert_eq!(stripe_says(&fleet, &failed).await?, 200);
    assert_eq!(payment(&fleet, first).await?, pair("failed", "sent"));
    let overdue = event("evt_2", "invoice.overdue", now + 10, &at_stripe);
    assert_eq!(stripe_says(&fleet, &overdue).await?, 200);
    assert_eq!(payment(&fleet, first).await?, pair("overdue", "sent"));
    // It happened before, and is heard of afterwards.
    let late = event("evt_3", "invoice.payment_failed", now + 5, &at_stripe);
    assert_eq!(stripe_says(&fleet, &late).await?, 200);
    assert_eq!(payment(&fleet, first).await?, pair("overdue", "sent"));
    let paid = event("evt_4", "invoice.paid", now, &at_stripe);
    assert_eq!(stripe_says(&fleet, &paid).await?, 200);
    assert_eq!(payment(&fleet, first).await?, pair("paid", "paid"));

    let before = stored(&fleet).await?;
    for kind in ["invoice.paid", "invoice.payment_failed", "invoice.overdue", "invoice.voided"] {
        let again = event("evt_4", kind, now + 20, &at_stripe);
        assert_eq!(stripe_says(&fleet, &again).await?, 200, "{kind} repeated");
        let other = event(&format!("evt_{kind}"), kind, now + 20, &at_stripe);
        assert_eq!(stripe_says(&fleet, &other).await?, 200, "{kind} afterwards");
    }
    assert_eq!(stored(&fleet).await?, before);

    let second = bill(&fleet, "acme", LINES).await?;
    delivery_is(&fleet, second, "done").await?;
    let at_stripe = stripe.invoices_of("acme").pop().context("no invoice")?;
    let void = event("evt_5", "invoice.voided", now, &at_stripe);
    assert_eq!(stripe_says(&fleet, &void).await?, 200);
    assert_eq!(payment(&fleet, second).await?, pair("void", "void"));
    let paid = event("evt_6", "invoice.paid", now + 1, &at_stripe);
    assert_eq!(stripe_says(&fleet, &paid).await?, 200);
    assert_eq!(payment(&fleet, second).await?, pair("void", "void"));
    Ok(())
}

/// What is not signed as it should be, and what is about nothing of ours, changes nothing.
#[tokio::test]
async fn calls_that_are_not_stripes_change_nothing() -> Result<()> {
    let stripe = FakeStripe::start().await?;
    let fleet = with_stripe(&stripe).await?;
    customer(&fleet, "acme", "stripe").await?;
    let invoice = bill(&fleet, "acme", LINES).await?;
    let at_stripe = arrives_at_stripe(&fleet, &stripe, ("acme", invoice)).await?;
    let before = stored(&fleet).await?;
    let now = now_s()?;
    let body = event("evt_1", "invoice.paid", now, &at_stripe).to_string();
    let good = signature(SECRET, now, &body)?;
    for (what, header, body) in [
        ("no signature", String::new(), body.clone()),
        ("another secret", signature("whsec_another", now, &body)?, body.clone()),
        ("another body", good.clone(), body.replace("evt_1", "evt_2")),
        ("a replay", signature(SECRET, now - 400, &body)?, body.clone()),
        ("from the future", signature(SECRET, now + 400, &body)?, body.clone()),
        (
            "another time",
            good.replace(&format!("t={now}"), &format!("t={}", now + 1)),
            body.clone(),
        ),
    ] {
        let answer = post(&fleet, &header, &body).await?;
        assert_eq!(answer.status, 401, "{what}: {}", answer.body);
        assert_eq!(stored(&fleet).await?, before, "{what}");
    }
    let not_json = "{\"id\":";
    let answer = post(&fleet, &signature(SECRET, now, not_json)?, not_json).await?;
    assert_eq!(answer.status, 400, "{}", answer.body);

    let mut other = at_stripe.clone();
    other.metadata.insert("invoice_id".to_owned(), json!("ffffffffffff-1"));
    let mut elsewhere = at_stripe.clone();
    elsewhere.id = "in_elsewhere".to_owned();
    let mut nothing = at_stripe.clone();
    nothing.metadata.clear();
    for (what, event) in [
        ("another deployment's", event("evt_7", "invoice.paid", now, &other)),
        (
            "another invoice with the same reference",
            event("evt_8", "invoice.paid", now, &elsewhere),
        ),
        ("an invoice without reference", event("evt_9", "invoice.paid", now, &nothing)),
        ("an unknown kind", event("evt_10", "invoice.sent", now, &at_stripe)),
        (
            "no invoice",
            json!({ "id": "evt_11", "type": "charge.failed", "created": now, "data": {} }),
        ),
    ] {
        assert_eq!(stripe_says(&fleet, &event).await?, 200, "{what}");
        assert_eq!(stored(&fleet).await?, before, "{what}");
    }
    // One right signature of several is enough.
    let header = format!("{good},v1={}", "0".repeat(64));
    assert_eq!(post(&fleet, &header, &body).await?.status, 200);
    assert_eq!(payment(&fleet, invoice).await?, pair("paid", "paid"));
    // Nobody expects calls of a provider that is not configured.
    let url = format!("{}/webhooks/chargebee", fleet.stack.control_planes[0].url());
    assert_eq!(Answer::of(Client::new().post(url).body("{}")).await?.status, 401);
    Ok(())
}

/// Chargebee's calls have a name and a password; the state of the invoice counts.
#[tokio::test]
async fn what_chargebee_says_needs_its_password() -> Result<()> {
    let chargebee = FakeChargebee::start().await?;
    let fleet = with_chargebee(&chargebee).await?;
    customer(&fleet, "acme", "chargebee").await?;
    let invoice = bill(&fleet, "acme", LINES).await?;
    delivery_is(&fleet, invoice, "done").await?;
    let mut at_chargebee = chargebee.invoices_of("acme").pop().context("no invoice")?.json();
    let url = format!("{}/webhooks/chargebee", fleet.stack.control_planes[0].url());
    let says = async |password: &str, event: Value| {
        let call = Client::new().post(&url).basic_auth("chargebee", Some(password));
        anyhow::Ok(Answer::of(call.json(&event)).await?.status)
    };
    let good = "password-of-webhooks";
    let now = now_s()?;
    let mut event = |id: &str, kind: &str, status: &str, due: u64| {
        at_chargebee["status"] = json!(status);
        at_chargebee["due_date"] = json!(due);
        json!({ "id": id, "event_type": kind, "occurred_at": now, "content": { "invoice": at_chargebee } })
    };
    let before = stored(&fleet).await?;
    assert_eq!(says("wrong", event("ev_1", "payment_succeeded", "paid", now)).await?, 401);
    for unknown in [
        json!({ "id": "ev_2", "event_type": "customer_created", "occurred_at": now, "content": {} }),
        event("ev_3", "invoice_generated", "payment_due", now + 60),
    ] {
        assert_eq!(says(good, unknown).await?, 200);
    }
    assert_eq!(stored(&fleet).await?, before);
    for (id, kind, status, due, expected) in [
        ("ev_4", "payment_failed", "payment_due", now + 60, pair("failed", "sent")),
        ("ev_5", "invoice_updated", "not_paid", now - 60, pair("overdue", "sent")),
        ("ev_6", "payment_succeeded", "paid", now, pair("paid", "paid")),
        ("ev_6", "payment_succeeded", "paid", now, pair("paid", "paid")),
        ("ev_7", "invoice_updated", "voided", now, pair("paid", "paid")),
    ] {
        assert_eq!(says(good, event(id, kind, status, due)).await?, 200);
        assert_eq!(payment(&fleet, invoice).await?, expected, "{id}");
    }
    Ok(())
}
