//! The clients under `sdk/` against a running control plane.

use std::{
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use axum::{Router, body::Bytes, extract::State, http::HeaderMap, response::IntoResponse};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use xtask::{setup, workspace};

use super::stored;
use crate::harness::*;

/// A proxy whose every other answer is lost: what was called is carried out, and the caller gets a 502.
struct Lossy {
    address: String,
    calls: Arc<AtomicU64>,
    serving: JoinHandle<()>,
}

impl Drop for Lossy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[derive(Clone)]
struct Behind {
    client: reqwest::Client,
    url: String,
    calls: Arc<AtomicU64>,
}

impl Lossy {
    async fn start(fleet: &Fleet) -> Result<Self> {
        let calls = Arc::new(AtomicU64::new(0));
        let url = format!("{}/v1/usage", fleet.stack.control_planes[0].url());
        let behind = Behind { client: reqwest::Client::new(), url, calls: Arc::clone(&calls) };
        let router = Router::new().fallback(pass_on).with_state(behind);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        let serving = tokio::spawn(async move {
            let _ended = axum::serve(listener, router).await;
        });
        Ok(Self { address, calls, serving })
    }
}

async fn pass_on(
    State(behind): State<Behind>,
    mut headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    headers.remove("host");
    let request = behind.client.post(&behind.url).headers(headers).body(body);
    let Ok(answer) = request.send().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = answer.bytes().await.unwrap_or_default();
    if behind.calls.fetch_add(1, Ordering::Relaxed) % 2 == 0 {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    (status, headers, body).into_response()
}

/// Has a client do what its scenario says, through a proxy that loses answers: it repeats calls with
/// their keys, so that each counts once; it says what was refused; and it waits as it is told.
async fn does_its_scenario(run: impl FnOnce() -> Result<Command> + Send + 'static) -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(0)).await?;
    fleet.tenant("acme", &[monthly(100)], &[]).await?;
    fleet.tenant("slow", &[continuous("slow", "tokens", 1, 1, 500)], &[]).await?;
    let lossy = Lossy::start(&fleet).await?;
    let made =
        fleet.admin.post("/access-tokens", &json!({ "role": "usage", "name": "sdk" })).await?;
    let token = made.ok()?["token"].as_str().context("no token")?.to_owned();
    let address = lossy.address.clone();
    let output =
        tokio::task::spawn_blocking(move || anyhow::Ok(run()?.args([address, token]).output()?));
    let output = output.await??;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the scenario failed: {errors}");
    let told: Value = serde_json::from_slice(&output.stdout)?;

    assert_eq!(told["first"], told["again"], "{told}");
    assert_eq!((&told["first"]["tokens"], &told["taken"]["tokens"]), (&json!(70), &json!(19)));
    assert_eq!(told["taken"]["limits"][0]["remaining"], 10, "{told}");
    let refused = json!({ "violated": ["monthly"], "waits": true, "key": "job-2" });
    assert_eq!((&told["refused"], &told["conflict"]), (&refused, &json!(409)));
    assert_eq!(told["waited"], json!([1, 1]));
    assert_eq!(stored(&fleet, "acme").await?, "90|1");
    assert_eq!(stored(&fleet, "slow").await?, "2|0");
    assert!(lossy.calls.load(Ordering::Relaxed) >= 16);
    Ok(())
}

fn sdk(language: &str) -> PathBuf {
    workspace().join("sdk").join(language)
}

#[tokio::test]
async fn the_client_for_python_does_its_scenario() -> Result<()> {
    does_its_scenario(|| {
        let mut python = Command::new("python3");
        python.arg("-B").arg(sdk("python").join("scenario.py"));
        let found = Command::new("python3").arg("--version").output();
        found.context("this test needs Python 3.8 or later; install it, such as with `apt-get install python3`")?;
        Ok(python)
    })
    .await
}

#[tokio::test]
async fn the_client_for_typescript_does_its_scenario() -> Result<()> {
    let into = workspace().join(format!(".weir/sdk-typescript-{}", std::process::id()));
    std::fs::create_dir_all(&into)?;
    does_its_scenario(move || {
        let compiler = setup::typescript()?;
        let mut tsc = Command::new("node");
        tsc.arg(compiler).arg("--project").arg(sdk("typescript")).arg("--outDir").arg(&into);
        let output = tsc.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        std::fs::copy(sdk("typescript").join("package.json"), into.join("package.json"))?;
        let mut node = Command::new("node");
        node.arg(into.join("scenario.js"));
        Ok(node)
    })
    .await
}
