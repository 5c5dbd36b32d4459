//! At most so many calls a second, evenly: a token bucket of one token.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// The pace of all calls of this process to one provider.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    next: Mutex<Instant>,
}

impl Pace {
    pub fn per_second(calls: u32) -> Self {
        let interval = Duration::from_secs(1) / calls.max(1);
        Self { interval, next: Mutex::new(Instant::now()) }
    }

    /// Waits until the next call may be made.
    pub async fn turn(&self) {
        let at = self.book(Instant::now());
        sleep_until(at).await;
    }

    /// No further call for so long: the provider says that there were too many.
    pub fn hold_off(&self, for_how_long: Duration) {
        let until = Instant::now() + for_how_long;
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = until.max(*next);
    }

    fn book(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let at = now.max(*next);
        *next = at + self.interval;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_are_spread_and_unused_turns_are_not_saved_up() {
        let pace = Pace::per_second(10);
        let start = Instant::now() + Duration::from_secs(1);
        let after = |at: Instant| (at - start).as_millis();
        assert_eq!([0; 3].map(|_| after(pace.book(start))), [0, 100, 200]);
        let later = start + Duration::from_secs(60);
        assert_eq!([0; 2].map(|_| after(pace.book(later))), [60_000, 60_100]);
        pace.hold_off(Duration::from_secs(600));
        assert!(pace.book(later) >= Instant::now() + Duration::from_secs(500));
    }
}
