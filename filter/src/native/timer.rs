//! The thread that says when a worker's time has come: Envoy's own timers are not to be had for filters. It
//! does nothing else but have Envoy call the configuration on its main thread.

use std::{
    sync::{
        Condvar, LazyLock, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    filter::Filter,
    host::{log, now_ns},
};
use crate::host::Level;

/// How long it sleeps at most.
const LONGEST: Duration = Duration::from_secs(1);

static TIMER: LazyLock<Timer> = LazyLock::new(Timer::start);

struct Timer {
    filters: Mutex<Vec<Weak<Filter>>>,
    sooner: Condvar,
    /// When it looks next.
    looks_ns: AtomicU64,
}

/// Workers of `filter` are called when their time has come.
pub(super) fn watch(filter: Weak<Filter>) {
    TIMER.filters.lock().unwrap_or_else(PoisonError::into_inner).push(filter);
    TIMER.sooner.notify_one();
}

/// Somebody's time comes then.
pub(super) fn look_by(due_ns: u64) {
    if due_ns < TIMER.looks_ns.load(Ordering::Acquire) {
        // It is either asleep, or has yet to look.
        drop(TIMER.filters.lock());
        TIMER.sooner.notify_one();
    }
}

impl Timer {
    fn start() -> Self {
        let run = || TIMER.run();
        if let Err(error) = thread::Builder::new().name("weir-timer".to_owned()).spawn(run) {
            log(Level::Error, &format!("weir: no thread can be had for the timer: {error}"));
        }
        Self { filters: Mutex::default(), sooner: Condvar::new(), looks_ns: AtomicU64::new(0) }
    }

    fn run(&self) {
        let mut filters = self.filters.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            filters.retain(|filter| filter.strong_count() > 0);
            let now_ns = now_ns();
            let latest_ns = now_ns + LONGEST.as_nanos() as u64;
            // Before it is asked who is due: whoever is due sooner after that says so.
            self.looks_ns.store(latest_ns, Ordering::Release);
            let looks_ns = filters
                .iter()
                .filter_map(Weak::upgrade)
                .map(|filter| filter.call_if_due(now_ns))
                .fold(latest_ns, u64::min);
            self.looks_ns.store(looks_ns, Ordering::Release);
            let sleeps = Duration::from_nanos(looks_ns.saturating_sub(now_ns));
            filters = match self.sooner.wait_timeout(filters, sleeps) {
                Ok((filters, _)) => filters,
                Err(error) => error.into_inner().0,
            };
        }
    }
}
