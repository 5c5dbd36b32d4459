//! How tokens are taken: from the slice, or from a new one of the gateway's lease.

use super::Worker;
use crate::{
    host,
    rating::Rate,
    refusal::Refused,
    slot::{Drawn, Slot},
    tenants::Index,
};

/// What came of an attempt to take tokens.
pub enum Draw {
    Took,
    Refused(Refused),
    /// The control plane must be asked.
    Empty,
}

impl Worker {
    /// Takes what `rate` says from a tenant's slice or, where that does not do, from a new one.
    pub fn draw(&mut self, index: Index, rate: &Rate, now_ns: u64) -> Draw {
        let cost = rate.cost;
        let Some(tenant) = self.tenants.get_mut(index) else {
            return Draw::Refused(Refused::UnknownTenant);
        };
        if tenant.take(rate, now_ns, &mut self.usage) {
            return Draw::Took;
        }
        if let Some(refusal) = tenant.refusal(cost, now_ns) {
            return Draw::Refused(tenant.refuse(refusal, cost, now_ns));
        }
        let lease = tenant.lease;
        let surrendered = tenant.surrender();
        let drawn = host::update(&tenant.slot_key(), |bytes| {
            if bytes.is_none() {
                return (None, None);
            }
            let mut slot = Slot::decode(bytes);
            slot.put_back(lease, surrendered.rest, surrendered.spent);
            let drawn = slot.draw(cost, now_ns);
            let changed = drawn.is_some() || surrendered.is_something();
            (changed.then(|| slot.encode()).flatten(), Some((drawn, slot)))
        });
        let Some((drawn, slot)) = drawn.flatten() else {
            return Draw::Empty;
        };
        match drawn {
            Some(drawn) => self.hold(index, drawn, &slot, rate, now_ns),
            None => match slot.refusal.filter(|refusal| refusal.refuses(cost, now_ns)) {
                Some(refusal) => {
                    tenant.note_refusal(refusal);
                    tenant.see_limits(&slot);
                    Draw::Refused(tenant.refuse(refusal, cost, now_ns))
                }
                None => Draw::Empty,
            },
        }
    }

    fn hold(&mut self, index: Index, drawn: Drawn, slot: &Slot, rate: &Rate, now_ns: u64) -> Draw {
        if drawn.low {
            self.ask_for(index);
        }
        let tells_limits = self.tells_limits();
        let Some(tenant) = self.tenants.get_mut(index) else {
            return Draw::Empty;
        };
        tenant.see_plan(slot);
        tenant.hold(drawn);
        if tells_limits {
            tenant.see_limits(slot);
        } else {
            tenant.forget_limits();
        }
        let took = tenant.take(rate, now_ns, &mut self.usage);
        self.watch_lease(index, slot, now_ns);
        if tells_limits && slot.limits.is_none() {
            // Those who asked so far tell nobody who is admitted.
            self.ask_for(index);
        }
        if took { Draw::Took } else { Draw::Empty }
    }
}
