//! The outage contract: what becomes of a request of an active tenant when no lease can be had for
//! it. First grace at a bounded rate, then what the configuration says. All that passes is counted
//! as ever, and owed: the next call for a lease says it, and the buckets pay it first.

use weir_domain::{
    id::TenantId,
    quantity::{Amount, Quantity},
};

use crate::{
    config::{AfterGrace, OutageContract},
    host,
    rating::Rate,
    refusal::Refused,
    slot::{Refusal, Slot},
    stats::Counter,
    tenant::slot_key,
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
    /// owed. Only of a tenant that was active when it was last heard of, and has not changed since;
    /// at `all_changed_ns` all tenants may have.
    pub fn decide_unleased(
        &mut self,
        cost: Amount,
        contract: OutageContract,
        all_changed_ns: u64,
        now_ns: u64,
    ) -> Verdict {
        if self.stamp.is_empty() || self.must_ask || self.limits_ns < all_changed_ns {
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
    /// Adds a tenant that this worker has no room to ask for, if another one has its lease: strangers
    /// who cannot be told from tenants in an outage must not keep those away.
    pub fn find_by_lease(&mut self, credential: &[u8]) -> Option<Index> {
        let id = TenantId::new(std::str::from_utf8(credential).ok()?).ok()?;
        let slot = Slot::decode(host::read(&slot_key(&id)).as_deref());
        if slot.stamp.is_empty() {
            return None;
        }
        let index = self.tenants.add(id);
        self.tenants.prove(index);
        Some(index)
    }

    /// This worker ends: what its call under way owes is for others to say. Said twice, it is debited
    /// twice: too little, never too much.
    pub fn keep_debt(&mut self, index: Index) {
        let Some(tenant) = self.tenants.get_mut(index) else {
            return;
        };
        let owe = tenant.call.as_ref().map_or(Amount::ZERO, |call| call.ask.owe);
        if owe.is_zero() {
            return;
        }
        host::update(&tenant.slot_key(), |bytes| {
            let mut slot = Slot::decode(bytes);
            slot.owed = slot.owed.saturating_add(owe);
            (slot.encode(), ())
        });
    }

    /// Whether calls for a tenant have failed for as long as a request would wait, from whichever
    /// worker: then nobody need wait for one any more. Somebody goes on calling all the same.
    pub fn is_cut_off(&mut self, index: Index, now_ns: u64) -> bool {
        let Some(tenant) = self.tenants.get_mut(index) else {
            return false;
        };
        let Some(slot) = host::read(&tenant.slot_key()).map(|bytes| Slot::decode(Some(&bytes)))
        else {
            return false;
        };
        if slot.failing_ns == 0 {
            // Another worker's call was answered: this one's need not wait for its time.
            if let Some(call) = tenant.call.as_mut() {
                call.retry_ns = call.retry_ns.min(now_ns);
            }
            return false;
        }
        if now_ns >= slot.caller_until_ns {
            // Whose call failed may be gone, or may not get through where this worker does.
            self.ask_for(index);
        }
        now_ns.saturating_sub(slot.failing_ns) >= self.config.max_wait_ms * NS_PER_MS
    }

    /// Decides by the outage contract over a request of the tenant at `index`.
    pub fn decide_in_outage(
        &mut self,
        context: u32,
        index: Index,
        rate: &Rate,
        now_ns: u64,
    ) -> Decision {
        let cost = rate.cost;
        let contract = self.config.outage;
        let all_changed_ns = self.refresher.all_changed_ns();
        let Some(tenant) = self.tenants.get_mut(index) else {
            return Decision::Refuse(Refused::UnknownTenant);
        };
        let decided = host::update(&tenant.slot_key(), |bytes| {
            let mut slot = Slot::decode(bytes);
            let before = (slot.outage_ns, slot.owed);
            let verdict = slot.decide_unleased(cost, contract, all_changed_ns, now_ns);
            // A slot that does not exist is not made: the tenant may be a stranger.
            let changed = bytes.is_some() && before != (slot.outage_ns, slot.owed);
            (changed.then(|| slot.encode()).flatten(), (verdict, slot))
        });
        let Some((verdict, slot)) = decided else {
            return Decision::Refuse(Refused::ControlPlaneUnreachable);
        };
        if !slot.stamp.is_empty() {
            // Who has a lease is no stranger; this worker may be new.
            self.tenants.prove(index);
        }
        let Some(tenant) = self.tenants.get_mut(index) else {
            return Decision::Refuse(Refused::UnknownTenant);
        };
        match verdict {
            Verdict::Pass(unleased) => {
                tenant.count_unleased(rate, now_ns, slot.clock_offset_ns(), &mut self.usage);
                self.note_admission(context, index, rate, false);
                self.stats.count(unleased.counter());
                Decision::Admit(Some(AnswerFields::Unleased(unleased)))
            }
            Verdict::Exhausted(refusal) => {
                tenant.see_limits(&slot);
                Decision::Refuse(tenant.refuse(refusal, cost, now_ns))
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
        let pass = |slot: &mut Slot| slot.decide_unleased(ONE, contract, 0, 1 + now_ms * NS_PER_MS);
        (0..100).take_while(|_| matches!(pass(slot), Verdict::Pass(_))).count() as u64
    }

    #[test]
    fn grace_passes_so_much_for_each_second_and_no_longer_than_it_lasts() {
        let mut slot = known();
        assert_eq!(passes(&mut slot, GRACE, 0), 3);
        assert_eq!(passes(&mut slot, GRACE, 999), 0);
        assert_eq!(passes(&mut slot, GRACE, 2_000), 6, "the second second had nobody");
        assert_eq!(slot.decide_unleased(ONE, GRACE, 0, 2_100_000_000), Verdict::GraceExceeded);
        assert_eq!(slot.decide_unleased(ONE, GRACE, 0, 2_600_000_000), Verdict::Deny);
        assert_eq!(slot.owed.tokens.get(), 9);
    }

    #[test]
    fn after_grace_all_pass_where_that_is_wanted() {
        let contract = OutageContract { then: AfterGrace::Allow, ..OutageContract::default() };
        let mut slot = known();
        assert_eq!(slot.decide_unleased(ONE, contract, 0, 5), Verdict::Pass(Unleased::Allowed));
        assert_eq!(slot.owed, ONE);
    }

    #[test]
    fn who_is_not_known_as_active_is_denied() {
        let contract = OutageContract { then: AfterGrace::Allow, ..GRACE };
        assert_eq!(Slot::default().decide_unleased(ONE, contract, 0, 5), Verdict::Deny);
        let mut changed = known();
        changed.invalidate(3);
        assert_eq!(changed.decide_unleased(ONE, contract, 0, 5), Verdict::Deny);
        let mut old = Slot { limits_ns: 3, ..known() };
        assert_eq!(old.decide_unleased(ONE, contract, 4, 5), Verdict::Deny, "all changed since");
    }

    #[test]
    fn who_had_nothing_left_waits_for_the_reset_in_an_outage_too() {
        let contract = OutageContract { then: AfterGrace::Allow, ..GRACE };
        let refusal = Refusal { need: ONE, until_ns: 10, retry_ns: Some(1_000) };
        let mut slot = Slot { refusal: Some(refusal), ..known() };
        assert_eq!(slot.decide_unleased(ONE, contract, 0, 999), Verdict::Exhausted(refusal));
        assert_eq!(slot.decide_unleased(ONE, contract, 0, 1_000), Verdict::Pass(Unleased::Grace));
    }
}
