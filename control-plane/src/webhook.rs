//! `/webhooks/stripe` and `/webhooks/chargebee`: what providers say of invoices that they got.
//!
//! Calls may be repeated and come in any order. What was carried out is noted by the id of its event,
//! and states only move forward: what is paid or void stays so.

mod apply;
mod chargebee;
mod stripe;

use axum::{Router, extract::DefaultBodyLimit, routing::post};

use crate::app::App;

/// The largest body, in bytes.
const MAX_BODY: usize = 1 << 20;

pub fn router() -> Router<App> {
    Router::new()
        .route("/webhooks/stripe", post(stripe::receive))
        .route("/webhooks/chargebee", post(chargebee::receive))
        .layer(DefaultBodyLimit::max(MAX_BODY))
}
