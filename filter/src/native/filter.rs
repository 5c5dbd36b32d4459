//! One configuration of the filter, with a worker for each of Envoy's threads.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use super::{
    abi::{self, ConfigPtr},
    calls,
    host::{self, log, now_ns},
    pulse::Pulse,
    registry,
    seat::Seat,
};
use crate::{
    config::Config,
    host::{Level, warn},
    stats::Stats,
};

pub(super) struct Filter {
    /// Among the configurations of this process.
    number: u32,
    /// Until it has ended.
    envoy: ConfigPtr,
    seats: Vec<Arc<Seat>>,
    pulse: Arc<Pulse>,
}

// SAFETY: the configuration is touched on the main thread, and at its end, when nobody else does.
unsafe impl Send for Filter {}
// SAFETY: the same.
unsafe impl Sync for Filter {}

impl Filter {
    /// On the main thread. `None` where the configuration is wrong, which is logged.
    ///
    /// # Safety
    /// Envoy is making the configuration at `envoy`.
    pub(super) unsafe fn new(envoy: ConfigPtr, json: &[u8]) -> Option<Arc<Self>> {
        static NUMBERS: AtomicU32 = AtomicU32::new(0);
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
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let mut stats = Stats::default();
        host::on_main(envoy, || stats.define());
        let seats: Vec<_> = (0..workers).map(|_| Arc::new(Seat::new(&config, &stats))).collect();
        if workers > 0 {
            registry::add(number, &pulse, &seats);
            super::timer::look_by(now_ns());
        }
        Some(Arc::new(Self { number, envoy, seats, pulse }))
    }

    /// The worker of this thread of Envoy's.
    pub(super) fn seat(&self, thread: u32) -> Option<&Seat> {
        Some(self.seats.get(thread as usize)?)
    }

    /// What a worker knows a call of this configuration by.
    pub(super) fn call_number(&self, id: u64) -> u32 {
        calls::number_of(self.number, id)
    }

    /// Envoy calls, on its main thread: for all workers that are due, or to reset what others do from now on.
    pub(super) fn on_call(&self, envoy: ConfigPtr) {
        self.pulse.is_here();
        if !registry::is_newest(self.number) {
            return host::on_main(envoy, || calls::reset(envoy, self.number));
        }
        let now_ns = now_ns();
        host::on_main(envoy, || {
            for seat in registry::seats().iter().filter(|seat| seat.is_due(now_ns)) {
                let is_own = self.seats.iter().any(|own| Arc::ptr_eq(own, seat));
                seat.tick((envoy, self.number), is_own);
            }
        });
        registry::forget_ended();
    }

    /// Ends, with the last of its streams, on whichever thread that is.
    pub(super) fn end(&self) {
        host::on_main(self.envoy, || {
            let is_last = !registry::remove(self.number);
            calls::forget(self.number);
            let mut is_done = true;
            for seat in &self.seats {
                is_done &= seat.end();
            }
            registry::forget_ended();
            if is_last && !is_done {
                warn(
                    "weir: the last configuration has ended, and not all usage is stored; \
                     it is when there is a configuration again in this Envoy",
                );
            }
        });
    }
}
