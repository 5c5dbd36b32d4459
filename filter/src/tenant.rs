//! A tenant in one worker's memory: its slice, what it used, and the requests that wait for it.

use std::{collections::VecDeque, rc::Rc};

use weir_domain::{
    id::TenantId,
    protocol::{LeaseAsk, LimitStatus},
    quantity::Amount,
};

use crate::{
    rating::Rate,
    refusal::{LimitRefused, Refused},
    slot::{Drawn, Refusal, Slot},
    usage::UsageLog,
};

/// What one worker knows of one tenant. Times are ns of the monotonic clock.
#[derive(Debug)]
pub struct Tenant {
    pub id: TenantId,
    /// Whether the control plane has said that this tenant exists.
    pub proven: bool,
    /// What this worker may spend until `fast_until_ns` without asking anybody.
    slice: Amount,
    /// The end of the slice's lease or of the minute that usage is counted in, whichever is sooner.
    fast_until_ns: u64,
    pub end_ns: u64,
    /// How long that lease was to last when it was asked for.
    ttl_ns: u64,
    pub stamp: String,
    clock_offset_ns: i64,
    minute: i64,
    /// Admitted in `minute` on the default meter, by `policy_version`, and in no batch yet.
    counted: Amount,
    policy_version: u32,
    /// Admitted under `stamp`, and not yet noted in the slot.
    spent: Amount,
    /// Calls of language models that are under way: what they may take at most is taken, and neither
    /// counted nor noted as spent yet.
    open_calls: u32,
    /// When a request last took from the slice.
    pub used_ns: u64,
    /// The plan that it is on, empty for none; kept where the policy reads it.
    pub plan: Option<Box<str>>,
    /// The tenant is suspended, as far as is known until then.
    pub suspended_until_ns: u64,
    /// When a change of it was last heard of: what was said before may be outdated.
    pub changed_ns: u64,
    pub refusal: Option<Refusal>,
    /// What refused requests were told last.
    told: Option<Rc<LimitRefused>>,
    /// For those who are told of them; otherwise nothing is kept.
    pub limits: Option<Rc<Limits>>,
    /// Admitted by this worker, or drawn by others, since `limits` were told.
    spent_since_limits: Amount,
    pub next_call: u64,
    pub call: Option<Box<PendingCall>>,
    pub waiters: VecDeque<Waiter>,
    /// They don't stand in the order of their contexts: Envoy's numbers began anew, or a filter before
    /// this one held requests back.
    is_permuted: bool,
    /// Whether the worker's list of tenants to ask for holds this one.
    pub ask_queued: bool,
    /// Whether the worker's list of tenants that count usage holds this one.
    pub counts: bool,
    /// Whether the worker looks after what it holds.
    pub watched: bool,
    /// Whether the worker's list of tenants with waiting requests holds this one.
    pub waiting_listed: bool,
}

/// A call for a lease that is not answered yet; it is repeated unchanged.
#[derive(Debug)]
pub struct PendingCall {
    pub ask: LeaseAsk,
    /// The gateway's generation when it was put together.
    pub generation: u64,
    pub sent_ns: u64,
    pub retry_ns: u64,
    pub failures: u32,
}

/// A paused request.
#[derive(Debug, Clone)]
pub struct Waiter {
    pub context: u32,
    /// `None` until what it takes to rate it is known.
    pub rate: Option<Rate>,
    pub deadline_ns: u64,
    /// Its client left. The oldest in a list is never one of these.
    pub gone: bool,
}

/// A tenant's limits as the control plane last told them.
#[derive(Debug, Default)]
pub struct Limits {
    pub list: Vec<LimitStatus>,
    pub at_ns: u64,
}

mod reservations;

pub use self::reservations::Settled;

const NS_PER_MINUTE: i64 = 60_000_000_000;

/// Where a tenant's slot is kept.
pub fn slot_key(id: &TenantId) -> String {
    format!("weir/1/slot/{id}")
}

impl Tenant {
    pub fn new(id: TenantId) -> Self {
        Self {
            id,
            proven: false,
            slice: Amount::ZERO,
            fast_until_ns: 0,
            end_ns: 0,
            ttl_ns: 0,
            stamp: String::new(),
            clock_offset_ns: 0,
            minute: 0,
            counted: Amount::ZERO,
            policy_version: 0,
            spent: Amount::ZERO,
            open_calls: 0,
            used_ns: 0,
            plan: None,
            suspended_until_ns: 0,
            changed_ns: 0,
            refusal: None,
            told: None,
            limits: None,
            spent_since_limits: Amount::ZERO,
            next_call: 1,
            call: None,
            waiters: VecDeque::new(),
            is_permuted: false,
            ask_queued: false,
            counts: false,
            watched: false,
            waiting_listed: false,
        }
    }

    /// Where its slot is kept.
    pub fn slot_key(&self) -> String {
        slot_key(&self.id)
    }

    /// Takes what `rate` says from the slice and counts it, if the slice covers it. This is all that
    /// almost every request does.
    pub fn take(&mut self, rate: &Rate, now_ns: u64, usage: &mut UsageLog) -> bool {
        if now_ns >= self.fast_until_ns && !self.turn_minute(now_ns, usage) {
            return false;
        }
        let cost = rate.cost;
        let Some(rest) = self.slice.checked_sub(cost) else {
            return false;
        };
        self.slice = rest;
        self.count(rate, usage);
        self.spent = self.spent.saturating_add(cost);
        self.spent_since_limits = self.spent_since_limits.saturating_add(cost);
        self.used_ns = now_ns;
        true
    }

    /// Counts a request in `minute`.
    fn count(&mut self, rate: &Rate, usage: &mut UsageLog) {
        if let Some(meter) = &rate.meter {
            usage.add_metered(&self.id, self.minute, meter, rate.policy_version, rate.cost);
            return;
        }
        if self.policy_version != rate.policy_version {
            self.close_minute(usage);
            self.policy_version = rate.policy_version;
        }
        if self.counted.checked_add(rate.cost).is_none() {
            self.close_minute(usage);
        }
        self.counted = self.counted.saturating_add(rate.cost);
    }

    /// Starts the next minute of usage; `false` when the slice's lease has ended.
    fn turn_minute(&mut self, now_ns: u64, usage: &mut UsageLog) -> bool {
        if now_ns >= self.end_ns {
            return false;
        }
        let wall_ns = self.clock_offset_ns.saturating_add_unsigned(now_ns);
        let minute = wall_ns.div_euclid(NS_PER_MINUTE);
        if minute != self.minute {
            self.close_minute(usage);
            self.minute = minute;
        }
        let left_ns = NS_PER_MINUTE - wall_ns.rem_euclid(NS_PER_MINUTE);
        self.fast_until_ns = self.end_ns.min(now_ns.saturating_add(left_ns.unsigned_abs()));
        true
    }

    /// Counts what passed without a lease, by the clock that came with the last one.
    pub fn count_unleased(
        &mut self,
        rate: &Rate,
        now_ns: u64,
        clock_offset_ns: i64,
        usage: &mut UsageLog,
    ) {
        let minute = clock_offset_ns.saturating_add_unsigned(now_ns).div_euclid(NS_PER_MINUTE);
        if minute != self.minute {
            self.close_minute(usage);
            self.minute = minute;
        }
        self.count(rate, usage);
        self.used_ns = now_ns;
        // What is left of a slice has a clock of its own.
        self.fast_until_ns = 0;
    }

    /// Moves what was counted into the log, for the next batch.
    pub fn close_minute(&mut self, usage: &mut UsageLog) {
        let counted = std::mem::take(&mut self.counted);
        if !counted.is_zero() {
            usage.add(&self.id, self.minute, self.policy_version, counted);
        }
    }

    /// What is left of the slice and what was spent of it, to be put back into the slot. The slice is
    /// gone after this.
    pub fn surrender(&mut self) -> Surrendered {
        self.fast_until_ns = 0;
        Surrendered {
            rest: std::mem::take(&mut self.slice),
            spent: std::mem::take(&mut self.spent),
        }
    }

    /// What a request that takes `cost` is told, which the buckets do not hold.
    pub fn refuse(&mut self, refusal: Refusal, cost: Amount, now_ns: u64) -> Refused {
        let limits = self.limits.get_or_insert_default();
        // Less was refused for now; this much never passes.
        let retry_ns = refusal.retry_ns.filter(|_| !limits.are_exceeded_by(cost));
        let refusal = Refusal { retry_ns, ..refusal };
        let told = self.told.take().filter(|told| told.is(refusal, cost, limits, now_ns));
        let told = told.unwrap_or_else(|| {
            Rc::new(LimitRefused::new(refusal, cost, Rc::clone(limits), now_ns))
        });
        self.told = Some(Rc::clone(&told));
        Refused::Limit(told)
    }

    /// Holds a new slice; the one before must have been surrendered.
    pub fn hold(&mut self, drawn: Drawn) {
        self.slice = drawn.slice;
        self.stamp = drawn.stamp;
        self.end_ns = drawn.end_ns;
        self.ttl_ns = drawn.ttl_ns;
        self.clock_offset_ns = drawn.clock_offset_ns;
        self.fast_until_ns = 0;
        self.told = None;
    }

    /// The lease that the slice is of was renewed. Its end comes with the clock that says what time
    /// that is: by the clock from before, the end may lie past the period that the lease is of.
    pub fn extend(&mut self, slot: &Slot) {
        if slot.end_ns > self.end_ns {
            self.end_ns = slot.end_ns;
            self.ttl_ns = slot.ttl_ns;
            self.clock_offset_ns = slot.clock_offset_ns;
            self.fast_until_ns = 0;
        }
    }

    /// Notes which plan it is on, where the slot says so: a replica of the control plane that had not
    /// heard of a change may have said another one before.
    pub fn see_plan(&mut self, slot: &Slot) {
        if let Some(plan) = slot.plan.as_deref()
            && self.plan.as_deref().is_some_and(|before| before != plan)
        {
            self.plan = Some(plan.into());
        }
    }

    /// How long its lease was to last when it was asked for.
    pub fn ttl_ns(&self) -> u64 {
        self.ttl_ns
    }

    /// Notes the limits as the slot has them. What others drew since they were told counts as spent.
    pub fn see_limits(&mut self, slot: &Slot) {
        if self.limits.as_ref().is_none_or(|limits| limits.at_ns != slot.limits_ns) {
            let limits = Limits { list: slot.limits.clone(), at_ns: slot.limits_ns };
            self.limits = Some(Rc::new(limits));
        }
        self.spent_since_limits = slot.spent_since_limits(self.slice);
    }

    /// What was admitted since the limits were told, as far as this worker knows.
    pub fn spent_since_limits(&self) -> Amount {
        self.spent_since_limits
    }

    /// Whether the slice holds anything, or something spent is not noted yet.
    pub fn holds_anything(&self) -> bool {
        !self.slice.is_zero() || !self.spent.is_zero()
    }

    /// Whether nothing would be lost if this tenant were forgotten.
    pub fn is_idle(&self) -> bool {
        !self.holds_anything()
            && self.open_calls == 0
            && self.counted.is_zero()
            && self.waiters.is_empty()
            && self.call.is_none()
            && !self.ask_queued
    }

    /// Has a request wait, behind the others.
    pub fn push_waiter(&mut self, waiter: Waiter) {
        let last = self.waiters.back();
        self.is_permuted =
            last.is_some_and(|last| self.is_permuted || waiter.context < last.context);
        self.waiters.push_back(waiter);
    }

    /// The oldest that waits does not wait any more.
    pub fn pop_waiter(&mut self) {
        self.waiters.pop_front();
        self.drop_gone();
    }

    /// Takes the request `context` out of those that wait; `false` if it is not among them. Envoy
    /// counts contexts up, so mostly it is found by halves, and those behind it don't move: when
    /// thousands leave at once, each costs next to nothing.
    pub fn forget_waiter(&mut self, context: u32) -> bool {
        let place = if self.is_permuted {
            self.waiters.iter().position(|waiter| waiter.context == context)
        } else {
            self.waiters.binary_search_by_key(&context, |waiter| waiter.context).ok()
        };
        let Some(waiter) = place.and_then(|place| self.waiters.get_mut(place)) else {
            return false;
        };
        let waits = !std::mem::replace(&mut waiter.gone, true);
        waiter.rate = None;
        self.drop_gone();
        waits
    }

    /// The first one is always one that waits.
    fn drop_gone(&mut self) {
        while self.waiters.front().is_some_and(|waiter| waiter.gone) {
            self.waiters.pop_front();
        }
    }

    /// All that the waiting requests take together, as far as is known.
    pub fn waiting_cost(&self) -> Amount {
        let rates = self.waiters.iter().filter_map(|waiter| waiter.rate.as_ref());
        rates.fold(Amount::ZERO, |sum, rate| sum.saturating_add(rate.cost))
    }
}

/// What goes from a slice back into its slot.
#[derive(Debug, Clone, Copy)]
pub struct Surrendered {
    pub rest: Amount,
    pub spent: Amount,
}

impl Surrendered {
    pub fn is_something(self) -> bool {
        !self.rest.is_zero() || !self.spent.is_zero()
    }
}

#[cfg(test)]
mod tests;
