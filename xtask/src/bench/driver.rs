//! Drives one Envoy with little CPU of its own: raw HTTP/1.1 over kept connections.

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

/// In which order turns come.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    /// One after the other, over and over.
    InTurn,
    /// As chance has it, the same way each time.
    AtRandom,
}

/// Requests to one Envoy.
#[derive(Debug, Clone)]
pub(super) struct Target {
    port: u16,
    /// One for each tenant.
    requests: Arc<[Box<[u8]>]>,
    /// Whose turn it is: indexes of `requests`.
    turns: Arc<[u32]>,
    order: Order,
    next: Arc<AtomicUsize>,
    /// What each must be answered with.
    status: u16,
}

impl Target {
    /// All of one tenant, which goes into the header that `envoy/envoy.yaml` reads.
    pub(super) fn new(port: u16, tenant: &str, status: u16) -> Self {
        Self::among(port, [tenant.to_owned()], vec![0], Order::InTurn, status)
    }

    /// The same, with another prompt length in a header of each of so many requests.
    pub(super) fn with_prompts(port: u16, tenant: &str, prompts: u32, status: u16) -> Self {
        let tenants = (0..prompts).map(|prompt| format!("{tenant}\r\nx-prompt-tokens: {prompt}"));
        Self::among(port, tenants, (0..prompts).collect(), Order::InTurn, status)
    }

    /// Of many tenants, by `turns`, which are indexes of `tenants`.
    pub(super) fn among(
        port: u16,
        tenants: impl IntoIterator<Item = String>,
        turns: Vec<u32>,
        order: Order,
        status: u16,
    ) -> Self {
        let request = |tenant: String| {
            format!(
                "GET /orders HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nx-tenant-id: {tenant}\r\n\r\n"
            )
            .into_bytes()
            .into_boxed_slice()
        };
        let requests = tenants.into_iter().map(request).collect();
        Self { port, requests, turns: turns.into(), order, next: Arc::default(), status }
    }

    fn next_request(&self) -> &[u8] {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let turn = match self.order {
            Order::InTurn => number,
            Order::AtRandom => BuildHasherDefault::<DefaultHasher>::new().hash_one(number) as usize,
        };
        &self.requests[self.turns[turn % self.turns.len()] as usize]
    }

    /// So many clients, each with a connection of its own.
    pub(super) async fn connect(&self, clients: u64) -> Result<Clients> {
        let mut connections = Vec::new();
        for _ in 0..clients {
            connections.push(Connection::open(self).await?);
        }
        Ok(Clients { connections })
    }

    /// How many requests a second are answered while `clients` ask as fast as they can.
    pub(super) async fn saturate(&self, clients: u64, span: Duration) -> Result<f64> {
        let began = Instant::now();
        let answered = Arc::new(AtomicU64::new(0));
        self.each(clients, |mut connection, _| {
            let answered = Arc::clone(&answered);
            async move {
                while began.elapsed() < span {
                    connection.ask().await?;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Vec::new())
            }
        })
        .await?;
        Ok(answered.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64())
    }

    /// How long answers take, in µs and in ascending order, at so many requests a second. Each is
    /// timed from when it was due, so that one that is late makes those behind it late.
    pub(super) async fn pace(
        &self,
        clients: u64,
        per_second: u64,
        span: Duration,
    ) -> Result<Vec<u64>> {
        let gap = Duration::from_secs(clients) / u32::try_from(per_second)?;
        let began = Instant::now();
        let mut latencies = self
            .each(clients, |mut connection, client| async move {
                let first = began + gap / u32::try_from(clients)? * client;
                let mut latencies = Vec::new();
                for number in 0.. {
                    let due = first + gap * number;
                    if due > began + span {
                        break;
                    }
                    tokio::time::sleep_until(due.into()).await;
                    connection.ask().await?;
                    latencies.push(u64::try_from(due.elapsed().as_micros())?);
                }
                Ok(latencies)
            })
            .await?;
        latencies.sort_unstable();
        Ok(latencies)
    }

    async fn each<F, W>(&self, clients: u64, work: F) -> Result<Vec<u64>>
    where
        F: Fn(Connection, u32) -> W,
        W: Future<Output = Result<Vec<u64>>> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        for (client, connection) in (0..).zip(self.connect(clients).await?.connections) {
            tasks.spawn(work(connection, client));
        }
        let mut all = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            all.extend(ended??);
        }
        Ok(all)
    }
}

/// Clients that each ask again when they are answered.
pub(super) struct Clients {
    connections: Vec<Connection>,
}

impl Clients {
    /// So many requests by all of them together.
    pub(super) async fn send(&mut self, requests: u64) -> Result<()> {
        let started = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for mut connection in self.connections.drain(..) {
            let started = Arc::clone(&started);
            tasks.spawn(async move {
                while started.fetch_add(1, Ordering::Relaxed) < requests {
                    connection.ask().await?;
                }
                anyhow::Ok(connection)
            });
        }
        while let Some(ended) = tasks.join_next().await {
            self.connections.push(ended??);
        }
        Ok(())
    }
}

struct Connection {
    stream: TcpStream,
    target: Target,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", target.port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, target: target.clone(), buffer: Vec::with_capacity(4096) })
    }

    async fn ask(&mut self) -> Result<()> {
        self.stream.write_all(self.target.next_request()).await?;
        self.buffer.clear();
        let head = loop {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "Envoy hung up");
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let answer = Head::parse(&self.buffer[..head])?;
        while self.buffer.len() < head + answer.length {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "Envoy hung up");
        }
        if answer.status != self.target.status {
            let text = String::from_utf8_lossy(&self.buffer);
            bail!("{} was expected, and the answer is\n{text}", self.target.status);
        }
        Ok(())
    }
}

struct Head {
    status: u16,
    length: usize,
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes)?;
        let status = text.split(' ').nth(1).context("no status")?.parse()?;
        let length = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .with_context(|| format!("no content-length:\n{text}"))?;
        Ok(Self { status, length: length.1.trim().parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_its_length() -> Result<()> {
        let head = Head::parse(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 17\r\n\r\n")?;
        assert_eq!((head.status, head.length), (429, 17));
        assert!(Head::parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        Ok(())
    }
}
