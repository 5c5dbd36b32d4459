//! The service that is protected: answers `ok` and counts what reached it. `/slow` takes a second.
//! After an upgrade to WebSocket it sends back all that it gets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinHandle};

pub struct Upstream {
    port: u16,
    requests: Arc<AtomicU64>,
    server: JoinHandle<()>,
}

impl Upstream {
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let requests = Arc::new(AtomicU64::new(0));
        let router = Router::new().fallback(answer).with_state(requests.clone());
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the upstream ended: {error}");
            }
        });
        Ok(Self { port, requests, server })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// All that reached it since it started.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(requests): State<Arc<AtomicU64>>, mut request: Request) -> Response {
    requests.fetch_add(1, Ordering::SeqCst);
    if request.uri().path() == "/slow" {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    if request.headers().contains_key("upgrade")
        && let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>()
    {
        tokio::spawn(echo(upgrade));
        let headers = [("connection", "upgrade"), ("upgrade", "websocket")];
        return (StatusCode::SWITCHING_PROTOCOLS, headers).into_response();
    }
    format!("ok {}\n", request.uri().path()).into_response()
}

async fn echo(upgrade: OnUpgrade) {
    let Ok(upgraded) = upgrade.await else { return };
    let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
    // An error is the client's end.
    let _ = tokio::io::copy(&mut from, &mut to).await;
}
