//! One connection of a link.

use std::{
    collections::VecDeque,
    future::pending,
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    time::{Instant, sleep_until},
};

use super::{Network, Shared};

/// The most that is on its way in one direction, in chunks; then the sender has to wait.
const MAX_ON_THE_WAY: usize = 256;
const CHUNK: usize = 16 * 1024;

/// The connection can't go on.
struct Broken;

/// What becomes of the answer to the call under way.
const PASSES: u8 = 0;
const IS_DROPPED: u8 = 1;
const NEVER_ENDS: u8 = 2;

/// Relays between `gateway` and a control plane at `port`, until either ends or the network ends it.
pub(super) async fn relay(mut gateway: TcpStream, port: u16, shared: Shared) {
    resets_unless_ended(&gateway);
    let mut network = shared.network.clone();
    let relayed = async {
        if shared.now() == Network::BlackHole {
            let (mut from, _) = gateway.split();
            return swallow(&mut from, Network::BlackHole, &shared).await;
        }
        let mut control_plane =
            TcpStream::connect(("127.0.0.1", port)).await.map_err(|_| Broken)?;
        resets_unless_ended(&control_plane);
        let _ = (gateway.set_nodelay(true), control_plane.set_nodelay(true));
        both_ways(&mut gateway, &mut control_plane, &shared).await
    };
    tokio::select! {
        _ = relayed => {}
        // An error says that the link is gone.
        _ = network.wait_for(|network| *network == Network::Cut) => shared.strike(),
    }
}

/// A stream that is dropped before its end was sent and received is reset.
fn resets_unless_ended(stream: &TcpStream) {
    // An error says that it is gone already.
    let _ = stream.set_zero_linger();
}

async fn both_ways(
    gateway: &mut TcpStream,
    control_plane: &mut TcpStream,
    shared: &Shared,
) -> Result<(), Broken> {
    let (mut from_gateway, mut to_gateway) = gateway.split();
    let (mut from_control_plane, mut to_control_plane) = control_plane.split();
    let fate = AtomicU8::new(PASSES);
    let calls = async {
        let mut wire = Wire::default();
        while let Some(chunk) = wire.carry(&mut from_gateway, &mut to_control_plane, shared).await?
        {
            if is_head(&chunk) {
                fate.store(fate_of(&chunk, shared), Ordering::Relaxed);
            }
            wire.send(chunk, shared);
            if shared.now() == Network::HalfClose {
                wire.deliver_all(&mut to_control_plane).await;
                shared.strike();
                let _ = to_control_plane.shutdown().await;
                return discard(&mut from_gateway).await;
            }
        }
        Ok(())
    };
    let answers = async {
        let mut wire = Wire::default();
        while let Some(mut chunk) =
            wire.carry(&mut from_control_plane, &mut to_gateway, shared).await?
        {
            match fate.load(Ordering::Relaxed) {
                IS_DROPPED => {
                    shared.strike();
                    return Err(Broken);
                }
                NEVER_ENDS => {
                    chunk.pop();
                    wire.send(chunk, shared);
                    wire.deliver_all(&mut to_gateway).await;
                    shared.strike();
                    return swallow(&mut from_control_plane, Network::EndlessAnswers, shared).await;
                }
                _ => wire.send(chunk, shared),
            }
        }
        Ok(())
    };
    tokio::try_join!(calls, answers).map(|_| ())
}

/// Envoy sends one call after the other on a connection, the head of each in a chunk of its own or
/// with its body.
fn is_head(chunk: &[u8]) -> bool {
    chunk.starts_with(b"POST ") || chunk.starts_with(b"GET ")
}

fn fate_of(head: &[u8], shared: &Shared) -> u8 {
    match shared.now() {
        Network::EndlessAnswers => NEVER_ENDS,
        _ if shared.drops_answer_to(head) => IS_DROPPED,
        _ => PASSES,
    }
}

/// One direction: chunks on their way, each with the time when it arrives.
#[derive(Default)]
struct Wire {
    on_the_way: VecDeque<(Instant, Vec<u8>)>,
    /// When the end of the stream arrives.
    ends: Option<Instant>,
}

impl Wire {
    /// Delivers what arrives; the next chunk that is sent, or `None` when the end was delivered.
    async fn carry(
        &mut self,
        from: &mut ReadHalf<'_>,
        to: &mut WriteHalf<'_>,
        shared: &Shared,
    ) -> Result<Option<Vec<u8>>, Broken> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let next = self.on_the_way.front().map(|(at, _)| *at).or(self.ends);
            let reads = self.ends.is_none() && self.on_the_way.len() < MAX_ON_THE_WAY;
            tokio::select! {
                length = from.read(&mut chunk), if reads => {
                    if shared.now() == Network::BlackHole {
                        return swallow(from, Network::BlackHole, shared).await.map(|()| None);
                    }
                    // A stream that was reset ends, too: what was sent before is still on its way.
                    match length.unwrap_or(0) {
                        0 => self.ends = Some(self.arrival(shared)),
                        length => {
                            chunk.truncate(length);
                            return Ok(Some(chunk));
                        }
                    }
                }
                () = arrived(next) => match self.on_the_way.pop_front() {
                    Some((_, chunk)) if to.write_all(&chunk).await.is_ok() => {}
                    _ => {
                        let _ = to.shutdown().await;
                        return Ok(None);
                    }
                },
            }
        }
    }

    fn send(&mut self, chunk: Vec<u8>, shared: &Shared) {
        let at = self.arrival(shared);
        self.on_the_way.push_back((at, chunk));
    }

    /// When what is sent now arrives: never before what was sent earlier.
    fn arrival(&self, shared: &Shared) -> Instant {
        let delay = match shared.now() {
            Network::Delay(delay) => delay,
            _ => Duration::ZERO,
        };
        let last = self.on_the_way.back().map(|(at, _)| *at);
        last.into_iter().fold(Instant::now() + delay, Instant::max)
    }

    async fn deliver_all(&mut self, to: &mut WriteHalf<'_>) {
        for (_, chunk) in self.on_the_way.drain(..) {
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    }
}

async fn arrived(next: Option<Instant>) {
    match next {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

/// Reads what comes, to nowhere, until the network is another; then the connection has lost something.
async fn swallow(from: &mut ReadHalf<'_>, during: Network, shared: &Shared) -> Result<(), Broken> {
    shared.strike();
    let mut network = shared.network.clone();
    tokio::select! {
        _ = network.wait_for(|now| *now != during) => Err(Broken),
        never = async { discard(from).await.ok(); pending().await } => never,
    }
}

/// Reads what comes, to nowhere, until it ends.
async fn discard(from: &mut ReadHalf<'_>) -> Result<(), Broken> {
    let mut nowhere = vec![0; CHUNK];
    while from.read(&mut nowhere).await.is_ok_and(|length| length > 0) {}
    Ok(())
}
