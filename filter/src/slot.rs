//! The slot: what this gateway may spend for one tenant, in Envoy's shared data, drawn on by all its
//! workers. Pure: a slot changes only by these functions, each of which runs in a compare-and-swap.

use serde::{Deserialize, Serialize};
use weir_domain::{
    protocol::{LeaseAnswer, LimitStatus, TenantState},
    quantity::{Amount, Quantity},
};

mod demand;
pub mod idle;
mod in_ms;

use self::demand::LEAST_REQUESTS;
pub use self::demand::least_want;

/// The lease of this gateway for one tenant. Times are ns of the monotonic clock; those in steady use are
/// kept in ms, rounded down, which is shorter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// Names the lease; empty without one.
    pub stamp: String,
    /// The same among the leases that this slot has held; 0 without one. No number comes again, though
    /// the slot may be emptied: it follows the clock.
    pub lease: u64,
    #[serde(with = "in_ms")]
    pub end_ns: u64,
    /// How long the lease was to last when it was asked for; how long it may be idle follows from that.
    #[serde(with = "in_ms")]
    pub ttl_ns: u64,
    /// When the newest answer was decided, by the control plane's clock.
    pub now_ms: i64,
    /// Not drawn by any worker.
    pub free: Amount,
    /// Admitted by this gateway's workers and not yet said to the control plane.
    pub spent: Amount,
    /// Noted as spent since `measured_ns`; this is the demand that sizes the next lease. What was only
    /// drawn is none: leases would feed on themselves.
    pub used: Amount,
    #[serde(with = "in_ms")]
    pub measured_ns: u64,
    /// What the last measurement says this gateway needs in [`LEASE_SPAN_NS`].
    pub demand: Amount,
    /// When a request last drew from it.
    #[serde(with = "in_ms")]
    pub used_ns: u64,
    /// Nothing may be drawn before the control plane has been asked again: something changed.
    pub must_ask: bool,
    /// When that last was so: the answer to a call that was sent before does not know of it.
    pub changed_ns: u64,
    /// The worker whose call is under way, and until when that is believed.
    pub caller: u64,
    pub caller_until_ns: u64,
    pub refusal: Option<Refusal>,
    /// The limits when the newest answer came, at `limits_ns`. They are kept where somebody is told of
    /// them, and from then on.
    pub limits: Option<Vec<LimitStatus>>,
    #[serde(with = "in_ms")]
    pub limits_ns: u64,
    /// In workers' slices, or spent by them and not noted here yet.
    pub outstanding: Amount,
    /// Spent, and said in the call under way.
    pub saying: Amount,
    /// When a call first failed since the last answer; 0 while none has.
    pub failing_ns: u64,
    /// When the outage contract first decided, since an answer to which nothing was owed; 0 while it
    /// has not.
    pub outage_ns: u64,
    /// What passed in grace since then.
    pub graced: Quantity,
    /// What passed without a lease, and is in no call yet.
    pub owed: Amount,
    /// The gateway's generation when the lease was asked for: what workers had drawn from it that
    /// were lost since counts as held.
    pub generation: u64,
    /// The plan that the tenant is on, empty for none; `None` where it is not known, or nobody asks.
    pub plan: Option<String>,
}

/// The control plane said no to `need`; until `until_ns` the gateway says so on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub need: Amount,
    pub until_ns: u64,
    /// When the need can be met; `None` for never.
    pub retry_ns: Option<u64>,
}

impl Refusal {
    /// Whether a request that takes `cost` is refused at `now_ns`.
    pub fn refuses(&self, cost: Amount, now_ns: u64) -> bool {
        now_ns < self.until_ns && cost.covers(self.need)
    }
}

/// What a worker got from a slot.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    pub slice: Amount,
    pub lease: u64,
    pub end_ns: u64,
    pub ttl_ns: u64,
    pub clock_offset_ns: i64,
    /// All that the gateway holds is so little that nobody misses it.
    pub holds_little: bool,
    /// The slot runs low: somebody should ask for more, and nobody does yet.
    pub low: bool,
}

/// For how long a lease should last at the present demand.
pub const LEASE_SPAN_NS: u64 = 1_000_000_000;
/// How long a call is believed to be under way before another worker may call.
const CALLER_NS: u64 = 2_000_000_000;
/// The same where requests wait: shorter than they may wait, as the caller may be lost. Two calls do no
/// harm, they only cost more.
const CALLER_NS_WITH_NEED: u64 = 100_000_000;
/// A gateway that holds no more than so many holds little: those who come rarely have what they asked for,
/// and slices of it in each worker.
const LITTLE_REQUESTS: u64 = 4 * LEAST_REQUESTS;

impl Slot {
    pub fn decode(bytes: Option<&[u8]>) -> Self {
        bytes.and_then(|bytes| postcard::from_bytes(bytes).ok()).unwrap_or_default()
    }

    pub fn encode(&self) -> Option<Vec<u8>> {
        postcard::to_allocvec(self).ok()
    }

    pub fn is_live(&self, now_ns: u64) -> bool {
        !self.stamp.is_empty() && now_ns < self.end_ns
    }

    /// The control plane has just said no.
    pub fn is_refused(&self, now_ns: u64) -> bool {
        self.refusal.is_some_and(|refusal| now_ns < refusal.until_ns)
    }

    /// What to add to the monotonic clock to get the control plane's, in ns, as the newest answer has it.
    pub fn clock_offset_ns(&self) -> i64 {
        clock_offset_ns(self.now_ms, self.end_ns.saturating_sub(self.ttl_ns))
    }

    /// Draws a slice that covers `cost`: a quarter of what is free, down to the cost itself as the
    /// slot empties.
    pub fn draw(&mut self, cost: Amount, now_ns: u64) -> Option<Drawn> {
        if self.must_ask || !self.is_live(now_ns) {
            return None;
        }
        let quarter = |free: Quantity| Quantity::clamped(free.get() / 4);
        let quarters =
            Amount { tokens: quarter(self.free.tokens), requests: quarter(self.free.requests) };
        let slice = cost.max(quarters);
        self.free = self.free.checked_sub(slice)?;
        self.outstanding = self.outstanding.saturating_add(slice);
        self.used_ns = now_ns;
        let low = self.is_low(now_ns) && now_ns >= self.caller_until_ns;
        Some(Drawn {
            slice,
            lease: self.lease,
            end_ns: self.end_ns,
            ttl_ns: self.ttl_ns,
            clock_offset_ns: self.clock_offset_ns(),
            holds_little: self.holds_little(),
            low,
        })
    }

    /// Whether the gateway holds no more than what those ask for who come rarely.
    pub fn holds_little(&self) -> bool {
        let held = self.free.saturating_add(self.outstanding);
        held.requests.get() <= LITTLE_REQUESTS
    }

    /// What it may keep of few requests: as many tokens as little takes by requests like those since the last
    /// call. One that cost much may have left it far more.
    fn little(&self) -> Amount {
        let tokens = self.taken_by(LITTLE_REQUESTS).map_or(Quantity::MAX, |taken| taken.tokens);
        Amount { tokens, requests: Quantity::MAX }
    }

    /// Takes back `rest` of a slice that was drawn under `lease`, and notes `spent`. Both are void
    /// when the slot has another lease by now.
    pub fn put_back(&mut self, lease: u64, rest: Amount, spent: Amount) {
        if self.lease == lease {
            self.free = self.free.saturating_add(rest);
            self.used = self.used.saturating_add(spent);
            self.outstanding = self.outstanding.saturating_sub(rest).saturating_sub(spent);
            self.spent = self.spent.saturating_add(spent);
        }
    }

    /// Starts a call by `caller`, unless another worker's is under way. What was spent goes with it,
    /// so it is taken out here; the caller must repeat the call until it is answered. `generation` is
    /// the gateway's: a lease of an older one is given up for a fresh one.
    pub fn start_call(
        &mut self,
        caller: u64,
        need: Amount,
        generation: u64,
        now_ns: u64,
    ) -> Option<CallBasis> {
        let patience_ns = if need.is_zero() { CALLER_NS } else { CALLER_NS_WITH_NEED };
        let believed_until_ns = self.caller_until_ns.saturating_sub(CALLER_NS - patience_ns);
        if now_ns < believed_until_ns && self.caller != caller {
            return None;
        }
        self.caller = caller;
        self.caller_until_ns = now_ns + CALLER_NS;
        let little = self.little();
        let target = self.typical(LEAST_REQUESTS).max(self.measure(now_ns)).max(least_want(need));
        let fresh = !self.stamp.is_empty() && self.generation < generation;
        // A slot that must ask gives everything back, to be dealt a lease on the new terms.
        let gives_back = self.must_ask || fresh;
        let refund = if gives_back {
            self.free
        } else if need.is_zero() && self.is_live(now_ns) {
            // The demand has fallen: others may have use for the rest.
            let twice = target.saturating_add(target);
            self.free.saturating_sub(if self.holds_little() { twice.max(little) } else { twice })
        } else {
            Amount::ZERO
        };
        self.free = self.free.saturating_sub(refund);
        // What is left of a lease that has ended is of no use.
        let free = if self.is_live(now_ns) { self.free } else { Amount::ZERO };
        Some(CallBasis {
            stamp: self.stamp.clone(),
            want: need.max(target.saturating_sub(free)),
            spent: self.say_spent(),
            refund,
            owe: std::mem::take(&mut self.owed),
            fresh,
        })
    }

    /// Gives up the lease: all that is free goes back.
    pub fn start_refund(&mut self, caller: u64, now_ns: u64) -> Option<CallBasis> {
        if now_ns < self.caller_until_ns || !self.is_live(now_ns) {
            return None;
        }
        self.caller = caller;
        self.caller_until_ns = now_ns + CALLER_NS;
        self.demand = Amount::ZERO;
        self.used = Amount::ZERO;
        Some(CallBasis {
            stamp: self.stamp.clone(),
            want: Amount::ZERO,
            spent: self.say_spent(),
            refund: std::mem::take(&mut self.free),
            owe: std::mem::take(&mut self.owed),
            fresh: false,
        })
    }

    fn say_spent(&mut self) -> Amount {
        let spent = std::mem::take(&mut self.spent);
        self.saying = self.saying.saturating_add(spent);
        spent
    }

    /// What was spent since the limits were told, or may have been by others than the one worker
    /// that has `slice`.
    pub fn spent_since_limits(&self, slice: Amount) -> Amount {
        let others = self.outstanding.saturating_sub(slice);
        self.spent.saturating_add(self.saying).saturating_add(others)
    }

    /// Takes in the answer to `call`.
    pub fn apply(&mut self, answer: &LeaseAnswer, call: &Called, now_ns: u64) {
        let Called { caller, need, generation, sent_ns, .. } = *call;
        if self.caller == caller {
            self.caller = 0;
            self.caller_until_ns = 0;
        }
        self.failing_ns = 0;
        // An answer of an older lease that was overtaken on the way.
        if answer.stamp != self.stamp && answer.now_ms < self.now_ms && self.is_live(now_ns) {
            return;
        }
        if answer.stamp != self.stamp {
            self.stamp.clone_from(&answer.stamp);
            self.lease = now_ns.max(self.lease + 1);
            self.generation = self.generation.max(generation);
            self.free = Amount::ZERO;
            self.spent = Amount::ZERO;
            self.outstanding = Amount::ZERO;
        }
        self.must_ask = sent_ns < self.changed_ns;
        self.plan = (call.reads_plan && !self.must_ask).then(|| answer.plan.clone());
        self.now_ms = answer.now_ms;
        self.ttl_ns = answer.ttl_ms.saturating_mul(1_000_000);
        self.end_ns = sent_ns.saturating_add(self.ttl_ns);
        self.free = self.free.saturating_add(answer.granted);
        self.saying = Amount::ZERO;
        if self.owed.is_zero() {
            self.outage_ns = 0;
            self.graced = Quantity::ZERO;
        }
        self.note_refusal(answer, need, now_ns);
        self.limits_ns = now_ns;
        if call.tells_limits || self.limits.is_some() || self.refusal.is_some() {
            self.limits = Some(answer.limits.clone());
        }
    }

    fn note_refusal(&mut self, answer: &LeaseAnswer, need: Amount, now_ns: u64) {
        // Where nothing was needed, it is about the least that a request takes, and no reason to refuse
        // one here: what the limits have left, it says with what this gateway held then.
        let needed = !need.is_zero();
        let need = if needed { need } else { Amount::request(Quantity::ONE) };
        // Nothing granted, and nothing to wait for: the answer to a repeated call that came too late.
        let refused = answer.state == TenantState::Active
            && answer.ask_again_ms > 0
            && !answer.granted.covers(need)
            && !self.must_ask;
        let after = |ms: u64| now_ns.saturating_add(ms.saturating_mul(1_000_000));
        if refused {
            self.refusal = Some(Refusal {
                need,
                until_ns: if needed { after(answer.ask_again_ms) } else { now_ns },
                retry_ns: (answer.retry_after_ms > 0).then(|| after(answer.retry_after_ms)),
            });
        } else if !answer.granted.is_zero() {
            // Who gave back or only said what was spent has not heard that there is more.
            self.refusal = None;
        }
    }

    /// Something about the tenant changed: nothing is drawn before the control plane was asked again.
    pub fn invalidate(&mut self, now_ns: u64) {
        self.must_ask = true;
        self.changed_ns = now_ns;
        self.plan = None;
        self.refusal = None;
    }
}

/// A call for a lease, as it was made.
#[derive(Debug, Clone, Copy)]
pub struct Called {
    pub caller: u64,
    pub need: Amount,
    /// The gateway's, when the call was put together.
    pub generation: u64,
    pub sent_ns: u64,
    /// Whether the policy reads which plan the tenant is on.
    pub reads_plan: bool,
    /// Whether those who are admitted are told of their limits too.
    pub tells_limits: bool,
}

/// What a call for a lease starts from.
#[derive(Debug, Clone, PartialEq)]
pub struct CallBasis {
    pub stamp: String,
    pub want: Amount,
    pub spent: Amount,
    pub refund: Amount,
    pub owe: Amount,
    pub fresh: bool,
}

/// The clock that stamps usage: anchored at the moment the call was sent, it runs at most a call's
/// length ahead of the control plane's, so a lease that ends with its period is never stamped past it.
pub fn clock_offset_ns(now_ms: i64, sent_ns: u64) -> i64 {
    now_ms.saturating_mul(1_000_000).saturating_sub(i64::try_from(sent_ns).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
