//! The router, and running it until it is told to stop.

use std::{error::Error, sync::Arc, time::Duration};

use axum::{Router, http::StatusCode};
use tokio::net::TcpListener;
use tower_http::{timeout::TimeoutLayer, trace::TraceLayer};

use crate::{
    admin, app::App, auth::Credentials, config::Config, database, edge, health, ledger::Ledger,
    telemetry,
};

/// No call takes longer than this, the long poll included.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Migrates the database and serves until SIGTERM or Ctrl-C; then finishes the calls under way.
pub async fn serve(config: Config) -> Result<(), Box<dyn Error>> {
    let db = database::connect(&config).await?;
    database::migrate(&db).await?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", config.listen))?;
    let app = App {
        credentials: Credentials::new(&config, db.clone()),
        ledger: Ledger::start(db.clone()),
        db,
        metrics: telemetry::init_metrics()?,
        config: Arc::new(config),
    };
    tracing::info!(address = %listener.local_addr()?, "listening");
    axum::serve(listener, router(app)).with_graceful_shutdown(stop_signal()?).await?;
    tracing::info!("stopped");
    Ok(())
}

/// All that the control plane answers.
pub fn router(app: App) -> Router {
    Router::new()
        .merge(health::router())
        .merge(edge::router(&app))
        .merge(admin::router(app.clone()))
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, CALL_TIMEOUT))
        .layer(TraceLayer::new_for_http())
        .with_state(app)
}

fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    })
}
