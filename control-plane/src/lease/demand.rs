//! What this process has seen of a periodic bucket: how much is taken from it, and how claims go.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use weir_domain::quantity::Quantity;

use super::script::Wish;

/// How far ahead of demand a block reaches.
pub const AHEAD: Duration = Duration::from_secs(5);

/// What this process has seen of a bucket.
#[derive(Default)]
pub struct Demand {
    /// Held while a block is on its way, so that all who wait for tokens share it.
    pub gate: Arc<tokio::sync::Mutex<()>>,
    fed: AtomicU64,
    prefetching: AtomicBool,
    /// The latest claim failed, or takes too long: nobody waits for the next one.
    failing: AtomicBool,
    granted: Mutex<Granted>,
    missed: Mutex<Missed>,
}

/// What those wish for who came while a block was on its way that was not for them. The next block
/// is for them too: or each of many that begin at once would have to wait for a block of its own.
#[derive(Default)]
struct Missed {
    since: Option<Instant>,
    least: Quantity,
    welcome: Quantity,
}

impl Missed {
    /// Whoever has waited for longer has been served, or has given up.
    const WAIT: Duration = Duration::from_secs(1);

    fn note(&mut self, wish: Wish) {
        self.since.get_or_insert_with(Instant::now);
        self.least = self.least.saturating_add(wish.least);
        self.welcome = self.welcome.saturating_add(wish.welcome);
    }

    fn added_to(self, wish: Wish) -> Wish {
        if self.since.is_none_or(|since| since.elapsed() > Self::WAIT) {
            return wish;
        }
        Wish {
            least: wish.least.saturating_add(self.least),
            welcome: wish.welcome.saturating_add(self.welcome),
        }
    }
}

/// Grants of this stretch of [`AHEAD`], and of the one before.
#[derive(Default)]
struct Granted {
    since: Option<Instant>,
    current: Quantity,
    previous: Quantity,
}

impl Granted {
    fn turn(&mut self, now: Instant) {
        let passed = self.since.map_or(Duration::MAX, |since| now.duration_since(since));
        if passed >= AHEAD {
            self.previous = if passed < AHEAD * 2 { self.current } else { Quantity::ZERO };
            self.current = Quantity::ZERO;
            self.since = Some(now);
        }
    }
}

impl Demand {
    /// Counts a grant, less what came back: a gateway that leases much and uses little is no demand.
    pub fn note(&self, granted: Quantity, refunded: Quantity) {
        let mut seen = lock(&self.granted);
        seen.turn(Instant::now());
        seen.current = seen.current.saturating_add(granted).saturating_sub(refunded);
    }

    /// About what [`AHEAD`] takes.
    pub fn ahead(&self) -> Quantity {
        let mut seen = lock(&self.granted);
        seen.turn(Instant::now());
        seen.current.max(seen.previous)
    }

    /// Counts the blocks that have arrived.
    pub fn fed(&self) -> u64 {
        self.fed.load(Ordering::Acquire)
    }

    /// A block has arrived, or will not.
    pub fn note_block(&self, arrived: bool) {
        self.failing.store(!arrived, Ordering::Release);
        self.fed.fetch_add(1, Ordering::AcqRel);
    }

    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    /// No block has come since `fed_before`, for longer than anybody waits.
    pub fn note_slow(&self, fed_before: u64) {
        if self.fed() == fed_before {
            self.failing.store(true, Ordering::Release);
        }
    }

    /// Whether nobody else fetches ahead of demand.
    pub fn begin_prefetch(&self) -> bool {
        !self.prefetching.swap(true, Ordering::AcqRel)
    }

    pub fn end_prefetch(&self) {
        self.prefetching.store(false, Ordering::Release);
    }

    /// Somebody came with `wish` while a block was on its way that is not for them.
    pub fn note_missed(&self, wish: Wish) {
        lock(&self.missed).note(wish);
    }

    /// `wish`, and what was missed lately.
    pub fn with_missed(&self, wish: Wish) -> Wish {
        std::mem::take(&mut *lock(&self.missed)).added_to(wish)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
