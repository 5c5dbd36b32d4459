//! Traps and panics on request, and standstill, for tests of what Envoy and the other workers do then. Not in
//! builds without the feature `trap`.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{host, worker::Worker};

/// Says who shall trap: `any` worker, the `refresher`, any `other`; or who gets the next `answer` to
/// a call for leases, before it takes it in. With `stall` the worker stands still for [`STALL_NS`],
/// with `stall-refresher` if it is that.
const HEADER: &str = "x-weir-trap";

/// Longer than others wait for a sign of life.
const STALL_NS: u64 = 6_500_000_000;

static AT_ANSWER: AtomicBool = AtomicBool::new(false);
static HAS_SERVED: AtomicBool = AtomicBool::new(false);

/// Called for each request that names a tenant, after it was decided upon and counted.
pub fn on_request(worker: &Worker) {
    HAS_SERVED.store(true, Ordering::Relaxed);
    let value = host::request_header(HEADER);
    let traps = match value.as_deref().and_then(|value| std::str::from_utf8(value).ok()) {
        Some("any") => true,
        Some("refresher") => worker.refresher.is_owner(),
        Some("other") => !worker.refresher.is_owner(),
        Some("answer") => {
            AT_ANSWER.store(true, Ordering::Relaxed);
            false
        }
        Some("stall-refresher") if !worker.refresher.is_owner() => false,
        Some("stall" | "stall-refresher") => {
            let until_ns = host::now_ns() + STALL_NS;
            while host::now_ns() < until_ns {}
            false
        }
        _ => false,
    };
    if traps {
        host::trap();
    }
}

/// Whether requests get here. They never get to the VM of Envoy's main thread, so that one cannot trap,
/// and must not be the refresher where that one shall.
pub fn has_served() -> bool {
    HAS_SERVED.load(Ordering::Relaxed)
}

/// Called for each answer to a call for leases, before it is taken in.
pub fn on_leases() {
    if AT_ANSWER.swap(false, Ordering::Relaxed) {
        host::trap();
    }
}
