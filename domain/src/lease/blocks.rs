//! What is heard of the blocks that Postgres releases in a period.
//!
//! Those of different replicas may come in another order than they were released in. Each says how much
//! was released with it, which tells what is on its way: nobody shall be refused that.

use super::MAX;

/// A block that was released and is not here yet is waited for no longer than this, in ms: the
/// replica that should bring it may be gone.
pub(super) const COMING_MS: i64 = 1_000;

/// What Postgres has released of a period, when it releases a block.
#[derive(Debug, Clone, Copy)]
pub struct Released {
    /// In all, with this block.
    pub claimed: i64,
    /// No block before this one is on its way.
    pub is_settled: bool,
}

/// What has been heard of them so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Blocks {
    claimed: i64,
    coming: i64,
    until_ms: i64,
}

impl Blocks {
    /// How much is not here yet, and waited for.
    pub fn coming(&self) -> i64 {
        self.coming
    }

    pub(super) fn settle(&mut self, now_ms: i64) {
        if self.until_ms <= now_ms {
            self.coming = 0;
        }
    }

    /// A block has come; whether it was waited for.
    pub(super) fn come(&mut self, now_ms: i64, amount: i64, released: Released) -> bool {
        let Released { claimed, is_settled } = released;
        if amount > 0 && claimed <= self.claimed && self.coming > 0 {
            self.coming = (self.coming - amount).max(0);
            return true;
        }
        let missing = claimed - amount - self.claimed;
        if is_settled {
            (self.claimed, self.coming) = (claimed, 0);
        } else if missing > 0 {
            self.claimed = claimed;
            (self.coming, self.until_ms) = ((self.coming + missing).min(MAX), now_ms + COMING_MS);
        } else {
            self.claimed = self.claimed.max(claimed);
        }
        false
    }

    /// Something was taken back, or given again: what is taken back counts as not released.
    pub(super) fn change(&mut self, by: i64) {
        self.claimed = (self.claimed + by).max(0);
    }
}
