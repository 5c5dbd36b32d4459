//! A private Redis that keeps nothing: a restart is a wipe, which Weir must survive.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    port,
    process::{Process, wait_for},
    wall_clock::WallClock,
};

/// How long Redis may take to start, and a replica to catch up.
const WITHIN: Duration = Duration::from_secs(10);

pub struct Redis {
    process: Process,
    port: u16,
    server: PathBuf,
    folder: PathBuf,
}

impl Redis {
    pub(super) async fn start(
        server: &Path,
        folder: &Path,
        clock: Option<WallClock>,
    ) -> Result<Self> {
        let port = port::free()?;
        let log = folder.join("redis.log");
        let (server, folder) = (server.to_owned(), folder.to_owned());
        let (program, data) = (server.clone(), folder.clone());
        let process = Process::new("Redis", log, Signal::SIGKILL, move || {
            let mut command = Command::new(&program);
            command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
            command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(&data);
            command
        })
        .by(clock);
        let redis = Self { process, port, server, folder };
        redis.restart().await?;
        Ok(redis)
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sets the wall clock of its host to so many seconds ahead; [`super::Builder::own_wall_clocks`].
    pub fn set_clock(&self, ahead_s: i64) -> Result<()> {
        self.process.set_clock(ahead_s)
    }

    /// Like `kill -9`: all buckets are lost.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Starts it again, empty, on the same port.
    pub async fn restart(&self) -> Result<()> {
        self.process.kill();
        let answers = async || self.command("PING").await.is_ok_and(|answer| answer == "+PONG\r\n");
        self.process.start_ready(WITHIN, answers).await
    }

    /// A replica that has caught up, and from then on lags: it cannot reach this one any more.
    pub async fn lagging_replica(&self) -> Result<Self> {
        let replica = Self::start(&self.server, &self.folder, None).await?;
        replica.command(&format!("REPLICAOF 127.0.0.1 {}", self.port)).await?;
        wait_for("the replica to catch up", WITHIN, async || {
            let info = replica.command("INFO replication").await?;
            let caught_up = info.contains("master_link_status:up");
            Ok((caught_up && replica.offset().await? == self.offset().await?).then_some(()))
        })
        .await?;
        // Nobody listens there.
        replica.command("REPLICAOF 127.0.0.1 1").await?;
        Ok(replica)
    }

    async fn offset(&self) -> Result<Option<String>> {
        let info = self.command("INFO replication").await?;
        Ok(info.lines().find(|line| line.starts_with("master_repl_offset:")).map(str::to_owned))
    }

    /// Kills this one; `replica` takes over its port and serves what it has.
    pub async fn fail_over_to(&mut self, mut replica: Self) -> Result<()> {
        self.kill();
        replica.command("REPLICAOF NO ONE").await?;
        let moved = replica.command(&format!("CONFIG SET port {}", self.port)).await?;
        ensure!(moved == "+OK\r\n", "the replica did not take over: {moved}");
        replica.port = self.port;
        *self = replica;
        Ok(())
    }

    /// Sends one inline command, such as `FLUSHALL`; the start of the raw answer (RESP).
    pub async fn command(&self, line: &str) -> Result<String> {
        timeout(Duration::from_secs(5), async {
            let mut connection = TcpStream::connect(("127.0.0.1", self.port)).await?;
            connection.write_all(format!("{line}\r\n").as_bytes()).await?;
            let mut answer = vec![0; 64 * 1024];
            let length = connection.read(&mut answer).await?;
            answer.truncate(length);
            Ok(String::from_utf8_lossy(&answer).into_owned())
        })
        .await?
    }
}
