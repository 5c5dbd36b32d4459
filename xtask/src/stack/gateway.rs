//! A gateway: one Envoy that runs the filter.

use std::{collections::BTreeMap, fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{port, process::Process, wall_clock::WallClock};

const START_WITHIN: Duration = Duration::from_secs(30);

pub struct Gateway {
    process: Process,
    port: u16,
    admin_port: u16,
    client: reqwest::Client,
}

impl Gateway {
    /// `config` makes Envoy's configuration from its port and that of its admin pages.
    pub(super) async fn start(
        envoy: &Path,
        folder: &Path,
        index: usize,
        arguments: Vec<String>,
        clock: Option<WallClock>,
        config: impl FnOnce(u16, u16) -> Result<String>,
    ) -> Result<Self> {
        let (port, admin_port) = (port::free()?, port::free()?);
        let file = folder.join(format!("envoy-{index}.yaml"));
        fs::write(&file, config(port, admin_port)?)?;
        let log = folder.join(format!("envoy-{index}.log"));
        let envoy = envoy.to_owned();
        let process = Process::new("Envoy", log, Signal::SIGKILL, move || {
            let mut command = Command::new(&envoy);
            command.arg("--config-path").arg(&file);
            command.args(&arguments);
            command.args([
                "--log-level",
                "info",
                "--component-log-level",
                "main:warning,upstream:warning,runtime:error",
            ]);
            // Envoys of one machine would otherwise have to agree on distinct base ids.
            command.arg("--disable-hot-restart");
            command
        })
        .by(clock);
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
        let gateway = Self { process, port, admin_port, client };
        gateway.restart().await?;
        Ok(gateway)
    }

    /// Where clients call: `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Of [`Gateway::url`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    pub(super) fn ports(&self) -> (u16, u16) {
        (self.port, self.admin_port)
    }

    /// Envoy's own pages.
    pub fn admin_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.admin_port)
    }

    /// All counters and gauges by their full names.
    pub async fn stats(&self) -> Result<BTreeMap<String, u64>> {
        let url = format!("{}/stats", self.admin_url());
        let text = self.client.get(url).send().await?.error_for_status()?.text().await?;
        Ok(parse_stats(&text))
    }

    /// One of the filter's counters, such as `admitted`; 0 until it first counts.
    pub async fn weir_stat(&self, name: &str) -> Result<u64> {
        let name = format!("wasmcustom.weir.{name}");
        Ok(self.stats().await?.get(&name).copied().unwrap_or(0))
    }

    /// What Envoy and the filter have in use, in bytes. What a native module has is of Envoy's
    /// allocator, which tells what of its memory is in use; what it keeps for later, or has in pieces,
    /// is more than a leak that a test can wait for. wasm modules have memory of their own, so what is
    /// resident is taken for them.
    pub async fn used_bytes(&self) -> Result<u64> {
        let id = self.pid().context("Envoy does not run")?;
        if !fs::read_to_string(format!("/proc/{id}/maps"))?.contains("libweir_filter.so") {
            return self.resident_bytes();
        }
        let url = format!("{}/memory", self.admin_url());
        let memory: Value = self.client.get(url).send().await?.error_for_status()?.json().await?;
        let allocated = memory["allocated"].as_str().context("no `allocated`")?;
        Ok(allocated.parse()?)
    }

    /// What Envoy has in memory, in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.process.resident_bytes()
    }

    /// All that it has logged.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(self.process.log()).context("Envoy's log")
    }

    /// Sets the wall clock of its host to so many seconds ahead; [`super::Builder::own_wall_clocks`].
    pub fn set_clock(&self, ahead_s: i64) -> Result<()> {
        self.process.set_clock(ahead_s)
    }

    /// Like `kill -9`: loses what was not acknowledged.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// It stands still until [`Gateway::go_on`].
    pub fn pause(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    pub fn go_on(&self) {
        self.process.signal(Signal::SIGCONT);
    }

    /// SIGTERM: Envoy's own way to end.
    pub fn stop(&self) {
        self.process.end(Signal::SIGTERM);
    }

    /// Starts it, again if it runs, on the same ports.
    pub async fn restart(&self) -> Result<()> {
        self.process.kill();
        let url = format!("{}/ready", self.admin_url());
        let ready = async || {
            self.client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success())
        };
        self.process.start_ready(START_WITHIN, ready).await
    }
}

/// Lines of `name: value`; histograms have no single value and are left out.
fn parse_stats(text: &str) -> BTreeMap<String, u64> {
    let lines = text.lines().filter_map(|line| line.rsplit_once(": "));
    lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}
