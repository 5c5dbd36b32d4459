//! Envoy stats under `weir.`: gathered in memory, recorded on the tick.

use crate::host;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    Admitted,
    AdmittedTokens,
    /// Requests whose usage the control plane has stored.
    Stored,
    Exempt,
    /// Requests that waited for a lease.
    Waited,
    /// Calls of language models, admitted or not.
    ModelCalls,
    /// Those that were settled by an estimate, and those that cost no tokens.
    SettledEstimated,
    SettledFree,
    BodyTooLarge,
    BodyUnreadable,
    PolicyDenied,
    PolicyFailed,
    MissingCredential,
    UnknownTenant,
    Suspended,
    LimitExceeded,
    CostExceedsCapacity,
    ControlPlaneUnreachable,
    UsageUnacknowledged,
    Overloaded,
    GraceExceeded,
    WorkerFailed,
    /// Requests that passed without a lease.
    OutageGrace,
    OutageAllowed,
    /// Requests whose policy failed, or took more than its budget.
    PolicyFailures,
    /// Requests that only shadow mode let through; their reason is counted too.
    ShadowRefused,
    LeaseCalls,
    LeaseCallFailures,
    UsageBatches,
    UsageBatchFailures,
    ConfigCallFailures,
    RefresherTerms,
    OrphansPosted,
    /// Workers that were found gone without having ended.
    LostWorkers,
}

const COUNTERS: [(Counter, &str); 34] = [
    (Counter::Admitted, "weir.admitted"),
    (Counter::AdmittedTokens, "weir.admitted_tokens"),
    (Counter::Stored, "weir.stored"),
    (Counter::Exempt, "weir.exempt"),
    (Counter::Waited, "weir.waited"),
    (Counter::ModelCalls, "weir.model_calls"),
    (Counter::SettledEstimated, "weir.settled_estimated"),
    (Counter::SettledFree, "weir.settled_free"),
    (Counter::BodyTooLarge, "weir.refused.body_too_large"),
    (Counter::BodyUnreadable, "weir.refused.body_unreadable"),
    (Counter::PolicyDenied, "weir.refused.policy_denied"),
    (Counter::PolicyFailed, "weir.refused.policy_failed"),
    (Counter::MissingCredential, "weir.refused.missing_credential"),
    (Counter::UnknownTenant, "weir.refused.unknown_tenant"),
    (Counter::Suspended, "weir.refused.suspended"),
    (Counter::LimitExceeded, "weir.refused.limit_exceeded"),
    (Counter::CostExceedsCapacity, "weir.refused.cost_exceeds_capacity"),
    (Counter::ControlPlaneUnreachable, "weir.refused.control_plane_unreachable"),
    (Counter::UsageUnacknowledged, "weir.refused.usage_unacknowledged"),
    (Counter::Overloaded, "weir.refused.overloaded"),
    (Counter::GraceExceeded, "weir.refused.grace_exceeded"),
    (Counter::WorkerFailed, "weir.refused.worker_failed"),
    (Counter::OutageGrace, "weir.outage_grace"),
    (Counter::OutageAllowed, "weir.outage_allowed"),
    (Counter::PolicyFailures, "weir.policy_failures"),
    (Counter::ShadowRefused, "weir.shadow_refused"),
    (Counter::LeaseCalls, "weir.lease_calls"),
    (Counter::LeaseCallFailures, "weir.lease_call_failures"),
    (Counter::UsageBatches, "weir.usage_batches"),
    (Counter::UsageBatchFailures, "weir.usage_batch_failures"),
    (Counter::ConfigCallFailures, "weir.config_call_failures"),
    (Counter::RefresherTerms, "weir.refresher_terms"),
    (Counter::OrphansPosted, "weir.orphans_posted"),
    (Counter::LostWorkers, "weir.lost_workers"),
];

/// Counts since the last tick.
#[derive(Debug, Clone)]
pub struct Stats {
    counts: [u64; COUNTERS.len()],
    ids: Vec<Option<u32>>,
}

impl Default for Stats {
    fn default() -> Self {
        Self { counts: [0; COUNTERS.len()], ids: Vec::new() }
    }
}

impl Stats {
    pub fn add(&mut self, counter: Counter, count: u64) {
        if let Some(slot) = self.counts.get_mut(counter as usize) {
            *slot += count;
        }
    }

    pub fn count(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    /// What was counted and is not handed to Envoy yet.
    pub fn since_recorded(&self, counter: Counter) -> u64 {
        self.counts.get(counter as usize).copied().unwrap_or_default()
    }

    /// Has Envoy know the counters.
    pub fn define(&mut self) {
        if self.ids.is_empty() {
            self.ids = COUNTERS.iter().map(|(_, name)| host::define_counter(name)).collect();
        }
    }

    /// Hands what was counted to Envoy.
    pub fn record(&mut self) {
        self.define();
        for (count, id) in self.counts.iter_mut().zip(&self.ids) {
            if let Some(id) = id.filter(|_| *count > 0) {
                host::add_to_counter(id, std::mem::take(count));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_stands_at_its_own_place() {
        for (index, (counter, _)) in COUNTERS.iter().enumerate() {
            assert_eq!(*counter as usize, index);
        }
    }
}
