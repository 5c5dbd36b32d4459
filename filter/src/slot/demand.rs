//! How much a gateway needs of a tenant's tokens, and when it should ask for more.

use weir_domain::quantity::{Amount, Quantity};

use super::{LEASE_SPAN_NS, Slot, idle};

/// Demand is measured over this at least. Workers note what they spent a slice at a time, and in a
/// shorter time a slice would look like a multiple of the demand.
const MEASURE_NS: u64 = LEASE_SPAN_NS / 4;
/// The least that a lease asks for, in requests of the cost at hand.
pub(super) const LEAST_REQUESTS: u64 = 32;
/// With less than so many a slot runs low, however seldom they come: they may come one upon the other.
const FEW_REQUESTS: u64 = 4;

impl Slot {
    /// Less than half of what the demand needs, or than a few requests take, unless the control plane just
    /// said there is no more.
    pub(super) fn is_low(&self, now_ns: u64) -> bool {
        let half = |demand: Quantity| Quantity::clamped(demand.get().div_ceil(2));
        let (tokens, requests) = (half(self.demand.tokens), half(self.demand.requests));
        let low = !self.free.covers(self.typical(FEW_REQUESTS).max(Amount { tokens, requests }));
        low && !self.is_refused(now_ns)
    }

    /// [`Self::taken_by`] so many requests where the tenant had plenty, else nothing. Those who come rarely are
    /// hardly any demand per lease span, and must not wait now and then for all that.
    pub(super) fn typical(&self, count: u64) -> Amount {
        let taken = self.taken_by(count).filter(|_| idle::had_plenty(self.ttl_ns));
        taken.unwrap_or(Amount::ZERO)
    }

    /// What so many requests take that are like those since the last call, if there were any.
    pub(super) fn taken_by(&self, count: u64) -> Option<Amount> {
        let requests = self.used.requests.get();
        let scale = |used: Quantity| {
            let scaled =
                (u128::from(used.get()) * u128::from(count)).checked_div(u128::from(requests))?;
            Some(Quantity::clamped(u64::try_from(scaled).unwrap_or(u64::MAX)))
        };
        Some(Amount { tokens: scale(self.used.tokens)?, requests: scale(self.used.requests)? })
    }

    /// Turns what was used since the last measurement into the demand per lease span. Demand rises at
    /// once, and when it falls, halves in each span.
    pub(super) fn measure(&mut self, now_ns: u64) -> Amount {
        if self.measured_ns == 0 {
            self.measured_ns = now_ns;
        }
        let elapsed_ns = now_ns.saturating_sub(self.measured_ns);
        let is_long_enough = elapsed_ns >= MEASURE_NS;
        let span_ns = u128::from(elapsed_ns.max(MEASURE_NS));
        let per_span = |used: Quantity, before: Quantity| {
            let now = u128::from(used.get()) * u128::from(LEASE_SPAN_NS) / span_ns;
            let now = u64::try_from(now).unwrap_or(u64::MAX);
            let spans = (elapsed_ns / LEASE_SPAN_NS).clamp(1, 63);
            let least = if is_long_enough { before.get() >> spans } else { before.get() };
            Quantity::clamped(now.max(least))
        };
        self.demand = Amount {
            tokens: per_span(self.used.tokens, self.demand.tokens),
            requests: per_span(self.used.requests, self.demand.requests),
        };
        if is_long_enough {
            self.used = Amount::ZERO;
            self.measured_ns = now_ns;
        }
        self.demand
    }
}

/// What to ask for at least when `need` is at hand: nothing when nothing is needed.
pub fn least_want(need: Amount) -> Amount {
    let times = |need: Quantity| Quantity::clamped(need.get().saturating_mul(LEAST_REQUESTS));
    Amount { tokens: times(need.tokens), requests: times(need.requests) }
}
