//! What every handler shares.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::PgPool;
use tokio::sync::watch;

use crate::{
    auth::Credentials,
    config::Config,
    edge::{changes::Changes, gateways::Gateways},
    lease::{Leases, link::Redis},
    ledger::Ledger,
    provider::{Providers, settings::Settings},
    services::{rated::Compiled, seats::Seats},
};

/// Shared by all handlers; cloning it is cheap.
#[derive(Clone)]
pub struct App {
    pub config: Arc<Config>,
    pub db: PgPool,
    pub credentials: Credentials,
    pub ledger: Ledger,
    pub metrics: PrometheusHandle,
    pub redis: Arc<Redis>,
    pub leases: Leases,
    pub changes: Changes,
    /// Debits for callers without a gateway.
    pub seats: Arc<Seats>,
    /// The policy that rates what they ask.
    pub compiled: Arc<Compiled>,
    pub gateways: Gateways,
    /// Which billing providers can be used.
    pub providers: Arc<Settings>,
    /// Calls of them, at one pace for the whole process.
    pub calls: Arc<Providers>,
    /// True once the process has been told to stop: calls that wait answer at once.
    pub stopping: watch::Receiver<bool>,
}
