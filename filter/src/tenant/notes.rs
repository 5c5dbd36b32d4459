//! What is known of few tenants: that they are suspended, changed, refused, or told of their limits.

use std::sync::Arc;

use weir_domain::{protocol::LimitStatus, quantity::Amount};

use super::Tenant;
use crate::{
    refusal::{LimitRefused, Refused},
    slot::{Refusal, Slot},
};

/// Times are ns of the monotonic clock; 0 for never.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// It is suspended, as far as is known until then.
    suspended_until_ns: u64,
    /// When a change of it was last heard of: what was said before may be outdated.
    changed_ns: u64,
    refusal: Option<Refusal>,
    /// What refused requests were told last.
    told: Option<Arc<LimitRefused>>,
    /// For those who are told of them; otherwise nothing is kept.
    limits: Option<Arc<Limits>>,
    /// Calls of language models that are under way: what they may take at most is taken, and neither
    /// counted nor noted as spent yet.
    pub(super) open_calls: u32,
    /// Admitted by this worker, or drawn by others, since `limits` were told.
    pub(super) spent_since_limits: Amount,
}

/// A tenant's limits as the control plane last told them.
#[derive(Debug, Default)]
pub struct Limits {
    pub list: Vec<LimitStatus>,
    pub at_ns: u64,
}

impl Tenant {
    pub(super) fn notes_mut(&mut self) -> &mut Notes {
        self.notes.get_or_insert_default()
    }

    pub fn is_suspended(&self, now_ns: u64) -> bool {
        self.notes.as_ref().is_some_and(|notes| now_ns < notes.suspended_until_ns)
    }

    /// It is suspended, and that is believed so long.
    pub fn suspend_until(&mut self, until_ns: u64) {
        self.notes_mut().suspended_until_ns = until_ns;
    }

    /// The control plane has answered for an active tenant.
    pub fn activate(&mut self) {
        if let Some(notes) = &mut self.notes {
            notes.suspended_until_ns = 0;
            notes.refusal = None;
        }
    }

    /// When a change of it was last heard of, 0 for never.
    pub fn changed_ns(&self) -> u64 {
        self.notes.as_ref().map_or(0, |notes| notes.changed_ns)
    }

    /// A change of it was heard of: what was known is so no more.
    pub fn note_change(&mut self, now_ns: u64) {
        self.plan = None;
        let notes = self.notes_mut();
        notes.refusal = None;
        notes.suspended_until_ns = 0;
        notes.changed_ns = now_ns;
    }

    /// Why a request that takes `cost` is refused without looking into the slot, if it is.
    pub fn refusal(&self, cost: Amount, now_ns: u64) -> Option<Refusal> {
        self.notes.as_ref()?.refusal.filter(|refusal| refusal.refuses(cost, now_ns))
    }

    /// Requests like this one are refused from now on.
    pub fn note_refusal(&mut self, refusal: Refusal) {
        self.notes_mut().refusal = Some(refusal);
    }

    /// What a request that takes `cost` is told, which the buckets do not hold.
    pub fn refuse(&mut self, refusal: Refusal, cost: Amount, now_ns: u64) -> Refused {
        let notes = self.notes_mut();
        let limits = notes.limits.get_or_insert_default();
        // Less was refused for now; this much never passes.
        let retry_ns = refusal.retry_ns.filter(|_| !limits.are_exceeded_by(cost));
        let refusal = Refusal { retry_ns, ..refusal };
        let told = notes.told.take().filter(|told| told.is(refusal, cost, limits, now_ns));
        let told = told.unwrap_or_else(|| {
            Arc::new(LimitRefused::new(refusal, cost, Arc::clone(limits), now_ns))
        });
        notes.told = Some(Arc::clone(&told));
        Refused::Limit(told)
    }

    /// It has tokens: nothing is left of a refusal.
    pub(super) fn forget_refusal(&mut self) {
        if let Some(notes) = &mut self.notes {
            notes.refusal = None;
            notes.told = None;
        }
    }

    /// Notes the limits as the slot has them. What others drew since they were told counts as spent.
    pub fn see_limits(&mut self, slot: &Slot) {
        let spent = slot.spent_since_limits(self.slice);
        let notes = self.notes_mut();
        if notes.limits.as_ref().is_none_or(|limits| limits.at_ns != slot.limits_ns) {
            let limits =
                Limits { list: slot.limits.clone().unwrap_or_default(), at_ns: slot.limits_ns };
            notes.limits = Some(Arc::new(limits));
        }
        notes.spent_since_limits = spent;
    }

    /// Nobody is told of its limits.
    pub fn forget_limits(&mut self) {
        if let Some(notes) = &mut self.notes {
            notes.limits = None;
        }
        let is_noted = |notes: &Notes| {
            notes.suspended_until_ns != 0
                || notes.changed_ns != 0
                || notes.open_calls != 0
                || notes.refusal.is_some()
        };
        if !self.notes.as_deref().is_some_and(is_noted) {
            self.notes = None;
        }
    }

    /// The limits as they stand at `now_ns`, as far as this worker knows; `None` where it knows of none.
    pub fn limits(&self, now_ns: u64) -> Option<Vec<LimitStatus>> {
        let notes = self.notes.as_ref()?;
        let limits = notes.limits.as_ref().filter(|limits| !limits.list.is_empty())?;
        Some(limits.at(now_ns, notes.spent_since_limits))
    }
}
