//! The thread that says when a worker's time has come: Envoy's own timers are not to be had for filters. It
//! does nothing else but have Envoy call a configuration on its main thread, or, should that be late, streams
//! on theirs.

use std::{
    sync::{
        Condvar, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    host::{log, now_ns},
    registry,
};
use crate::host::Level;

/// How long it sleeps at most.
const LONGEST: Duration = Duration::from_secs(1);

static TIMER: LazyLock<Timer> = LazyLock::new(Timer::start);

struct Timer {
    /// Somebody's time comes sooner than it thought.
    is_woken: Mutex<bool>,
    woken: Condvar,
    /// When it looks next.
    looks_ns: AtomicU64,
}

/// Somebody's time comes then.
pub(super) fn look_by(due_ns: u64) {
    if due_ns < TIMER.looks_ns.load(Ordering::SeqCst) {
        *TIMER.is_woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        TIMER.woken.notify_one();
    }
}

impl Timer {
    fn start() -> Self {
        let run = || TIMER.run();
        if let Err(error) = thread::Builder::new().name("weir-timer".to_owned()).spawn(run) {
            log(Level::Error, &format!("weir: no thread can be had for the timer: {error}"));
        }
        Self {
            is_woken: Mutex::new(false),
            woken: Condvar::new(),
            looks_ns: AtomicU64::new(u64::MAX),
        }
    }

    fn run(&self) {
        loop {
            let now_ns = now_ns();
            let latest_ns = now_ns + LONGEST.as_nanos() as u64;
            // Before it is asked who is due: whoever is due sooner after that says so.
            self.looks_ns.store(latest_ns, Ordering::SeqCst);
            let looks_ns = registry::call_who_is_due(now_ns).min(latest_ns);
            self.looks_ns.store(looks_ns, Ordering::SeqCst);
            let sleeps = Duration::from_nanos(looks_ns.saturating_sub(now_ns));
            let is_woken = self.is_woken.lock().unwrap_or_else(PoisonError::into_inner);
            let mut is_woken = self
                .woken
                .wait_timeout_while(is_woken, sleeps, |is_woken| !*is_woken)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            *is_woken = false;
        }
    }
}
