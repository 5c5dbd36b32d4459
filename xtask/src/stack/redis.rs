//! A private Redis that keeps nothing: a restart is a wipe, which Weir must survive.

use std::{path::Path, process::Command, time::Duration};

use anyhow::Result;
use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{port, process::Process};

pub struct Redis {
    process: Process,
    port: u16,
}

impl Redis {
    pub(super) async fn start(server: &Path, folder: &Path) -> Result<Self> {
        let port = port::free()?;
        let log = folder.join("redis.log");
        let (server, folder) = (server.to_owned(), folder.to_owned());
        let process = Process::new("Redis", log, Signal::SIGKILL, move || {
            let mut command = Command::new(&server);
            command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
            command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(&folder);
            command
        });
        let redis = Self { process, port };
        redis.restart().await?;
        Ok(redis)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Like `kill -9`: all buckets are lost.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Starts it again, empty, on the same port.
    pub async fn restart(&self) -> Result<()> {
        self.process.kill();
        let answers = async || self.command("PING").await.is_ok_and(|answer| answer == "+PONG\r\n");
        self.process.start_ready(Duration::from_secs(10), answers).await
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
