//! The edge API: what gateways call. Paths and types are in [`weir_domain::protocol`].
//!
//! | module | subject |
//! |---|---|
//! | [`leases`] | `POST /edge/v1/leases` |
//! | [`usage`] | `POST /edge/v1/usage` |
//! | [`config`] | `GET /edge/v1/config`, the long poll |
//! | [`changes`] | what this replica knows of changes |
//! | [`gateways`] | which gateways there are, and the policy that each has |

pub mod changes;
pub mod config;
pub mod gateways;
pub mod leases;
mod usage;

use axum::{
    Router, middleware,
    routing::{get, post},
};
use weir_domain::protocol;

use crate::{app::App, auth, problem::ApiError};

/// All that gateways call, behind their token.
pub fn router(app: &App) -> Router<App> {
    Router::new()
        .route(protocol::LEASES_PATH, post(leases::lease))
        .route(protocol::CONFIG_PATH, get(config::config))
        .merge(usage::router())
        .route_layer(middleware::from_fn_with_state(app.clone(), auth::require_gateway))
}

/// Refuses callers of another protocol version.
pub fn check_version(version: u32) -> Result<(), ApiError> {
    if version == protocol::VERSION {
        return Ok(());
    }
    Err(ApiError::field(
        "version",
        format!(
            "this control plane serves version {} of the edge API, not {version}; \
                 use a filter of the same release",
            protocol::VERSION
        ),
    ))
}

/// Checks the id of a gateway or worker.
pub fn check_id(field: &str, id: &str) -> Result<(), ApiError> {
    weir_domain::id::check(id).map_err(|error| ApiError::field(field, error))
}
