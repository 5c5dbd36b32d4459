//! The outage contract: what becomes of a request of an active tenant when no lease can be had for
//! it. First grace at a bounded rate, then what the configuration says. All that passes is counted
//! as ever, and owed: the next call for a lease says it, and the buckets pay it first.

use weir_domain::quantity::{Amount, Quantity};

use crate::{
    config::{AfterGrace, OutageContract},
    host,
    refusal::Refused,
    slot::{Refusal, Slot},
    stats::Counter,
    tenants::Index,
    worker::{AnswerFields, Decision, Worker},
};

/// Why a request passed without a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unleased {
    Grace,
    Allowed,
}

/// What the contract says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass(Unleased),
    /// When the control plane was last heard of, this limit could not meet the need before later.
    Exhausted(Refusal),
    /// Grace has nothing left in this second.
    GraceExceeded,
    Deny,
}

impl Unleased {
    /// The code that clients see; the same as the stat's name.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Grace => "outage_grace",
            Self::Allowed => "outage_allowed",
        }
    }

    fn counter(self) -> Counter {
        match self {
            Self::Grace => Counter::OutageGrace,
            Self::Allowed => Counter::OutageAllowed,
        }
    }
}

const NS_PER_MS: u64 = 1_000_000;
const NS_PER_S: u64 = 1_000_000_000;

impl Slot {
    /// Decides over a request that takes `cost` and found no lease in time. What passes is noted as
    /// owed. Only of a tenant that was active when it was last heard of, and has not changed since.
    pub fn decide_unleased(
        &mut self,
        cost: Amount,
        contract: OutageContract,
        now_ns: u64,
    ) -> Verdict {
        if self.stamp.is_empty() || self.must_ask {
            return Verdict::Deny;
        }
        let knows_better =
            |refusal: &Refusal| refusal.retry_ns.is_none_or(|retry_ns| now_ns < retry_ns);
        if let Some(refusal) = self.refusal.filter(|it| cost.covers(it.need) && knows_better(it)) {
            return Verdict::Exhausted(refusal);
        }
        if self.outage_ns == 0 {
            self.outage_ns = now_ns;
        }
        let elapsed_ns = now_ns.saturating_sub(self.outage_ns);
        let verdict = if elapsed_ns < contract.grace_ms.saturating_mul(NS_PER_MS) {
            self.grace(cost, contract.grace_tokens_per_s, elapsed_ns)
        } else if contract.then == AfterGrace::Allow {
            Verdict::Pass(Unleased::Allowed)
        } else {
            Verdict::Deny
        };
        if matches!(verdict, Verdict::Pass(_)) {
            self.owed = self.owed.saturating_add(cost);
            self.used_ns = now_ns;
        }
        verdict
    }

    /// A second that has begun counts whole. A request that costs no tokens counts as one.
    fn grace(&mut self, cost: Amount, per_second: Quantity, elapsed_ns: u64) -> Verdict {
        let seconds = elapsed_ns / NS_PER_S + 1;
        let allowed = Quantity::clamped(per_second.get().saturating_mul(seconds));
        let graced = self.graced.saturating_add(cost.tokens.max(cost.requests));
        if graced > allowed {
            return Verdict::GraceExceeded;
        }
        self.graced = graced;
        Verdict::Pass(Unleased::Grace)
    }
}

impl Worker {
    /// Whether a tenant's call has been unanswered for as long as a request would wait: then nobody
    /// need wait for it any more.
    pub fn is_cut_off(&mut self, index: Index, now_ns: u64) -> bool {
        let max_wait_ns = self.config.max_wait_ms * NS_PER_MS;
        self.tenants
            .get_mut(index)
            .and_then(|tenant| tenant.call.as_ref())
            .is_some_and(|call| now_ns.saturating_sub(call.since_ns) >= max_wait_ns)
    }

    /// Decides by the outage contract over a request of the tenant at `index`.
    pub fn decide_in_outage(&mut self, index: Index, cost: Amount, now_ns: u64) -> Decision {
        let contract = self.config.outage;
        let Some(tenant) = self.tenants.get_mut(index) else {
            return Decision::Refuse(Refused::UnknownTenant);
        };
        let decided = host::update(&tenant.slot_key, |bytes| {
            let mut slot = Slot::decode(bytes);
            let verdict = slot.decide_unleased(cost, contract, now_ns);
            // A slot that does not exist is not made: the tenant may be a stranger.
            let changed = bytes.is_some() && !matches!(verdict, Verdict::Exhausted(_));
            (changed.then(|| slot.encode()).flatten(), (verdict, slot))
        });
        let Some((verdict, slot)) = decided else {
            return Decision::Refuse(Refused::ControlPlaneUnreachable);
        };
        match verdict {
            Verdict::Pass(unleased) => {
                tenant.count_unleased(cost, now_ns, slot.clock_offset_ns, &mut self.usage);
                self.note_admission(index, cost);
                self.stats.count(unleased.counter());
                Decision::Admit(Some(AnswerFields::Unleased(unleased)))
            }
            Verdict::Exhausted(refusal) => {
                tenant.see_limits(&slot);
                let limits = std::rc::Rc::clone(&tenant.limits);
                Decision::Refuse(Refused::Limit { refusal, cost, limits })
            }
            Verdict::GraceExceeded => Decision::Refuse(Refused::GraceExceeded),
            Verdict::Deny => Decision::Refuse(Refused::ControlPlaneUnreachable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Amount = Amount::request(Quantity::ONE);
    const GRACE: OutageContract = OutageContract {
        grace_ms: 2_500,
        grace_tokens_per_s: Quantity::clamped(3),
        then: AfterGrace::Deny,
    };

    fn known() -> Slot {
        Slot { stamp: "s.1".to_owned(), ..Slot::default() }
    }

    fn passes(slot: &mut Slot, contract: OutageContract, now_ms: u64) -> u64 {
        let pass = |slot: &mut Slot| slot.decide_unleased(ONE, contract, 1 + now_ms * NS_PER_MS);
        (0..100).take_while(|_| matches!(pass(slot), Verdict::Pass(_))).count() as u64
    }

    #[test]
    fn grace_passes_so_much_for_each_second_and_no_longer_than_it_lasts() {
        let mut slot = known();
        assert_eq!(passes(&mut slot, GRACE, 0), 3);
        assert_eq!(passes(&mut slot, GRACE, 999), 0);
        assert_eq!(passes(&mut slot, GRACE, 2_000), 6, "the second second had nobody");
        assert_eq!(slot.decide_unleased(ONE, GRACE, 2_100_000_000), Verdict::GraceExceeded);
        assert_eq!(slot.decide_unleased(ONE, GRACE, 2_600_000_000), Verdict::Deny);
        assert_eq!(slot.owed.tokens.get(), 9);
    }

    #[test]
    fn after_grace_all_pass_where_that_is_wanted() {
        let contract = OutageContract { then: AfterGrace::Allow, ..OutageContract::default() };
        let mut slot = known();
        assert_eq!(slot.decide_unleased(ONE, contract, 5), Verdict::Pass(Unleased::Allowed));
        assert_eq!(slot.owed, ONE);
    }

    #[test]
    fn who_is_not_known_as_active_is_denied() {
        let contract = OutageContract { then: AfterGrace::Allow, ..GRACE };
        assert_eq!(Slot::default().decide_unleased(ONE, contract, 5), Verdict::Deny);
        let mut changed = known();
        changed.invalidate(3);
        assert_eq!(changed.decide_unleased(ONE, contract, 5), Verdict::Deny);
    }

    #[test]
    fn who_had_nothing_left_waits_for_the_reset_in_an_outage_too() {
        let contract = OutageContract { then: AfterGrace::Allow, ..GRACE };
        let refusal = Refusal { need: ONE, until_ns: 10, retry_ns: Some(1_000) };
        let mut slot = Slot { refusal: Some(refusal), ..known() };
        assert_eq!(slot.decide_unleased(ONE, contract, 999), Verdict::Exhausted(refusal));
        assert_eq!(slot.decide_unleased(ONE, contract, 1_000), Verdict::Pass(Unleased::Grace));
    }
}
