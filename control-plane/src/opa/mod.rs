//! What callers and tools find that are made for the Open Policy Agent: its REST API, `/v1`.
//!
//! | module | subject |
//! |---|---|
//! | [`policies`] | `/v1/policies` |
//! | [`answer`] | errors in OPA's form |

pub mod answer;
pub mod policies;

use axum::{Router, extract::DefaultBodyLimit, middleware};
use utoipa_axum::router::OpenApiRouter;
use weir_domain::protocol::MAX_POLICY_BYTES;

use crate::{app::App, auth};

/// Where this API stands.
pub const PREFIX: &str = "/v1";

/// Every endpoint for operators, without the prefix.
pub fn resources() -> OpenApiRouter<App> {
    OpenApiRouter::new().merge(policies::router())
}

/// All of it, at its whole paths. Policies are for operators.
pub fn router(app: App) -> Router<App> {
    let operators_only = middleware::from_fn_with_state(app, auth::require_admin);
    let (router, _) = resources().split_for_parts();
    let router =
        router.layer(DefaultBodyLimit::max(2 * MAX_POLICY_BYTES)).route_layer(operators_only);
    Router::new().nest(PREFIX, router)
}
