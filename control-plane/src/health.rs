//! `/healthz`, `/readyz` and `/metrics`: open to anybody, and they tell nothing about tenants.

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use serde::Serialize;

use crate::app::App;

pub fn router() -> Router<App> {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(|State(app): State<App>| async move { app.metrics.render() }))
}

/// Which dependency is up, by name.
#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    postgres: &'static str,
    redis: &'static str,
}

async fn ready(State(app): State<App>) -> (StatusCode, Json<Readiness>) {
    let postgres = async { sqlx::query("select 1").execute(&app.db).await.is_ok() };
    let (postgres, redis) = tokio::join!(postgres, app.redis.is_up());
    let ready = postgres && redis;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = |up| if up { "up" } else { "down" };
    (status, Json(Readiness { ready, postgres: word(postgres), redis: word(redis) }))
}
