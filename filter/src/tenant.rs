//! A tenant in one worker's memory: its slice, what it used, and the requests that wait for it.

use weir_domain::{id::TenantId, protocol::LeaseAsk, quantity::Amount};

use self::notes::Notes;
use crate::{
    rating::Rate,
    slot::{Drawn, Slot, idle},
    usage::UsageLog,
};

mod notes;
mod reservations;
mod waiters;

pub use self::{
    notes::Limits,
    reservations::Settled,
    waiters::{Waiter, Waiters},
};

/// What one worker knows of one tenant. Times are ns of the monotonic clock. There are very many of
/// these: what few of them have is boxed.
#[derive(Debug)]
pub struct Tenant {
    pub id: TenantId,
    /// What this worker may spend until `fast_until_ns` without asking anybody.
    slice: Amount,
    /// The end of the slice's lease or of the minute that usage is counted in, whichever is sooner.
    fast_until_ns: u64,
    pub end_ns: u64,
    /// Which of the slot's leases the slice is of ([`Slot::lease`]).
    pub lease: u64,
    clock_offset_ns: i64,
    /// Admitted in `minute` on the default meter, by `policy_version`, and in no batch yet.
    counted: Amount,
    /// Admitted under `lease`, and not yet noted in the slot.
    spent: Amount,
    /// When a request last took from the slice.
    pub used_ns: u64,
    minute: u32,
    policy_version: u32,
    /// The sweep that looks after what it holds; 0 for none.
    pub due: u32,
    pub call: Option<Box<PendingCall>>,
    pub waiters: Waiters,
    notes: Option<Box<Notes>>,
    /// The plan that it is on, empty for none; kept where the policy reads it.
    pub plan: Option<Box<str>>,
    /// How long the slice's lease was to last when it was asked for, in units of 10 ms.
    ttl: u16,
    /// That lease holds so little that nobody misses it ([`Slot::holds_little`]).
    holds_little: bool,
    /// Whether the control plane has said that this tenant exists.
    pub proven: bool,
    /// Whether the worker's list of tenants to ask for holds this one.
    pub ask_queued: bool,
    /// Whether the worker's list of tenants that count usage holds this one.
    pub counts: bool,
    /// Whether the worker's list of tenants with waiting requests holds this one.
    pub waiting_listed: bool,
}

// In each worker, for each tenant that was active lately.
const _: () = assert!(size_of::<Tenant>() <= if cfg!(target_arch = "wasm32") { 136 } else { 168 });

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

const NS_PER_MINUTE: i64 = 60_000_000_000;
const TTL_UNIT_NS: u64 = 10_000_000;

/// Where a tenant's slot is kept. There are as many of these as tenants: Envoy keeps a key of up to 22
/// bytes in its place, and has to allocate for a longer one.
pub fn slot_key(id: &TenantId) -> String {
    format!("weir/1:{id}")
}

impl Tenant {
    pub fn new(id: TenantId) -> Self {
        Self {
            id,
            slice: Amount::ZERO,
            fast_until_ns: 0,
            end_ns: 0,
            lease: 0,
            clock_offset_ns: 0,
            counted: Amount::ZERO,
            spent: Amount::ZERO,
            used_ns: 0,
            minute: 0,
            policy_version: 0,
            due: 0,
            call: None,
            waiters: Waiters::default(),
            notes: None,
            plan: None,
            ttl: 0,
            holds_little: false,
            proven: false,
            ask_queued: false,
            counts: false,
            waiting_listed: false,
        }
    }

    /// Where its slot is kept.
    pub fn slot_key(&self) -> String {
        slot_key(&self.id)
    }

    /// Takes what `rate` says from the slice and counts it, if the slice covers it. This is all that
    /// almost every request does.
    #[inline]
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
        if let Some(notes) = &mut self.notes {
            notes.spent_since_limits = notes.spent_since_limits.saturating_add(cost);
        }
        self.used_ns = now_ns;
        true
    }

    /// Counts a request in `minute`.
    #[inline]
    fn count(&mut self, rate: &Rate, usage: &mut UsageLog) {
        if let Some(meter) = &rate.meter {
            usage.add_metered(&self.id, self.minute.into(), meter, rate.policy_version, rate.cost);
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
    #[inline(never)]
    fn turn_minute(&mut self, now_ns: u64, usage: &mut UsageLog) -> bool {
        if now_ns >= self.end_ns {
            return false;
        }
        let wall_ns = self.clock_offset_ns.saturating_add_unsigned(now_ns);
        let minute = minute_at(wall_ns);
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
        let minute = minute_at(clock_offset_ns.saturating_add_unsigned(now_ns));
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
    #[inline(never)]
    pub fn close_minute(&mut self, usage: &mut UsageLog) {
        let counted = std::mem::take(&mut self.counted);
        if !counted.is_zero() {
            usage.add(&self.id, self.minute.into(), self.policy_version, counted);
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

    /// Holds a new slice; the one before must have been surrendered.
    pub fn hold(&mut self, drawn: Drawn) {
        self.slice = drawn.slice;
        self.lease = drawn.lease;
        self.end_ns = drawn.end_ns;
        self.note_ttl(drawn.ttl_ns);
        self.holds_little = drawn.holds_little;
        self.clock_offset_ns = drawn.clock_offset_ns;
        self.fast_until_ns = 0;
        self.forget_refusal();
    }

    /// The lease that the slice is of was renewed. Its end comes with the clock that says what time
    /// that is: by the clock from before, the end may lie past the period that the lease is of.
    pub fn extend(&mut self, slot: &Slot) {
        self.note_ttl(slot.ttl_ns);
        self.holds_little = slot.holds_little();
        if slot.end_ns > self.end_ns {
            self.end_ns = slot.end_ns;
            self.clock_offset_ns = slot.clock_offset_ns();
            self.fast_until_ns = 0;
        }
    }

    /// The slot has another lease than the slice is of, which stays good until its end, but not for so long
    /// that the other one would not be looked after in time. Until somebody draws from that one, who was
    /// answered looks after it as if having drawn last.
    pub fn change_lease(&mut self, slot: &Slot, until_ns: u64) {
        self.end_ns = if self.holds_anything() { self.end_ns.min(until_ns) } else { 0 };
        self.fast_until_ns = self.fast_until_ns.min(self.end_ns);
        self.used_ns = self.used_ns.max(slot.used_ns);
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

    /// As long as its lease was to last when it was asked for, for [`idle::idle_lease_ns`].
    pub fn idle_ttl_ns(&self) -> u64 {
        idle::idle_ttl_ns(u64::from(self.ttl) * TTL_UNIT_NS, self.holds_little)
    }

    /// Whether somebody looks after what it holds.
    pub fn is_watched(&self) -> bool {
        self.due != 0
    }

    fn note_ttl(&mut self, ttl_ns: u64) {
        self.ttl = u16::try_from(ttl_ns / TTL_UNIT_NS).unwrap_or(u16::MAX);
    }

    /// Whether the slice holds anything, or something spent is not noted yet.
    pub fn holds_anything(&self) -> bool {
        !self.slice.is_zero() || !self.spent.is_zero()
    }

    /// Whether nothing would be lost if this tenant were forgotten.
    pub fn is_idle(&self) -> bool {
        !self.holds_anything()
            && !self.has_open_calls()
            && self.counted.is_zero()
            && self.waiters.is_empty()
            && self.call.is_none()
            && !self.ask_queued
    }
}

/// The minute since 1970.
fn minute_at(wall_ns: i64) -> u32 {
    u32::try_from(wall_ns.div_euclid(NS_PER_MINUTE)).unwrap_or(0)
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
