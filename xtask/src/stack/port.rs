//! Free ports for processes that can't tell which one they chose, or that must come back on it.

use std::{
    hash::{BuildHasher, RandomState},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    sync::{Mutex, PoisonError},
};

use anyhow::{Result, bail};

/// Below the range that outgoing connections use, so that none takes the port while its process restarts.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port of 127.0.0.1 that is free, and that neither this process nor another one like it has handed
/// out: its UDP side, which nobody uses, is held as long as this process lives. So nobody takes it
/// while the process that listens there restarts.
pub(super) fn free() -> Result<u16> {
    static TAKEN: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    // Other test binaries start elsewhere.
    let start = RandomState::new().hash_one(FIRST) % u64::from(COUNT);
    let start = u16::try_from(start).unwrap_or(0);
    for offset in 0..COUNT {
        let port = FIRST + (start + offset) % COUNT;
        let address = (Ipv4Addr::LOCALHOST, port);
        let Ok(held) = UdpSocket::bind(address) else { continue };
        if TcpListener::bind(address).is_ok() {
            taken.push(held);
            return Ok(port);
        }
    }
    bail!("no free port between {FIRST} and {}", FIRST + COUNT);
}
