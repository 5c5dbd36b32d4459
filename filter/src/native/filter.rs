//! One configuration of the filter, with a worker for each of Envoy's threads.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use super::{
    abi::{self, ConfigPtr},
    host::{self, log, now_ns},
    seat::{Pulse, Seat},
    timer,
};
use crate::{config::Config, host::Level, http_call::Answer, stats::Stats};

pub(super) struct Filter {
    envoy: ConfigPtr,
    /// Among the configurations of this process.
    number: u32,
    seats: Vec<Arc<Seat>>,
    pulse: Arc<Pulse>,
}

// SAFETY: the configuration is touched on the main thread only.
unsafe impl Send for Filter {}
// SAFETY: the same.
unsafe impl Sync for Filter {}

/// Workers whose configuration has ended and who have something left to do, be it to have their usage
/// stored. They go on under whichever configuration there is: a call is made by that.
static LEFT: Mutex<Vec<Arc<Seat>>> = Mutex::new(Vec::new());

fn left() -> MutexGuard<'static, Vec<Arc<Seat>>> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Filter {
    /// On the main thread. `None` where the configuration is wrong, which is logged.
    ///
    /// # Safety
    /// Envoy is making the configuration at `envoy`.
    pub(super) unsafe fn new(envoy: ConfigPtr, json: &[u8]) -> Option<Arc<Self>> {
        let json = Some(json).filter(|json| !json.is_empty());
        let config = match Config::parse(json) {
            Ok(config) => config,
            Err(error) => {
                log(Level::Error, &error.to_string());
                return None;
            }
        };
        // SAFETY: this is the main thread, and the caller sees to the rest.
        let (workers, pulse) = unsafe {
            let workers = if abi::is_validation_mode() { 0 } else { abi::concurrency() };
            (workers, Arc::new(Pulse::new(envoy)))
        };
        let mut stats = Stats::default();
        static NUMBERS: AtomicU32 = AtomicU32::new(0);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        host::on_main(envoy, number, || stats.define());
        let seat = |_| Arc::new(Seat::new(&config, &stats, &pulse));
        let filter =
            Arc::new(Self { envoy, number, seats: (0..workers).map(seat).collect(), pulse });
        if workers > 0 {
            timer::watch(Arc::downgrade(&filter));
        }
        Some(filter)
    }

    /// The worker of this thread of Envoy's.
    pub(super) fn seat(&self, thread: u32) -> Option<&Seat> {
        Some(self.seats.get(thread as usize)?)
    }

    /// Has Envoy call if somebody's time has come, and says when it comes next.
    pub(super) fn call_if_due(&self, now_ns: u64) -> u64 {
        let all = self.all();
        if all.iter().any(|seat| seat.is_due(now_ns)) {
            self.pulse.call();
        }
        all.iter().map(|seat| seat.next_ns(now_ns)).fold(u64::MAX, u64::min)
    }

    /// Whoever is looked after, without holding the list of those who are left.
    fn all(&self) -> Vec<Arc<Seat>> {
        self.seats.iter().chain(left().iter()).cloned().collect()
    }

    /// Envoy calls, on its main thread.
    pub(super) fn on_call(&self) {
        self.pulse.is_here();
        let now_ns = now_ns();
        host::on_main(self.envoy, self.number, || {
            for seat in self.all().iter().filter(|seat| seat.is_due(now_ns)) {
                seat.tick();
            }
        });
        left().retain(|seat| !seat.has_ended());
    }

    /// The answer to a call, on the main thread.
    pub(super) fn on_answer(&self, call: u64, answer: &Answer) {
        let call = host::call_number(self.number, call);
        host::on_main(self.envoy, self.number, || {
            self.all().iter().any(|seat| seat.on_answer(call, answer));
        });
    }

    /// Ends, with the last of its streams.
    pub(super) fn end(&self) {
        host::on_main(self.envoy, self.number, || {
            for seat in &self.seats {
                if !seat.end() {
                    left().push(Arc::clone(seat));
                }
            }
        });
    }
}
