//! What an ask for a lease does to a tenant's buckets, and to what its gateways hold of them.
//!
//! This is the reference. The control plane's Lua script does the same inside Redis, and a test holds
//! the two against each other, answer by answer. [`crate::bucket`] has the arithmetic of one bucket.
//!
//! What is held counts against the bucket until the gateway has spent it, given it back, or can't
//! spend it any more. So a gateway never has more in hand than is held here, whatever is lost or
//! repeated between the two; the tests of this module hold on to that.

mod ask;
mod blocks;
mod reservation;

use std::collections::BTreeMap;

pub use self::blocks::{Blocks, Released};
use self::reservation::Reservation;
use crate::{
    bucket::{Level, Rate},
    limit::Unit,
    protocol::{MAX_TTL_MS, PLENTY},
    quantity::{Amount, Quantity},
};

/// A gateway that holds nothing and has not asked for so long is forgotten, in ms.
pub const REMEMBERED_MS: i64 = 600_000;
/// A periodic bucket that is used up asks Postgres again after this, in ms.
pub const RECHECK_MS: i64 = 10_000;

/// The largest level; the lowest is its negative.
const MAX: i64 = (1 << 53) - 1;

/// A tenant's buckets, and what its gateways hold of them.
#[derive(Debug, Clone)]
pub struct Account {
    /// Which terms the leases are of; the first part of their stamps.
    pub base: String,
    lease_ttl_ms: i64,
    /// [`PLENTY`], but for tests, whose buckets are small.
    pub plenty: u32,
    now_ms: i64,
    /// Numbers the leases; the second part of their stamps.
    leases: u64,
    buckets: Vec<Bucket>,
    gateways: BTreeMap<String, Gateway>,
    /// The last call of each worker, by gateway.
    calls: BTreeMap<String, BTreeMap<String, Call>>,
    reservation: Option<Reservation>,
}

/// What a limit has left.
#[derive(Debug, Clone)]
pub struct Bucket {
    pub unit: Unit,
    pub capacity: Quantity,
    pub level: i64,
    pub refill: Refill,
    /// What the latest ask had to leave in it for a larger one.
    pub spared: Quantity,
}

#[derive(Debug, Clone, Copy)]
pub enum Refill {
    Continuous { rate: Rate, fraction: u64, at_ms: i64 },
    Periodic { ends_ms: i64, unclaimed: Quantity, known: bool, checked_ms: i64, blocks: Blocks },
}

/// What a gateway may spend at most until an end.
#[derive(Debug, Clone, Default)]
struct Held {
    stamp: String,
    ends_ms: i64,
    amount: Amount,
}

#[derive(Debug, Clone, Default)]
struct Gateway {
    lease: Held,
    /// What the lease has replaced: the gateway may spend it until it hears of that.
    old: Held,
    seen_ms: i64,
}

#[derive(Debug, Clone)]
struct Call {
    number: u64,
    ends_ms: i64,
    granted: Amount,
    stamp: String,
}

/// What becomes of an ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing has changed: for each bucket that must be fed before, what is missing and welcome.
    Claim(Vec<Option<(i64, i64)>>),
    /// Nothing has changed: the need is not here, but may be in a block on its way; or in Postgres,
    /// and nothing may be claimed.
    Unfed,
    Decided(Decided),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    pub outcome: Outcome,
    pub stamp: String,
    pub ttl_ms: i64,
    pub granted: Amount,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Granted,
    Refused,
    /// The same call again.
    Replayed,
    /// An older call than the last one.
    Outdated,
}

fn of(amount: Amount, unit: Unit) -> Quantity {
    match unit {
        Unit::Tokens => amount.tokens,
        Unit::Requests => amount.requests,
    }
}

fn part(amount: &mut Amount, unit: Unit) -> &mut Quantity {
    match unit {
        Unit::Tokens => &mut amount.tokens,
        Unit::Requests => &mut amount.requests,
    }
}

fn signed(quantity: Quantity) -> i64 {
    i64::try_from(quantity.get()).unwrap_or(MAX)
}

impl Bucket {
    pub fn is_continuous(&self) -> bool {
        matches!(self.refill, Refill::Continuous { .. })
    }

    /// Refills up to `now_ms`, around what is held.
    fn fill(&mut self, held: Quantity, now_ms: i64) {
        if let Refill::Continuous { rate, fraction, at_ms } = self.refill {
            let level = Level { level: self.level, fraction, at_ms };
            let Level { level, fraction, at_ms } =
                level.refilled(rate, self.capacity, held, now_ms);
            (self.level, self.refill) = (level, Refill::Continuous { rate, fraction, at_ms });
        }
    }

    /// What an ask can have: in the bucket, and with `claims` in Postgres.
    fn available(&self, claims: bool) -> i64 {
        match self.refill {
            Refill::Continuous { .. } => self.level - signed(self.spared),
            Refill::Periodic { .. } if !claims => self.level,
            Refill::Periodic { known: false, .. } => (self.level + signed(self.capacity)).min(MAX),
            Refill::Periodic { unclaimed, .. } => (self.level + signed(unclaimed)).min(MAX),
        }
    }

    /// Empty after a loss; a continuous one refills when every lease drawn from it has ended.
    fn lose(&mut self, now_ms: i64) {
        self.level = 0;
        match &mut self.refill {
            Refill::Continuous { fraction, at_ms, .. } => {
                (*fraction, *at_ms) = (0, now_ms + i64::try_from(MAX_TTL_MS).unwrap_or(0));
            }
            Refill::Periodic { unclaimed, known, checked_ms, blocks, .. } => {
                (*unclaimed, *known, *checked_ms) = (Quantity::ZERO, false, 0);
                *blocks = Blocks::default();
            }
        }
    }
}

impl Gateway {
    fn ends_ms(&self) -> i64 {
        self.lease.ends_ms.max(self.old.ends_ms)
    }
}

impl Account {
    /// Whose leases are numbered from `leases` on.
    pub fn new(buckets: Vec<Bucket>, base: &str, leases: u64, lease_ttl_ms: i64) -> Self {
        Self {
            base: base.to_owned(),
            lease_ttl_ms,
            plenty: PLENTY,
            now_ms: 0,
            leases,
            buckets,
            gateways: BTreeMap::new(),
            calls: BTreeMap::new(),
            reservation: None,
        }
    }

    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// What all gateways hold.
    pub fn held(&self) -> Amount {
        self.gateways.values().fold(Amount::ZERO, |sum, gateway| {
            sum.saturating_add(gateway.lease.amount).saturating_add(gateway.old.amount)
        })
    }

    /// Lets time pass. Each stretch between the ends of leases is refilled with what was held in it:
    /// what may have been spent just before an end must not have refilled before.
    pub fn settle(&mut self, now_ms: i64) {
        self.now_ms = self.now_ms.max(now_ms);
        let ends =
            self.gateways.values().flat_map(|gateway| [gateway.old.ends_ms, gateway.ends_ms()]);
        let mut ends: Vec<i64> = ends.filter(|end_ms| *end_ms <= self.now_ms).collect();
        ends.sort_unstable();
        for end_ms in ends {
            // One that is past this end has seen it.
            self.fill(end_ms, |at_ms| at_ms < end_ms);
            for gateway in self.gateways.values_mut() {
                if gateway.ends_ms() <= end_ms {
                    gateway.lease.amount = Amount::ZERO;
                }
                if gateway.old.ends_ms <= end_ms {
                    gateway.old.amount = Amount::ZERO;
                }
            }
        }
        self.fill(self.now_ms, |_| true);
        for bucket in &mut self.buckets {
            bucket.spared = Quantity::ZERO;
            if let Refill::Periodic { blocks, .. } = &mut bucket.refill {
                blocks.settle(self.now_ms);
            }
        }
    }

    fn fill(&mut self, until_ms: i64, which: impl Fn(i64) -> bool) {
        let held = self.held();
        for bucket in &mut self.buckets {
            if matches!(bucket.refill, Refill::Continuous { at_ms, .. } if which(at_ms)) {
                bucket.fill(of(held, bucket.unit), until_ms);
            }
        }
    }

    /// Adds what Postgres has released to a periodic bucket, or takes back up to `-amount`, and notes
    /// what Postgres has left. Returns what was taken back.
    pub fn feed(
        &mut self,
        now_ms: i64,
        index: usize,
        amount: i64,
        left: Quantity,
        released: Option<Released>,
    ) -> i64 {
        self.settle(now_ms);
        let Some(bucket) = self.buckets.get_mut(index) else { return 0 };
        let Refill::Periodic { unclaimed, known, checked_ms, blocks, .. } = &mut bucket.refill
        else {
            return 0;
        };
        let change = amount.max((-bucket.level).min(0));
        bucket.level = (bucket.level + change).min(MAX);
        let came_late = match released {
            Some(released) => blocks.come(self.now_ms, amount, released),
            None => {
                blocks.change(change);
                false
            }
        };
        // What is left after a late one was told already, with one that was released after it.
        if !came_late {
            (*unclaimed, *known, *checked_ms) = (left, true, self.now_ms);
        }
        (-change).max(0)
    }

    /// Tops a continuous bucket up, to what nobody holds of its capacity at most, or takes from it.
    pub fn adjust(&mut self, now_ms: i64, index: usize, amount: i64) {
        self.settle(now_ms);
        let held = self.held();
        if let Some(bucket) = self.buckets.get_mut(index) {
            let ceiling = signed(bucket.capacity.saturating_sub(of(held, bucket.unit)));
            bucket.level = (bucket.level + amount).min(ceiling).max(-MAX);
        }
    }

    /// The next period: its buckets are empty until they are fed.
    pub fn turn_period(&mut self, base: &str, next_end_ms: i64) {
        base.clone_into(&mut self.base);
        for bucket in &mut self.buckets {
            if let Refill::Periodic { ends_ms, .. } = &mut bucket.refill {
                *ends_ms = next_end_ms;
                bucket.lose(self.now_ms);
            }
        }
    }

    /// All is lost, at `now_ms`. What gateways hold is not known any more; stamps that they have are
    /// never given out again.
    pub fn lose(&mut self, now_ms: i64, leases: u64) {
        self.buckets.iter_mut().for_each(|bucket| bucket.lose(now_ms));
        self.gateways.clear();
        self.calls.clear();
        (self.now_ms, self.leases, self.reservation) = (now_ms, leases, None);
    }

    /// One bucket is lost.
    pub fn lose_bucket(&mut self, now_ms: i64, index: usize) {
        self.settle(now_ms);
        if let Some(bucket) = self.buckets.get_mut(index) {
            bucket.lose(self.now_ms);
        }
    }

    /// The last calls of a gateway's workers are lost.
    pub fn lose_calls(&mut self, gateway: &str) {
        self.calls.remove(gateway);
    }
}

#[cfg(test)]
mod tests;
