//! The router, and running it until it is told to stop.

use std::{error::Error, sync::Arc, time::Duration};

use axum::{Router, http::StatusCode};
use tokio::{net::TcpListener, sync::watch};
use tower_http::{timeout::TimeoutLayer, trace::TraceLayer};

use crate::{
    admin,
    app::App,
    auth::Credentials,
    config::Config,
    database,
    delivery::worker::Worker,
    edge::{self, changes::Changes, gateways::Gateways},
    health,
    invoice::scheduler::Scheduler,
    lease::{Leases, link::Redis, tenants::Tenants},
    ledger::Ledger,
    opa, plan_change, portal,
    problem::{no_such_endpoint, wrong_method},
    provider::{Providers, settings::Settings},
    services, telemetry, webhook,
};

/// No call takes longer than this, the long poll included.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Migrates the database and serves until SIGTERM or Ctrl-C; then finishes the calls under way.
pub async fn serve(config: Config) -> Result<(), Box<dyn Error>> {
    let db = database::connect(&config).await?;
    let redis = Redis::new(config.redis_url.reveal(), db.clone()).map_err(|error| {
        format!("redis_url is not an address such as redis://host:port/0: {error}")
    })?;
    let redis = Arc::new(redis);
    database::migrate(&db).await?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", config.listen))?;
    let (changes, watcher) = Changes::new(db.clone());
    let stale_for = Duration::from_millis(config.stale_terms_ms);
    let tenants = Tenants::new(db.clone(), changes.clone(), stale_for);
    let (stop, stopping) = watch::channel(false);
    let settings = Settings::of(&config)?;
    let providers = Arc::new(Providers::new(&settings)?);
    let worker =
        Worker::new(db.clone(), Arc::clone(&providers), settings.timeout, stopping.clone());
    let app = App {
        calls: providers,
        providers: Arc::new(settings),
        leases: Leases::new(db.clone(), Arc::clone(&redis), tenants.clone(), config.lease_ttl_ms),
        redis,
        changes,
        seats: services::seats::Seats::new(),
        compiled: Arc::default(),
        gateways: Gateways::new(),
        stopping: stopping.clone(),
        credentials: Credentials::new(&config, db.clone()),
        ledger: Ledger::start(db.clone()),
        db,
        metrics: telemetry::init_metrics()?,
        config: Arc::new(config),
    };
    let watching = tokio::spawn(async move {
        watcher.run(stopping, &tenants).await;
    });
    let moving = tokio::spawn(plan_change::run(app.db.clone(), app.stopping.clone()));
    let delivering = tokio::spawn(worker.run());
    let billing = Scheduler::new(app.db.clone(), &app.config)
        .map(|scheduler| tokio::spawn(scheduler.run(app.stopping.clone())));
    tracing::info!(address = %listener.local_addr()?, "listening");
    if let Err(error) = app.redis.link().await {
        tracing::warn!("no leases until Redis can be reached: {error}");
    }
    let signal = stop_signal()?;
    let told_to_stop = async move {
        signal.await;
        // Long polls answer now, or they would hold the shutdown up.
        stop.send_replace(true);
    };
    axum::serve(listener, router(app)).with_graceful_shutdown(told_to_stop).await?;
    watching.await?;
    moving.await?;
    delivering.await?;
    if let Some(billing) = billing {
        billing.await?;
    }
    tracing::info!("stopped");
    Ok(())
}

/// All that the control plane answers.
pub fn router(app: App) -> Router {
    Router::new()
        .merge(health::router())
        .merge(edge::router(&app))
        .merge(admin::router(app.clone()))
        .merge(services::router(&app))
        .merge(opa::router(app.clone()))
        .merge(portal::router())
        .merge(webhook::router())
        .fallback(no_such_endpoint)
        .method_not_allowed_fallback(wrong_method)
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
