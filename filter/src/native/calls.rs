//! Calls of the control plane that are under way. Each is a stream of its own in Envoy, and not one of its
//! callouts, since only streams can be reset.

use std::{
    cell::{Cell, RefCell},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hashbrown::HashMap;

use super::{
    abi::{self, ConfigPtr, Lent, LentHeader},
    seat::Seat,
};
use crate::http_call::Answer;

/// What a worker knows a call by: the number of the configuration that made it, and Envoy's number there.
/// Calls under way are few, so both may begin anew.
pub(super) const fn number_of(configuration: u32, id: u64) -> u32 {
    (configuration << ID_BITS) | (id as u32 & ((1 << ID_BITS) - 1))
}

const ID_BITS: u32 = 20;

/// A call under way.
#[derive(Default)]
struct Call {
    id: u64,
    /// Whose it is; unknown as long as Envoy has not said that it has begun.
    seat: Option<Arc<Seat>>,
    status: Option<u16>,
    body: Vec<u8>,
    is_over: bool,
}

/// Who makes calls.
#[derive(Clone)]
struct Caller {
    config: ConfigPtr,
    number: u32,
    seat: Arc<Seat>,
}

type Calls = HashMap<u32, Call>;

static UNDER_WAY: Mutex<Option<Calls>> = Mutex::new(None);

thread_local! {
    /// On the main thread, while a worker ticks.
    static CALLER: RefCell<Option<Caller>> = const { RefCell::new(None) };
    /// A call is being made, and Envoy may say something of it before its number is known.
    static IS_STARTING: Cell<bool> = const { Cell::new(false) };
}

fn with_calls<T>(act: impl FnOnce(&mut Calls) -> T) -> T {
    let mut calls: MutexGuard<'_, Option<Calls>> =
        UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    act(calls.get_or_insert_default())
}

/// On the main thread: calls that `act` makes are those of this worker, by this configuration.
pub(super) fn of<T>(
    (config, number): (ConfigPtr, u32),
    seat: &Arc<Seat>,
    act: impl FnOnce() -> T,
) -> T {
    CALLER.set(Some(Caller { config, number, seat: Arc::clone(seat) }));
    let result = act();
    CALLER.set(None);
    result
}

/// Makes one; `None` when it could not be made.
pub fn start(
    cluster: &str,
    headers: Vec<(&str, &str)>,
    body: Option<&[u8]>,
    timeout: Duration,
) -> Option<u32> {
    let Caller { config, number, seat } = CALLER.with_borrow(Clone::clone)?;
    let length = body.map_or(0, <[u8]>::len).to_string();
    let length = body.is_some().then_some(("content-length", length.as_str()));
    let headers: Vec<LentHeader> = headers
        .into_iter()
        .chain(length)
        .map(|(name, value)| LentHeader::new(name, value))
        .collect();
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let mut id = 0;
    IS_STARTING.set(true);
    // SAFETY: this is the main thread, the configuration exists, and what is lent is there for the call.
    let result = unsafe {
        abi::start_stream(
            config,
            &raw mut id,
            cluster.into(),
            headers.as_ptr(),
            headers.len(),
            body.map_or(Lent::NOTHING, Lent::from),
            true,
            timeout_ms,
        )
    };
    IS_STARTING.set(false);
    let call = number_of(number, id);
    with_calls(|calls| {
        // It may have been answered on the spot, while the worker was at work: by Envoy, that nobody is there.
        let was_over = calls.get(&call).is_some_and(|call| call.is_over);
        if result != abi::SUCCESS || was_over {
            calls.remove(&call);
            return None;
        }
        let entry = calls.entry(call).or_default();
        (entry.id, entry.seat) = (id, Some(seat));
        Some(call)
    })
}

/// The call with this number, if it is under way or may be the one that is being made.
fn entry(calls: &mut Calls, call: u32) -> Option<&mut Call> {
    if IS_STARTING.get() {
        return Some(calls.entry(call).or_default());
    }
    calls.get_mut(&call)
}

/// The head of an answer has come.
pub(super) fn on_status(call: u32, status: Option<u16>) {
    with_calls(|calls| {
        if let Some(entry) = entry(calls, call) {
            entry.status = status;
        }
    });
}

/// A piece of its body.
pub(super) fn on_body(call: u32, piece: &[u8]) {
    with_calls(|calls| {
        if let Some(entry) = entry(calls, call) {
            entry.body.extend_from_slice(piece);
        }
    });
}

/// It is over, with an answer or not.
pub(super) fn on_end(call: u32, is_answered: bool) {
    let ended = with_calls(|calls| {
        let entry = entry(calls, call)?;
        entry.is_over = true;
        if entry.seat.is_some() { calls.remove(&call) } else { None }
    });
    if let Some(Call { seat: Some(seat), status, body, .. }) = ended {
        let status = status.filter(|_| is_answered);
        seat.on_answer(call, &Answer::new(status, body));
    }
}

/// Calls of this configuration, by Envoy's numbers.
fn of_configuration(number: u32) -> Vec<(u32, u64)> {
    let is_of = |call: &u32| call >> ID_BITS == number_of(number, 0) >> ID_BITS;
    with_calls(|calls| {
        calls.iter().filter(|(call, _)| is_of(call)).map(|(call, it)| (*call, it.id)).collect()
    })
}

/// On the main thread: resets the calls of a configuration, whose workers hear that nobody has answered.
pub(super) fn reset(config: ConfigPtr, number: u32) {
    for (_, id) in of_configuration(number) {
        // SAFETY: this is the main thread, and the configuration exists.
        unsafe { abi::reset_stream(config, id) }
    }
}

/// A configuration ends: its calls will not be answered.
pub(super) fn forget(number: u32) {
    for (call, _) in of_configuration(number) {
        on_end(call, false);
    }
}
