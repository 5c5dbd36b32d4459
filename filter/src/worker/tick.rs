//! The tick: what a worker does between requests, and how often.

use std::time::Duration;

use super::{Call, IDLE_TICK, RESTING_TICK, Worker};
use crate::{ending::Ending, host, waiters::waiting_pace};

impl Worker {
    pub fn set_tick(&mut self, period: Duration) {
        if self.tick != period {
            self.tick = period;
            host::set_tick(period);
        }
    }

    pub fn on_tick(&mut self) {
        let now_ns = host::now_ns();
        if self.ending == Ending::Ended {
            return;
        }
        if self.gateway.is_empty() && !self.start(now_ns) {
            // Nobody can be called, and who waits still has a deadline.
            self.serve_all_waiters(now_ns);
            return;
        }
        self.call_for_leases(now_ns);
        let pace = waiting_pace(self.waiting.len());
        if now_ns.saturating_sub(self.served_ns) >= pace.as_nanos() as u64 {
            self.served_ns = now_ns;
            self.serve_all_waiters(now_ns);
        }
        if now_ns.saturating_sub(self.swept_ns) >= IDLE_TICK.as_nanos() as u64 {
            self.swept_ns = now_ns;
            self.hear(now_ns);
            self.sweep(now_ns);
            self.forget_idle_tenants(now_ns);
            self.send_usage(now_ns);
            if self.ending == Ending::Running && self.may_refresh {
                self.refresh(now_ns);
            }
            self.stats.record();
            self.end_if_done(now_ns);
        }
        let next = if !self.waiting.is_empty() {
            waiting_pace(self.waiting.len())
        } else if self.to_ask.is_empty() && self.rests() {
            RESTING_TICK
        } else {
            IDLE_TICK
        };
        self.set_tick(next);
    }

    /// Whether there is nothing to do before a request comes, or the control plane tells of a change.
    fn rests(&self) -> bool {
        self.ending == Ending::Running
            && self.watches_nobody()
            && self.counting.is_empty()
            && self.is_usage_stored()
            && self.calls.values().all(|call| matches!(call, Call::Config))
            && self.lease_calls.is_idle()
            && self.refresher.is_idle()
            && self.policy.version().is_some()
    }
}
