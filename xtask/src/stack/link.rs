//! The network between one gateway and the control planes, which can be made to fail.
//!
//! A link listens once for each control plane and relays what comes to it. What happens on the way
//! is said by a [`Network`], which may change at any moment.

mod relay;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// The most connections of one link at once; more are turned away.
const MAX_CONNECTIONS: usize = 1_000;

/// What the network does to connections.
///
/// Where bytes were lost on a connection, it is reset when the network changes: it can never be
/// right again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// All passes.
    Up,
    /// Connections are reset, and so are new ones.
    Cut,
    /// Connections are accepted, and all that is sent on them, either way, vanishes.
    BlackHole,
    /// All arrives so much later, either way, and in order. What is under way when this changes
    /// still arrives then; a call that its caller has given up arrives all the same.
    Delay(Duration),
    /// The gateway's side ends after each call: the control plane sees the end of the stream.
    HalfClose,
    /// Answers stop one byte before their end, and never end.
    EndlessAnswers,
    /// Of the calls whose path begins like this, one in so many is carried out and never answered:
    /// the control plane's answer is swallowed, and the connection reset.
    DropAnswers { path: &'static str, one_in: u64 },
}

/// The network of one gateway. Ends when it is dropped.
pub struct Link {
    network: watch::Sender<Network>,
    struck: Arc<AtomicU64>,
    /// One for each control plane, in their order.
    ports: Vec<u16>,
    listeners: Vec<JoinHandle<()>>,
}

/// What the connections of a link have in common.
#[derive(Clone)]
struct Shared {
    network: watch::Receiver<Network>,
    /// Counts connections and calls that a fault has hit.
    struck: Arc<AtomicU64>,
    /// Counts calls that could have been hit by [`Network::DropAnswers`].
    calls: Arc<AtomicU64>,
}

impl Link {
    /// `to`: ports of 127.0.0.1.
    pub(super) async fn start(to: &[u16]) -> Result<Self> {
        let (network, receiver) = watch::channel(Network::Up);
        let struck = Arc::new(AtomicU64::new(0));
        let shared =
            Shared { network: receiver, struck: Arc::clone(&struck), calls: Arc::default() };
        let mut link = Self { network, struck, ports: Vec::new(), listeners: Vec::new() };
        for port in to {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            link.ports.push(listener.local_addr()?.port());
            link.listeners.push(tokio::spawn(accept(listener, *port, shared.clone())));
        }
        Ok(link)
    }

    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }

    /// How many connections and calls were hit by a fault so far.
    pub fn struck(&self) -> u64 {
        self.struck.load(Ordering::Relaxed)
    }

    pub(super) fn ports(&self) -> &[u16] {
        &self.ports
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // With a listener its connections end.
        self.listeners.iter().for_each(JoinHandle::abort);
    }
}

impl Shared {
    fn now(&self) -> Network {
        *self.network.borrow()
    }

    fn strike(&self) {
        self.struck.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a call that begins with these bytes shall get no answer.
    fn drops_answer_to(&self, head: &[u8]) -> bool {
        let Network::DropAnswers { path, one_in } = self.now() else { return false };
        let called = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        called.starts_with(path.as_bytes())
            && (self.calls.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(one_in)
    }
}

async fn accept(listener: TcpListener, port: u16, shared: Shared) {
    let mut connections = JoinSet::new();
    loop {
        // An error is about one connection, which was gone before it was taken.
        let Ok((gateway, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        if connections.len() < MAX_CONNECTIONS {
            connections.spawn(relay::relay(gateway, port, shared.clone()));
        }
    }
}
