//! Calls of language models that are under way: what they may take at most is taken beforehand.

use weir_domain::quantity::Amount;

use super::Tenant;

/// What came of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// Was not needed, and can't be given back.
    pub void: Amount,
    /// Was taken beyond it, and is not paid.
    pub owes: Amount,
}

impl Tenant {
    /// Turns `amount`, which was just taken, into a reservation; with or without a lease. Returns the
    /// minute in which it is to be counted.
    pub fn reserve(&mut self, amount: Amount, is_leased: bool) -> i64 {
        self.counted = self.counted.saturating_sub(amount);
        if is_leased {
            self.spent = self.spent.saturating_sub(amount);
        }
        let notes = self.notes_mut();
        notes.open_calls = notes.open_calls.saturating_add(1);
        self.minute.into()
    }

    /// Settles a reservation of `reserved` under `lease`, 0 without one, by what was taken in fact. The rest
    /// goes back to the slice if that is of the same lease; a lease that has ended takes nothing back.
    pub fn settle(&mut self, reserved: Amount, lease: u64, actual: Amount, now_ns: u64) -> Settled {
        let notes = self.notes_mut();
        notes.open_calls = notes.open_calls.saturating_sub(1);
        let covered = actual.min(reserved);
        let (rest, excess) = (reserved.saturating_sub(covered), actual.saturating_sub(covered));
        if lease == 0 || self.lease != lease || now_ns >= self.end_ns {
            return Settled { void: rest, owes: excess };
        }
        let there = self.slice.saturating_add(rest);
        let paid = excess.min(there);
        self.slice = there.saturating_sub(paid);
        self.spent = self.spent.saturating_add(covered).saturating_add(paid);
        Settled { void: Amount::ZERO, owes: excess.saturating_sub(paid) }
    }

    /// Whether a call is under way, for which the lease must be kept.
    pub fn has_open_calls(&self) -> bool {
        self.notes.as_ref().is_some_and(|notes| notes.open_calls > 0)
    }
}
