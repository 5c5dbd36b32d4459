//! Idle slices go back to the slot, idle leases to the control plane, and leases that are used are
//! renewed before they end.

use crate::{
    host,
    slot::{LEASE_SPAN_NS, Slot},
    tenants::Index,
    worker::Worker,
};

/// A slice that was not used for this long goes back to its slot.
const IDLE_SLICE_NS: u64 = 100_000_000;
/// A lease that no worker used for this long goes back to the control plane.
const IDLE_LEASE_NS: u64 = LEASE_SPAN_NS / 2;
/// A lease that is used is renewed when it ends within this time.
const RENEW_NS: u64 = 700_000_000;

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
                !tenant.listed
                    && tenant.is_idle()
                    && now_ns.saturating_sub(tenant.used_ns) >= FORGET_NS
            });
            if forgettable {
                self.tenants.remove(index);
            }
        }
    }

    /// Looks after every tenant that holds something.
    pub fn sweep(&mut self, now_ns: u64) {
        for index in std::mem::take(&mut self.active) {
            if self.look_after(index, now_ns) {
                self.active.push(index);
            } else if let Some(tenant) = self.tenants.get_mut(index) {
                tenant.listed = false;
            }
        }
    }

    /// Whether the tenant is to be looked after again.
    fn look_after(&mut self, index: Index, now_ns: u64) -> bool {
        let Some(tenant) = self.tenants.get_mut(index) else {
            return false;
        };
        let idle_ns = now_ns.saturating_sub(tenant.used_ns);
        if idle_ns < IDLE_SLICE_NS {
            if tenant.end_ns.saturating_sub(now_ns) < RENEW_NS {
                self.renew(index, now_ns);
            }
            return true;
        }
        if tenant.holds_anything() {
            self.put_back(index);
            return true;
        }
        if idle_ns < IDLE_LEASE_NS {
            return true;
        }
        let slot = host::read(&tenant.slot_key()).map(|bytes| Slot::decode(Some(&bytes)));
        let idle = tenant.is_idle();
        // Whose call is under way says what is owed when it is answered.
        let owes = |slot: &Slot| !slot.owed.is_zero() && now_ns >= slot.caller_until_ns;
        if idle && slot.as_ref().is_some_and(owes) {
            self.ask_for(index);
            return true;
        }
        let Some(slot) = slot.filter(|slot| slot.is_live(now_ns)) else {
            return !idle;
        };
        if now_ns.saturating_sub(slot.used_ns) < IDLE_LEASE_NS {
            // The worker that drew last looks after the lease. If all who ever used a tenant kept
            // reading its slot, that would cost more than the requests.
            return !idle;
        }
        if !(slot.free.is_zero() && slot.spent.is_zero()) {
            self.give_back(index, now_ns);
        }
        // Until the lease is gone: another worker may have put something back meanwhile.
        true
    }

    /// Extends the slice where the lease was renewed meanwhile, else has it renewed.
    fn renew(&mut self, index: Index, now_ns: u64) {
        let Some(tenant) = self.tenants.get_mut(index) else {
            return;
        };
        let slot = host::read(&tenant.slot_key()).map(|bytes| Slot::decode(Some(&bytes)));
        let Some(slot) = slot.filter(|slot| slot.stamp == tenant.stamp) else {
            return;
        };
        tenant.extend(slot.end_ns, slot.clock_offset_ns);
        let refused = slot.refusal.is_some_and(|refusal| now_ns < refusal.until_ns);
        if slot.is_live(now_ns) && slot.end_ns.saturating_sub(now_ns) < RENEW_NS && !refused {
            self.ask_for(index);
        }
    }

    /// Puts a tenant's slice back into its slot.
    pub fn put_back(&mut self, index: Index) {
        let Some(tenant) = self.tenants.get_mut(index).filter(|tenant| tenant.holds_anything())
        else {
            return;
        };
        let stamp = tenant.stamp.clone();
        let surrendered = tenant.surrender();
        host::update(&tenant.slot_key(), |bytes| {
            if bytes.is_none() {
                return (None, ());
            }
            let mut slot = Slot::decode(bytes);
            slot.put_back(&stamp, surrendered.rest, surrendered.spent);
            (slot.encode(), ())
        });
    }

    /// Puts a tenant on the list of those to look after.
    pub fn list(&mut self, index: Index) {
        if let Some(tenant) = self.tenants.get_mut(index)
            && !tenant.listed
        {
            tenant.listed = true;
            self.active.push(index);
        }
    }
}
