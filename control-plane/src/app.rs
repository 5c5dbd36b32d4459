//! What every handler shares.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::PgPool;

use crate::{auth::Credentials, config::Config, ledger::Ledger};

/// Shared by all handlers; cloning it is cheap.
#[derive(Clone)]
pub struct App {
    pub config: Arc<Config>,
    pub db: PgPool,
    pub credentials: Credentials,
    pub ledger: Ledger,
    pub metrics: PrometheusHandle,
}
