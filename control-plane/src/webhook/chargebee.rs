//! Chargebee's calls, with a name and a password and no signature
//! (<https://apidocs.chargebee.com/docs/api/events>).

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
};
use jiff::Timestamp;
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::apply::{Change, Event, apply, count};
use crate::{
    app::App,
    auth::hash,
    extract::parse_json,
    problem::ApiError,
    provider::{Kind, basic_credential},
};

#[derive(Debug, Deserialize)]
struct Call {
    id: String,
    event_type: String,
    /// In seconds since 1970.
    occurred_at: i64,
    #[serde(default)]
    content: Content,
}

#[derive(Debug, Default, Deserialize)]
struct Content {
    invoice: Option<Invoice>,
}

#[derive(Debug, Deserialize)]
struct Invoice {
    id: String,
    status: String,
    po_number: Option<String>,
    /// In seconds since 1970.
    due_date: Option<i64>,
}

pub(super) async fn receive(
    State(app): State<App>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let webhook = app.providers.chargebee.as_ref().and_then(|settings| settings.webhook.as_ref());
    let (name, password) = webhook.ok_or(ApiError::Unauthorized(
        "calls of Chargebee are not expected here: WEIR_CHARGEBEE_WEBHOOK_USER is not set",
    ))?;
    let expected = basic_credential(name.reveal(), password.reveal());
    let presented = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    // Hashes are of one length, and equal where the texts are.
    let expected = hash(expected.to_str().map_err(ApiError::internal)?);
    if !bool::from(expected.ct_eq(&hash(presented.unwrap_or("")))) {
        count(Kind::Chargebee, "refused");
        return Err(ApiError::Unauthorized(
            "name or password are not those of WEIR_CHARGEBEE_WEBHOOK_USER and WEIR_CHARGEBEE_WEBHOOK_PASSWORD",
        ));
    }
    let Call { id, event_type, occurred_at, content } = parse_json(&body)?;
    let known = content.invoice.and_then(|invoice| {
        let change = change(&event_type, &invoice, occurred_at)?;
        Some((change, invoice))
    });
    let Some((change, invoice)) = known else {
        count(Kind::Chargebee, "ignored");
        return Ok(StatusCode::OK);
    };
    let event = Event {
        provider: Kind::Chargebee,
        id,
        at: Timestamp::from_second(occurred_at)
            .map_err(|error| ApiError::field("occurred_at", error))?,
        reference: invoice.po_number.unwrap_or_default(),
        invoice: invoice.id,
        change,
    };
    apply(&app.db, &event).await.map(|()| StatusCode::OK)
}

/// What a call says: the state that the invoice was in counts, and for an unpaid one the event.
fn change(event_type: &str, invoice: &Invoice, occurred_at: i64) -> Option<Change> {
    match (invoice.status.as_str(), event_type) {
        ("paid", _) => Some(Change::Paid),
        ("voided", _) => Some(Change::Void),
        ("payment_due" | "not_paid", "payment_failed") => Some(Change::Failed),
        ("payment_due" | "not_paid", _) => {
            invoice.due_date.is_some_and(|due| due < occurred_at).then_some(Change::Overdue)
        }
        _ => None,
    }
}
