//! Idle slices go back to the slot, idle leases to the control plane, and leases that are used are
//! renewed before they end.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::{
    ending::Ending,
    host,
    slot::{
        Slot,
        idle::{idle_lease_ns, idle_slice_ns, idle_ttl_ns, is_long},
    },
    stats::Counter,
    tenants::Index,
    worker::{IDLE_TICK, Worker},
};

/// A lease that is used is renewed when it ends within this time; a long one sooner ([`renew_before_ns`]).
const RENEW_NS: u64 = 700_000_000;
/// Sweeps are this far apart, and counted by it on the monotonic clock: what is to be looked at soon is
/// looked at by the next one.
const SWEEP_NS: u64 = IDLE_TICK.as_nanos() as u64;
/// Stands for the next one.
const NEXT_SWEEP: u32 = 1;
/// The most tenants that one sweep looks after: requests must not wait for it.
const MAX_PER_SWEEP: usize = 500;
/// The same for a worker that ends: it has no requests any more, though its thread may, and little time.
const MAX_PER_LAST_SWEEPS: usize = 1_000;

/// Nothing is given back while so many calls are under way: whoever waits for a lease comes first, also
/// where the control plane is slow.
const MAX_CALLS_BEFORE_RETURNS: usize = 8;

/// A tenant that has not been admitted for this long is forgotten.
const FORGET_NS: u64 = 600_000_000_000;
/// How often tenants to forget are looked for.
const FORGET_EVERY_NS: u64 = 60_000_000_000;

impl Worker {
    /// Forgets tenants that have been idle for long: memory grows with active tenants only.
    pub fn forget_idle_tenants(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.forgot_ns) < FORGET_EVERY_NS {
            return;
        }
        self.forgot_ns = now_ns;
        for index in self.tenants.indexes() {
            let forgettable = self.tenants.get_mut(index).is_some_and(|tenant| {
                !tenant.counts
                    && !tenant.is_watched()
                    && tenant.is_idle()
                    && now_ns.saturating_sub(tenant.used_ns) >= FORGET_NS
            });
            if forgettable {
                self.tenants.remove(index);
            }
        }
    }

    /// Looks after every tenant whose time has come; a worker that has no traffic looks after all.
    pub fn sweep(&mut self, now_ns: u64) {
        if self.stats.since_recorded(Counter::Admitted) > 0 {
            self.busy_ns = now_ns;
        }
        let hurries = self.hurries(now_ns);
        if hurries && !self.is_hurrying {
            self.hurried.append(&mut self.watched);
        } else if !hurries {
            self.watched.append(&mut self.hurried);
        }
        self.is_hurrying = hurries;
        let most = if self.ending == Ending::Running { MAX_PER_SWEEP } else { MAX_PER_LAST_SWEEPS };
        let mut due = Vec::new();
        pop_until(&mut self.hurried, u64::MAX, most / 2, &mut due);
        pop_until(&mut self.watched, now_ns / SWEEP_NS, most, &mut due);
        pop_until(&mut self.hurried, u64::MAX, most, &mut due);
        for Reverse((sweep, index)) in due {
            let Some(tenant) = self.tenants.get_mut(index).filter(|tenant| tenant.due == sweep)
            else {
                // Somebody looks after it sooner.
                continue;
            };
            tenant.due = 0;
            if let Some(next_ns) = self.look_after(index, now_ns) {
                self.watch(index, sweep_at(next_ns).max(sweep_at(now_ns + 1)));
            }
        }
    }

    pub fn watches_nobody(&self) -> bool {
        self.watched.is_empty() && self.hurried.is_empty()
    }

    /// Has the tenant looked after by this sweep, and by no other.
    fn watch(&mut self, index: Index, sweep: u32) {
        if let Some(tenant) = self.tenants.get_mut(index) {
            tenant.due = sweep;
            self.watched.push(Reverse((sweep, index)));
        }
    }

    /// The slot has the lease of a call's answer, or of what was drawn: sees to it that the tenant is looked
    /// after before this lease is idle or ends, whatever was thought when the slot had another.
    pub fn watch_lease(&mut self, index: Index, slot: &Slot, now_ns: u64) {
        let ttl_ns = idle_ttl_ns(slot.ttl_ns, slot.holds_little());
        let renew_at_ns = slot.end_ns.saturating_sub(renew_before_ns(index, ttl_ns));
        let latest_ns = renew_at_ns.min(now_ns + idle_lease_ns(ttl_ns));
        let by = if self.is_hurrying { NEXT_SWEEP } else { sweep_at(latest_ns) };
        if self.tenants.get_mut(index).is_some_and(|tenant| tenant.due > by) {
            self.watch(index, by);
        }
    }

    /// Whether this worker gives back what it holds as soon as it can: without traffic it has no use for
    /// it, and may be about to be stopped.
    fn hurries(&self, now_ns: u64) -> bool {
        self.ending != Ending::Running || now_ns.saturating_sub(self.busy_ns) >= idle_lease_ns(0)
    }

    /// When the tenant is to be looked after again, if it is.
    fn look_after(&mut self, index: Index, now_ns: u64) -> Option<u64> {
        let hurries = self.hurries(now_ns);
        let tenant = self.tenants.get_mut(index)?;
        let ttl_ns = if hurries { 0 } else { tenant.idle_ttl_ns() };
        let slice_idle_ns = tenant.used_ns.saturating_add(idle_slice_ns(ttl_ns));
        let lease_idle_ns = tenant.used_ns.saturating_add(idle_lease_ns(ttl_ns));
        let has_ended = now_ns >= tenant.end_ns;
        if tenant.holds_anything() && (has_ended || now_ns >= slice_idle_ns) {
            self.put_back(index);
            return Some(now_ns);
        }
        if has_ended || now_ns >= lease_idle_ns {
            return self.look_after_lease(index, now_ns);
        }
        let next_ns = if now_ns < slice_idle_ns { slice_idle_ns } else { lease_idle_ns };
        let renew_at_ns = tenant.end_ns.saturating_sub(renew_before_ns(index, ttl_ns));
        if now_ns < renew_at_ns {
            return Some(next_ns.min(renew_at_ns));
        }
        self.renew(index, now_ns);
        let tenant = self.tenants.get_mut(index)?;
        if now_ns >= tenant.end_ns {
            return Some(now_ns);
        }
        let renew_at_ns = tenant.end_ns.saturating_sub(renew_before_ns(index, ttl_ns));
        let asked = now_ns >= renew_at_ns;
        let then_ns = if asked { after_asking_ns(tenant.end_ns, now_ns) } else { renew_at_ns };
        Some(next_ns.min(then_ns))
    }

    /// The same when this worker has not used it for a while, and holds nothing of it but what calls
    /// that are under way have reserved.
    fn look_after_lease(&mut self, index: Index, now_ns: u64) -> Option<u64> {
        let hurries = self.hurries(now_ns);
        let tenant = self.tenants.get_mut(index)?;
        let slot = host::read(&tenant.slot_key()).map(|bytes| Slot::decode(Some(&bytes)));
        let (idle, used_ns) = (tenant.is_idle(), tenant.used_ns);
        let has_calls = tenant.has_open_calls();
        // Whoever has a request, or an answer, has it looked after again.
        let for_calls = has_calls.then_some(now_ns + RENEW_NS / 2);
        if has_calls && tenant.end_ns.saturating_sub(now_ns) < RENEW_NS {
            self.renew(index, now_ns);
        }
        // Whose call is under way says what is owed when it is answered.
        let owes = |slot: &Slot| !slot.owed.is_zero() && now_ns >= slot.caller_until_ns;
        if idle && slot.as_ref().is_some_and(owes) {
            self.ask_for(index);
            return Some(now_ns);
        }
        let Some(slot) = slot.filter(|slot| slot.is_live(now_ns)) else {
            return for_calls;
        };
        // The worker that drew last looks after the lease. If all who ever used a tenant kept reading its
        // slot, that would cost more than the requests; and what one has no use for, another may have.
        let (drew_last, holds_little) = (slot.used_ns <= used_ns, slot.holds_little());
        let ttl_ns = idle_ttl_ns(slot.ttl_ns, holds_little);
        let goes_soon = hurries && (drew_last || !holds_little);
        let idle_ns = idle_lease_ns(if goes_soon { 0 } else { ttl_ns });
        if now_ns.saturating_sub(slot.used_ns) < idle_ns {
            if has_calls || !drew_last {
                return for_calls;
            }
            let renew_at_ns = slot.end_ns.saturating_sub(renew_before_ns(index, ttl_ns));
            if now_ns < renew_at_ns {
                return Some((slot.used_ns + idle_ns).min(renew_at_ns));
            }
            if !slot.is_refused(now_ns) {
                self.ask_for(index);
            }
            return Some(after_asking_ns(slot.end_ns, now_ns));
        }
        if !(slot.free.is_zero() && slot.spent.is_zero()) {
            let has_siblings = self.ending == Ending::Running && !slot.outstanding.is_zero();
            if hurries && holds_little && has_siblings && !has_calls {
                // They may use it, unless they are lost.
                let latest_ns = slot.end_ns.saturating_sub(RENEW_NS / 2);
                if now_ns < latest_ns {
                    return Some((now_ns + 4 * idle_ns).min(latest_ns));
                }
            }
            if self.calls.len() + self.lease_calls.queued() >= MAX_CALLS_BEFORE_RETURNS {
                return Some(now_ns + RENEW_NS / 2);
            }
            self.give_back(index, now_ns);
            return Some(now_ns);
        }
        let is_done = slot.outstanding.is_zero() || (self.ending != Ending::Running && !drew_last);
        if has_calls || (hurries && is_done) {
            return for_calls;
        }
        // Until the lease is gone: another worker may put something back.
        Some((now_ns + idle_ns).min(slot.end_ns))
    }

    /// Extends the slice where the lease was renewed meanwhile, else has it renewed.
    fn renew(&mut self, index: Index, now_ns: u64) {
        let Some(tenant) = self.tenants.get_mut(index) else {
            return;
        };
        let slot = host::read(&tenant.slot_key()).map(|bytes| Slot::decode(Some(&bytes)));
        let Some(slot) = slot else {
            return;
        };
        self.see_renewal(index, &slot);
        let ttl_ns = idle_ttl_ns(slot.ttl_ns, slot.holds_little());
        let is_due = slot.end_ns.saturating_sub(now_ns) <= renew_before_ns(index, ttl_ns);
        if slot.is_live(now_ns) && is_due && !slot.is_refused(now_ns) {
            self.ask_for(index);
        }
    }

    /// Extends the slice, if it is of the lease that the slot holds.
    pub fn see_renewal(&mut self, index: Index, slot: &Slot) {
        let tells_limits = self.tells_limits();
        let Some(tenant) = self.tenants.get_mut(index) else {
            return;
        };
        if tenant.lease != slot.lease {
            return tenant.change_lease(slot, slot.end_ns.saturating_sub(RENEW_NS));
        }
        tenant.extend(slot);
        tenant.see_plan(slot);
        if tells_limits {
            tenant.see_limits(slot);
        }
    }

    /// Puts a tenant's slice back into its slot.
    pub fn put_back(&mut self, index: Index) {
        let Some(tenant) = self.tenants.get_mut(index).filter(|tenant| tenant.holds_anything())
        else {
            return;
        };
        let lease = tenant.lease;
        let surrendered = tenant.surrender();
        host::update(&tenant.slot_key(), |bytes| {
            if bytes.is_none() {
                return (None, ());
            }
            let mut slot = Slot::decode(bytes);
            slot.put_back(lease, surrendered.rest, surrendered.spent);
            (slot.encode(), ())
        });
    }

    /// Has a tenant's usage be sent, and what it holds be looked after.
    #[inline]
    pub fn list(&mut self, index: Index) {
        if self.tenants.get_mut(index).is_none_or(|tenant| !(tenant.counts && tenant.is_watched()))
        {
            self.list_anew(index);
        }
    }

    #[inline(never)]
    fn list_anew(&mut self, index: Index) {
        let Some(tenant) = self.tenants.get_mut(index) else {
            return;
        };
        if !std::mem::replace(&mut tenant.counts, true) {
            self.counting.push(index);
        }
        if !tenant.is_watched() {
            self.watch(index, NEXT_SWEEP);
        }
        self.rest_no_longer();
    }
}

/// How long before its end a lease is renewed that was to last `ttl_ns`. A long one has its own moment in its
/// last quarter: where very many began at once, say after a restart, they would come at once for ever.
fn renew_before_ns(index: Index, ttl_ns: u64) -> u64 {
    if !is_long(ttl_ns) {
        return RENEW_NS;
    }
    // By the golden ratio, numbers that follow each other lie far apart.
    let share = u64::from(index.wrapping_mul(0x9E37_79B9)) >> 16;
    RENEW_NS + ((ttl_ns / 4 * share) >> 16)
}

/// When to look whether a lease was renewed that was asked for now, and ends then.
fn after_asking_ns(end_ns: u64, now_ns: u64) -> u64 {
    now_ns + (end_ns.saturating_sub(now_ns) / 4).max(RENEW_NS / 2)
}

/// Moves whoever is due by this sweep, the soonest first, until `due` has so many.
fn pop_until(
    watched: &mut BinaryHeap<Reverse<(u32, Index)>>,
    sweep: u64,
    most: usize,
    due: &mut Vec<Reverse<(u32, Index)>>,
) {
    while due.len() < most
        && watched.peek().is_some_and(|Reverse((first, _))| u64::from(*first) <= sweep)
    {
        due.extend(watched.pop());
    }
}

/// The first sweep that is not before then.
fn sweep_at(ns: u64) -> u32 {
    u32::try_from(ns.div_ceil(SWEEP_NS)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
