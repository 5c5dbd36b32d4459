//! A replica of the control plane.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::{port, process::Process, wall_clock::WallClock};

/// Migrations run before it is ready.
const START_WITHIN: Duration = Duration::from_secs(30);

/// What all replicas of a stack have in common.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) program: PathBuf,
    /// `WEIR_*`, all but the address to listen on.
    pub(super) environment: Vec<(String, String)>,
}

impl Settings {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WEIR_")) {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs `weir` with these arguments to its end.
    pub(super) async fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::null());
        tokio::task::spawn_blocking(move || command.output()).await?.context("could not start weir")
    }
}

pub struct ControlPlane {
    process: Process,
    port: u16,
    client: reqwest::Client,
}

impl ControlPlane {
    pub(super) async fn start(
        settings: &Settings,
        folder: &Path,
        index: usize,
        clock: Option<WallClock>,
    ) -> Result<Self> {
        let port = port::free()?;
        let log = folder.join(format!("control-plane-{index}.log"));
        let settings = settings.clone();
        let process = Process::new("the control plane", log, Signal::SIGKILL, move || {
            let mut command = settings.command();
            command.arg("serve").env("WEIR_LISTEN", format!("127.0.0.1:{port}"));
            command
        })
        .by(clock);
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
        let control_plane = Self { process, port, client };
        control_plane.restart().await?;
        Ok(control_plane)
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// `http://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// All that it has logged.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.process.log())?)
    }

    /// Sets the wall clock of its host to so many seconds ahead; [`super::Builder::own_wall_clocks`].
    pub fn set_clock(&self, ahead_s: i64) -> Result<()> {
        self.process.set_clock(ahead_s)
    }

    /// Like `kill -9`.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// SIGTERM: it ends after answering what it has begun.
    pub fn stop(&self) {
        self.process.end(Signal::SIGTERM);
    }

    /// Starts it, again if it runs, on the same port; returns when it is ready.
    pub async fn restart(&self) -> Result<()> {
        self.process.kill();
        let url = format!("{}/readyz", self.url());
        let ready = async || {
            self.client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success())
        };
        self.process.start_ready(START_WITHIN, ready).await
    }
}
