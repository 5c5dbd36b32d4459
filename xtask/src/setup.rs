//! Provides what the stack and the tests need and the machine lacks.
//!
//! What is fetched is kept in the user's cache folder ([`cache`]) so that a second clone starts
//! fast; Redis and Postgres come from the system. Each failure names its remedy.

mod apt;
mod cache;
mod envoy;
mod llm_clients;
mod python;
mod rust;
mod system;
mod typescript;
mod wasm_bindgen;

use std::path::PathBuf;

use anyhow::Result;

pub use self::{envoy::VERSION as ENVOY_VERSION, rust::WASM_TARGETS};
use crate::progress::step;

/// The programs that a stack runs.
#[derive(Debug, Clone)]
pub struct Tools {
    pub envoy: PathBuf,
    pub redis_server: PathBuf,
    /// The folder with `initdb`, `postgres` and `psql`.
    pub postgres_bin: PathBuf,
}

/// Everything to build and run a stack.
pub fn tools() -> Result<Tools> {
    rust_targets()?;
    Ok(Tools {
        envoy: step(&format!("Envoy {ENVOY_VERSION}"), |step| found(envoy::provide(step)?))?,
        redis_server: step("Redis", |step| found(system::redis_server(step)?))?,
        postgres_bin: postgres_bin()?,
    })
}

/// The folder with `initdb`, `postgres` and `psql`.
pub fn postgres_bin() -> Result<PathBuf> {
    step("Postgres", |step| found(system::postgres_bin(step)?))
}

/// rustfmt and clippy, for the checks.
pub fn lint_tools() -> Result<()> {
    step("rustfmt and clippy", |step| Ok(((), rust::lint_tools(step)?)))
}

/// The runner of wasm-bindgen tests, at the version that Cargo.lock names, and Node, which it calls.
pub fn wasm_test_runner() -> Result<PathBuf> {
    rust_targets()?;
    step("Node", |step| found(system::node(step)?))?;
    step("wasm-bindgen test runner", |step| found(wasm_bindgen::provide_test_runner(step)?))
}

/// A Python with the clients `openai` and `anthropic`.
pub fn llm_clients() -> Result<PathBuf> {
    step("the clients of OpenAI and Anthropic", |step| found(llm_clients::provide(step)?))
}

/// The TypeScript compiler, a script for `node`, which is provided too.
pub fn typescript() -> Result<PathBuf> {
    step("Node", |step| found(system::node(step)?))?;
    step("TypeScript", |step| found(typescript::provide(step)?))
}

/// wasm32-wasip1 for Envoy, wasm32-unknown-unknown for tests.
pub fn rust_targets() -> Result<()> {
    step("Rust's wasm targets", |step| Ok(((), rust::wasm_targets(step)?)))
}

fn found(path: PathBuf) -> Result<(PathBuf, String)> {
    let shown = path.display().to_string();
    Ok((path, shown))
}
