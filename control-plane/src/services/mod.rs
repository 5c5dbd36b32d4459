//! For services that are not behind Envoy: they report what was used, or ask before they use it.
//!
//! This process takes tokens as a gateway of its own ([`seats`]), from the same buckets as all others,
//! and writes to the same ledger ([`store`]). For what is asked for beforehand the order is: debit,
//! commit, answer. What is lost on the way stays unspent, and nothing is admitted without a debit.
//!
//! | module | subject |
//! |---|---|
//! | [`usage`] | `POST /v1/usage` |
//! | [`data_api`] | `POST /v1/data/openclaw/rate_limit/…`, for callers that were made for OPA |
//! | [`opa_input`] | what those callers say |
//! | [`rated`] | what it costs |
//! | [`counted`] | the order of debit, commit and answer, and what a repeat is told |
//! | [`seats`] | debits, as a gateway |
//! | [`store`] | the ledger's side |

pub mod counted;
pub mod data_api;
pub mod opa_input;
pub mod rated;
pub mod seats;
pub mod store;
pub mod usage;

use axum::{Router, extract::DefaultBodyLimit};
use utoipa_axum::router::OpenApiRouter;

use crate::{app::App, problem::ApiError};

/// The largest body, in bytes.
const MAX_BODY: usize = 256 * 1024;

/// Every endpoint, at its whole path.
pub fn resources() -> OpenApiRouter<App> {
    OpenApiRouter::new().merge(usage::resources()).merge(data_api::resources())
}

pub fn router(app: &App) -> Router<App> {
    Router::new()
        .merge(usage::router(app))
        .merge(data_api::router(app))
        .layer(DefaultBodyLimit::max(MAX_BODY))
}

/// Carries `work` out to its end, also where the caller leaves: what was debited is then recorded or
/// given back.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::spawn(work).await.map_err(ApiError::internal)?
}
