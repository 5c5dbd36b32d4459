//! How a worker ends: Envoy has taken it out of traffic, because its configuration was replaced.

use crate::{host, places, worker::Worker};

/// How long a worker may take to give its leases back and have its usage stored, in ns: a lease
/// as shipped, and a second.
const END_WITHIN_NS: u64 = 3_000_000_000;
/// The same while calls of language models are under way, in ns: Envoy lets streams go on that began
/// under the old configuration.
const CALLS_END_WITHIN_NS: u64 = 900_000_000_000;

/// How far the end of a worker is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    #[default]
    Running,
    /// It gets no more requests, and has until then.
    Until(u64),
    Ended,
}

impl Worker {
    /// No more requests come. What it holds goes back to its siblings and what it counted stays for
    /// them to post, at once, as Envoy may leave no more time. `false` when something is left to do:
    /// then ticks go on until [`Worker::end_if_done`] says that it is done.
    pub fn on_done(&mut self, now_ns: u64) -> bool {
        self.hand_over(now_ns);
        for index in self.tenants.indexes() {
            self.keep_debt(index);
        }
        self.resign();
        self.stats.record();
        if self.gateway.is_empty() || self.end() {
            return true;
        }
        self.ending = Ending::Until(now_ns + END_WITHIN_NS);
        false
    }

    fn hand_over(&mut self, now_ns: u64) {
        for index in self.tenants.indexes() {
            self.put_back(index);
        }
        self.leave_usage(now_ns);
    }

    /// To be called on each tick: tells Envoy when a worker that ends is done.
    pub fn end_if_done(&mut self, now_ns: u64) {
        let Ending::Until(deadline_ns) = self.ending else {
            return;
        };
        let longest_ns = deadline_ns - END_WITHIN_NS + CALLS_END_WITHIN_NS;
        if now_ns >= deadline_ns && (self.model_calls.is_empty() || now_ns >= longest_ns) {
            self.settle_all();
            self.hand_over(now_ns);
            self.ending = Ending::Ended;
            // What is granted to a call under way is lost: a worker that ends in it is left to be
            // missed, so that a new generation begins.
            if !self.is_calling() {
                places::leave(self.usage_calls.place(), &self.name);
            }
        }
        if self.ending == Ending::Ended || self.end() {
            self.stats.record();
            host::done();
        }
    }

    /// Ends, if nothing is left to do.
    fn end(&mut self) -> bool {
        let holds = self
            .tenants
            .indexes()
            .into_iter()
            .any(|index| self.tenants.get_mut(index).is_some_and(|tenant| !tenant.is_idle()));
        if holds || !self.watches_nobody() || !self.is_usage_stored() {
            return false;
        }
        places::leave(self.usage_calls.place(), &self.name);
        self.ending = Ending::Ended;
        true
    }

    fn is_calling(&mut self) -> bool {
        self.tenants
            .indexes()
            .into_iter()
            .any(|index| self.tenants.get_mut(index).is_some_and(|tenant| tenant.call.is_some()))
    }
}
