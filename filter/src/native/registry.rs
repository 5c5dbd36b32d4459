//! All workers of this process, and who ticks them: the newest configuration that there is, for all.
//!
//! One configuration makes all calls, since Envoy cancels those of one that ends, on whichever thread its last
//! stream ends; those of the main thread must not be touched there. One that is not the newest any more has its
//! calls reset on the main thread, and makes no others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{pulse::Pulse, seat::Seat};

struct Registry {
    /// Also those whose configuration has ended, and who have something left to do, be it to have their usage
    /// stored.
    seats: Vec<Arc<Seat>>,
    /// The configurations that there are, by their numbers; the newest last.
    configurations: Vec<(u32, Arc<Pulse>)>,
}

static REGISTRY: Mutex<Registry> =
    Mutex::new(Registry { seats: Vec::new(), configurations: Vec::new() });

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A configuration has begun.
pub(super) fn add(number: u32, pulse: &Arc<Pulse>, seats: &[Arc<Seat>]) {
    let mut registry = registry();
    registry.seats.extend_from_slice(seats);
    let before = registry.configurations.last().map(|(_, pulse)| Arc::clone(pulse));
    registry.configurations.push((number, Arc::clone(pulse)));
    drop(registry);
    if let Some(before) = before {
        // It has calls to reset.
        before.call();
    }
}

/// A configuration has ended. `false` where none is left.
pub(super) fn remove(number: u32) -> bool {
    registry().configurations.retain(|(other, _)| *other != number);
    call_newest()
}

/// Forgets workers that have nothing left to do.
pub(super) fn forget_ended() {
    registry().seats.retain(|seat| !seat.has_ended());
}

/// All workers, without holding the list of them.
pub(super) fn seats() -> Vec<Arc<Seat>> {
    registry().seats.clone()
}

/// Whether it is this configuration that ticks and calls.
pub(super) fn is_newest(number: u32) -> bool {
    registry().configurations.last().is_some_and(|(newest, _)| *newest == number)
}

/// Has Envoy call the newest configuration; `false` where there is none.
pub(super) fn call_newest() -> bool {
    let newest = registry().configurations.last().map(|(_, pulse)| Arc::clone(pulse));
    newest.is_some_and(|pulse| {
        pulse.call();
        true
    })
}

/// Has Envoy call if somebody's time has come, and says when it comes next.
pub(super) fn call_who_is_due(now_ns: u64) -> u64 {
    let seats = seats();
    if seats.iter().any(|seat| seat.is_due(now_ns)) {
        call_newest();
    }
    for seat in seats.iter().filter(|seat| seat.is_overdue(now_ns)) {
        seat.call_a_stream();
    }
    seats.iter().map(|seat| seat.next_ns(now_ns)).fold(u64::MAX, u64::min)
}
