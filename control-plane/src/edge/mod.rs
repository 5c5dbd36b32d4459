//! The edge API (`/edge/v1`): what gateways call, with a gateway token.

use axum::{Router, middleware};

use crate::{app::App, auth};

mod usage;

pub fn router(app: &App) -> Router<App> {
    Router::new()
        .merge(usage::router())
        .route_layer(middleware::from_fn_with_state(app.clone(), auth::require_gateway))
}
