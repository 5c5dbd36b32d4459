//! Places: where the workers of a gateway stand in shared data, each with its outbox. They tell who
//! is gone, and a place of one that is gone is used again, since Envoy keeps every key for ever.

use serde::{Deserialize, Serialize};

use crate::{host, usage::Outbox};

/// How often a worker says that it lives, in ns.
pub const BEAT_NS: u64 = 1_000_000_000;
/// A worker that has been silent for this long is taken for gone.
const GONE_NS: u64 = 5_000_000_000;
/// The most workers of one Envoy.
const MAX_PLACES: u32 = 4_096;

/// Counts the workers that were lost with what they had drawn.
const GENERATION_KEY: &str = "weir/1/generation";

/// Who stands at a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    pub worker: String,
    beat_ns: u64,
    life: Life,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Life {
    Running,
    /// It ended in order, and holds nothing.
    Ended,
    /// It fell silent, and that was noted: a new generation began.
    Lost,
}

impl Registration {
    pub fn new(worker: &str, beat_ns: u64) -> Self {
        Self { worker: worker.to_owned(), beat_ns, life: Life::Running }
    }

    fn load(place: u32) -> Option<Self> {
        Self::decode(host::read(&worker_key(place)).as_deref())
    }

    fn decode(bytes: Option<&[u8]>) -> Option<Self> {
        postcard::from_bytes(bytes?).ok()
    }

    fn encode(&self) -> Option<Vec<u8>> {
        postcard::to_allocvec(self).ok()
    }

    /// Whether others look after what it left.
    fn is_gone(&self, now_ns: u64) -> bool {
        self.life != Life::Running || now_ns.saturating_sub(self.beat_ns) >= GONE_NS
    }

    /// Whether it is gone with what it had drawn, and nobody has noted that yet.
    fn is_newly_lost(&self, now_ns: u64) -> bool {
        self.life == Life::Running && self.is_gone(now_ns)
    }
}

fn worker_key(place: u32) -> String {
    format!("weir/1/worker/{place}")
}

pub fn outbox_key(place: u32) -> String {
    format!("weir/1/outbox/{place}")
}

/// How many places there are: each one that was ever taken.
pub fn count() -> u32 {
    (0..MAX_PLACES).find(|place| host::read(&worker_key(*place)).is_none()).unwrap_or(MAX_PLACES)
}

/// What was found at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nobody, or a worker that lives.
    Nothing,
    /// A worker that is gone.
    Gone,
    /// One that is gone without having ended, which nobody had noted before.
    Lost,
}

/// Takes the first free place for `worker`, and says who was there before; `None` if there is none.
/// What a worker left that is gone must have been posted before its place is free.
pub fn take(worker: &str, now_ns: u64) -> Option<(u32, Found)> {
    let mine = Registration::new(worker, now_ns);
    for place in 0..MAX_PLACES {
        if host::read(&outbox_key(place)).is_some() {
            continue;
        }
        let taken = host::update(&worker_key(place), |bytes| match Registration::decode(bytes) {
            Some(holder) if !holder.is_gone(now_ns) => (None, None),
            holder => (mine.encode(), Some(holder)),
        });
        if let Some(Some(before)) = taken {
            let lost = before.filter(|before| before.is_newly_lost(now_ns));
            if let Some(lost) = &lost {
                begin_generation(lost);
            }
            return Some((place, if lost.is_some() { Found::Lost } else { Found::Gone }));
        }
    }
    host::warn("weir: there is no place left for this worker");
    None
}

/// Says that `worker` lives; `false` when it stood still for so long that others took it for gone,
/// and its place with what lies there is not its own any more.
pub fn beat(place: u32, worker: &str, now_ns: u64) -> bool {
    let mine = Registration::new(worker, now_ns);
    let kept = host::update(&worker_key(place), |bytes| match Registration::decode(bytes) {
        Some(holder) if holder.worker == worker && holder.life == Life::Running => {
            (mine.encode(), true)
        }
        _ => (None, false),
    });
    kept.unwrap_or(true)
}

/// Whether the place is still that of `worker`.
pub fn is_held_by(place: u32, worker: &str) -> bool {
    Registration::load(place)
        .is_some_and(|holder| holder.worker == worker && holder.life == Life::Running)
}

/// `worker` ends, and holds nothing that would be lost with it.
pub fn leave(place: u32, worker: &str) {
    host::update(&worker_key(place), |bytes| match Registration::decode(bytes) {
        Some(holder) if holder.worker == worker && holder.life == Life::Running => {
            (Registration { life: Life::Ended, ..holder }.encode(), ())
        }
        _ => (None, ()),
    });
}

/// Looks whether the worker at `place` is gone. Who finds one gone first that has not ended in order
/// begins a new generation.
pub fn look(place: u32, now_ns: u64) -> Found {
    let Some(holder) = Registration::load(place) else {
        return Found::Nothing;
    };
    if holder.is_newly_lost(now_ns) {
        // First, and twice rather than never: a generation too many costs little.
        begin_generation(&holder);
        host::update(&worker_key(place), |bytes| match Registration::decode(bytes) {
            Some(now) if now == holder => (Registration { life: Life::Lost, ..now }.encode(), ()),
            _ => (None, ()),
        });
        return Found::Lost;
    }
    if holder.is_gone(now_ns) { Found::Gone } else { Found::Nothing }
}

/// What a worker left at `place` and nobody has stored yet.
pub fn outbox(place: u32) -> Outbox {
    Outbox::decode(host::read(&outbox_key(place)).as_deref())
}

/// The gateway's generation: it rises when a worker is lost. What a lost worker had drawn is unknown,
/// and counts as held for as long as its lease lives; so leases of an older generation are replaced.
pub fn generation() -> u64 {
    decode_generation(host::read(GENERATION_KEY).as_deref())
}

fn begin_generation(lost: &Registration) {
    host::warn(&format!("weir: worker {} is gone without having ended", lost.worker));
    host::update(GENERATION_KEY, |bytes| {
        (Some((decode_generation(bytes) + 1).to_le_bytes().to_vec()), ())
    });
}

fn decode_generation(bytes: Option<&[u8]>) -> u64 {
    bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_worker_is_lost_once_and_one_that_ended_never() {
        let running = Registration::new("w", 1_000);
        assert!(!running.is_gone(1_000 + GONE_NS - 1));
        assert!(running.is_newly_lost(1_000 + GONE_NS));
        for life in [Life::Ended, Life::Lost] {
            let noted = Registration { life, ..running.clone() };
            assert!(noted.is_gone(1_000) && !noted.is_newly_lost(1_000 + GONE_NS));
        }
        assert_eq!(Registration::decode(running.encode().as_deref()), Some(running));
    }
}
