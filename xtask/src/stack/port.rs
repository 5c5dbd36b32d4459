//! Free ports for processes that can't tell which one they chose, or that must come back on it.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
    net::{Ipv4Addr, TcpListener},
    sync::{Mutex, PoisonError},
};

use anyhow::{Result, bail};

/// Below the range that outgoing connections use, so that none takes the port while its process restarts.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port of 127.0.0.1 that is free and that this process has not handed out before.
pub(super) fn free() -> Result<u16> {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    // Other test binaries start elsewhere.
    let start = RandomState::new().hash_one(FIRST) % u64::from(COUNT);
    let start = u16::try_from(start).unwrap_or(0);
    for offset in 0..COUNT {
        let port = FIRST + (start + offset) % COUNT;
        if !taken.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            taken.insert(port);
            return Ok(port);
        }
    }
    bail!("no free port between {FIRST} and {}", FIRST + COUNT);
}
