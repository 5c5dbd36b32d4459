//! Stripe's calls. The header `Stripe-Signature: t=<seconds>,v1=<hex>[,v1=<hex>]` has the HMAC-SHA256
//! of `<t>.<body>` under the endpoint's secret (<https://docs.stripe.com/webhooks#verify-manually>).

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde::Deserialize;
use sha2::Sha256;

use super::apply::{Change, Event, apply, count};
use crate::{
    app::App,
    extract::parse_json,
    problem::ApiError,
    provider::{Kind, stripe::Invoice},
};

/// How old or how new a call may be by our clock, in seconds.
const TOLERANCE_S: i64 = 300;

#[derive(Debug, Deserialize)]
struct Call {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    /// In seconds since 1970.
    created: i64,
    data: serde_json::Value,
}

#[derive(Debug, Deserialize)]
struct Data {
    object: Invoice,
}

pub(super) async fn receive(
    State(app): State<App>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let secret = app.providers.stripe.as_ref().and_then(|stripe| stripe.webhook_secret.as_ref());
    let secret = secret.ok_or(ApiError::Unauthorized(
        "calls of Stripe are not expected here: WEIR_STRIPE_WEBHOOK_SECRET is not set",
    ))?;
    let signature = headers.get("stripe-signature").and_then(|value| value.to_str().ok());
    let now = Timestamp::now().as_second();
    if let Err(why) = verify(signature.unwrap_or(""), &body, secret.reveal(), now) {
        count(Kind::Stripe, "refused");
        return Err(ApiError::Unauthorized(why));
    }
    let Call { id, kind, created, data } = parse_json(&body)?;
    let change = match kind.as_str() {
        "invoice.paid" => Change::Paid,
        "invoice.payment_failed" => Change::Failed,
        "invoice.overdue" => Change::Overdue,
        "invoice.voided" => Change::Void,
        _ => {
            count(Kind::Stripe, "ignored");
            return Ok(StatusCode::OK);
        }
    };
    let Data { object: mut invoice } =
        serde_json::from_value(data).map_err(|error| ApiError::field("data.object", error))?;
    let event = Event {
        provider: Kind::Stripe,
        id,
        at: Timestamp::from_second(created).map_err(|error| ApiError::field("created", error))?,
        reference: invoice.metadata.remove("invoice_id").unwrap_or_default(),
        invoice: invoice.id,
        change,
    };
    apply(&app.db, &event).await.map(|()| StatusCode::OK)
}

/// Whether `body` was signed with `secret` at about `now`; otherwise why not.
fn verify(signature: &str, body: &[u8], secret: &str, now: i64) -> Result<(), &'static str> {
    let fields = || signature.split(',').filter_map(|field| field.trim().split_once('='));
    let at = fields().find(|(name, _)| *name == "t").map(|(_, value)| value);
    let at = at.ok_or("the header Stripe-Signature is missing, or has no time t")?;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())
        .map_err(|_| "the secret can't be used as a key")?;
    mac.update(at.as_bytes());
    mac.update(b".");
    mac.update(body);
    // `verify_slice` compares in constant time.
    let signed = fields()
        .filter(|(name, _)| *name == "v1")
        .filter_map(|(_, value)| from_hex(value))
        .any(|value| mac.clone().verify_slice(&value).is_ok());
    if !signed {
        return Err(
            "no signature v1 in the header Stripe-Signature is right; check WEIR_STRIPE_WEBHOOK_SECRET",
        );
    }
    let at: i64 =
        at.parse().map_err(|_| "the time t in the header Stripe-Signature is no number")?;
    if at.abs_diff(now) > TOLERANCE_S.unsigned_abs() {
        return Err("the call was signed more than 5 minutes ago, or from now; check the clock");
    }
    Ok(())
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_test_secret";
    // printf '%s' '1492774577.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_test_secret
    const SIGNED: &str = "799c4ba7bb339f3c8601adfd112f0e477c930a268be1243d341abb8286501c2f";

    #[test]
    fn a_signature_is_of_its_body_secret_and_time() {
        let body = br#"{"id":"evt_1"}"#;
        let header = format!("t=1492774577,v1={},v1={SIGNED},v0=6f", "0".repeat(64));
        let now = 1_492_774_577;
        assert_eq!(verify(&header, body, SECRET, now), Ok(()));
        assert_eq!(verify(&header, body, SECRET, now + 300), Ok(()));
        assert!(verify(&header, body, SECRET, now + 301).is_err());
        assert!(verify(&header, body, SECRET, now - 301).is_err());
        assert!(verify(&header, br#"{"id":"evt_2"}"#, SECRET, now).is_err());
        assert!(verify(&header, body, "whsec_other", now).is_err());
        let later = header.replace("t=1492774577", "t=1492774578");
        assert!(verify(&later, body, SECRET, now).is_err());
        for header in
            ["", "t=1492774577", "t=1492774577,v1=", "t=1492774577,v1=zz", &format!("v1={SIGNED}")]
        {
            assert!(verify(header, body, SECRET, now).is_err(), "{header}");
        }
    }
}
