//! Structured logs and metrics.

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use thiserror::Error;
use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// The bounds of histograms of times.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
/// The bounds of the histogram of batches per commit.
const COUNTS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 256.0];

#[derive(Debug, Error)]
pub enum TelemetryError {
    #[error("log is not a filter such as info or weir=debug,sqlx=warn")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("metrics cannot be collected")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// Writes logs to standard error from now on.
pub fn init_logs(config: &Config) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&config.log)?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Json => logs.json().flatten_event(true).init(),
        LogFormat::Text => logs.init(),
    }
    Ok(())
}

/// Collects metrics from now on, in this process.
pub fn init_metrics() -> Result<PrometheusHandle, TelemetryError> {
    let times = Matcher::Suffix("_seconds".to_owned());
    let batches = Matcher::Full("weir_usage_commit_batches".to_owned());
    Ok(PrometheusBuilder::new()
        .set_buckets_for_metric(times, SECONDS)?
        .set_buckets_for_metric(batches, COUNTS)?
        .install_recorder()?)
}
