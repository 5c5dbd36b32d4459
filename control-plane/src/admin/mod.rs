//! The admin API, `/admin/v1`: what operators do with plans, tenants and credentials.
//!
//! One module per resource, with its router, types, handlers and SQL together. To add one: write
//! `pub fn router() -> OpenApiRouter<App>` with `routes!` and merge it in [`resources`]; the
//! authorization, the problem answers and the OpenAPI document come from here.

pub mod access_tokens;
pub mod account_state;
pub mod api_keys;
pub mod buckets;
pub mod corrections;
pub mod credit_notes;
pub mod credits;
pub mod deliveries;
pub mod document;
pub mod gateways;
pub mod input;
pub mod invoice_settings;
pub mod invoices;
pub mod line_usage;
pub mod negotiation;
pub mod page;
pub mod plan_change;
pub mod plan_parts;
pub mod plans;
pub mod policies;
pub mod rating_policy;
pub mod reconciliation;
pub mod rehearsal;
pub mod tenant_provider;
pub mod tenants;
pub mod usage;

use axum::{Router, extract::DefaultBodyLimit, middleware, routing::any};
use utoipa_axum::router::OpenApiRouter;

use crate::{
    app::App,
    auth,
    problem::{no_such_endpoint, wrong_method},
};

/// Where the admin API stands.
pub const PREFIX: &str = "/admin/v1";

/// The largest body of an admin call, in bytes.
const MAX_BODY: usize = 256 * 1024;

/// Every endpoint, without the prefix.
fn resources() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(plans::router())
        .merge(plan_parts::router())
        .merge(policies::router())
        .merge(rehearsal::router())
        .merge(rating_policy::router())
        .merge(gateways::router())
        .merge(tenants::router())
        .merge(plan_change::router())
        .merge(account_state::router())
        .merge(api_keys::router())
        .merge(access_tokens::router())
        .merge(invoices::router())
        .merge(line_usage::router())
        .merge(credit_notes::router())
        .merge(invoice_settings::router())
        .merge(credits::router())
        .merge(deliveries::router())
        .merge(usage::router())
        .merge(corrections::router())
        .merge(reconciliation::router())
        .merge(buckets::router())
        .merge(document::router())
}

/// The admin API, at its whole paths. Without an operator's token every path is a 401, so
/// that a stranger does not learn which ones exist.
pub fn router(app: App) -> Router<App> {
    let operators_only = middleware::from_fn_with_state(app, auth::require_admin);
    let (router, _) = resources().split_for_parts();
    let router = router
        .fallback(no_such_endpoint)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(operators_only.clone());
    Router::new()
        .nest(PREFIX, router)
        // What is nested does not hold this path.
        .route(&format!("{PREFIX}/"), any(no_such_endpoint).layer(operators_only))
}
