//! Bytes that no client sends.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::Models;
use crate::harness::SOON;

/// A connection to the first gateway, for one request.
pub(super) struct Raw {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Raw {
    pub(super) async fn connect(models: &Models) -> Result<Self> {
        let port = models.fleet.stack.gateways[0].port();
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// The request line and these header fields, each with its end of line.
    pub(super) async fn begin(&mut self, tenant: &str, path: &str, fields: &str) -> Result<()> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n\
             x-tenant-id: {tenant}\r\n{fields}\r\n"
        );
        self.send(head.as_bytes()).await
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// One chunk of a chunked body, in a write of its own.
    pub(super) async fn chunk(&mut self, bytes: &[u8]) -> Result<()> {
        let head = format!("{:x}\r\n", bytes.len());
        self.send(&[head.as_bytes(), bytes, b"\r\n"].concat()).await
    }

    /// All that comes until the connection is closed: status, header fields and body as one text.
    pub(super) async fn answer(mut self) -> Result<(u16, String)> {
        timeout(SOON, self.stream.read_to_end(&mut self.received)).await??;
        let text = String::from_utf8_lossy(&self.received).into_owned();
        let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = status.with_context(|| format!("no status in {text:?}"))?.parse()?;
        Ok((status, text))
    }

    /// Waits until this much has come: an answer before the final one, say.
    pub(super) async fn reads(&mut self, expected: &str) -> Result<()> {
        let mut bytes = vec![0; expected.len()];
        timeout(SOON, self.stream.read_exact(&mut bytes)).await??;
        let text = String::from_utf8_lossy(&bytes);
        anyhow::ensure!(text == expected, "{text:?} came instead of {expected:?}");
        Ok(())
    }

    /// Whether nothing comes for this time.
    pub(super) async fn is_silent_for(&mut self, time: Duration) -> bool {
        timeout(time, self.stream.read_u8()).await.is_err()
    }
}
