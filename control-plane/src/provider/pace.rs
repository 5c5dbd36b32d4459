//! At most so many calls a second, evenly: a token bucket of one token. Of each endpoint, too, where the
//! provider counts by endpoint.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// The pace of all calls of this process to one provider.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    next: Mutex<Instant>,
    /// The same for each endpoint.
    endpoint_interval: Duration,
    endpoint_next: Mutex<HashMap<&'static str, Instant>>,
}

impl Pace {
    pub fn per_second(calls: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / calls.max(1),
            next: Mutex::new(Instant::now()),
            endpoint_interval: Duration::ZERO,
            endpoint_next: Mutex::default(),
        }
    }

    /// The same, with at most so many calls a second of one endpoint.
    pub fn per_endpoint(self, calls: u32) -> Self {
        Self { endpoint_interval: Duration::from_secs(1) / calls.max(1), ..self }
    }

    /// Waits until the next call of this endpoint may be made.
    pub async fn turn(&self, endpoint: &'static str) {
        // One after the other: whoever waits for its endpoint takes no turn from others.
        sleep_until(self.book_endpoint(endpoint, Instant::now())).await;
        sleep_until(self.book(Instant::now())).await;
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

    fn book_endpoint(&self, endpoint: &'static str, now: Instant) -> Instant {
        let mut next = self.endpoint_next.lock().unwrap_or_else(PoisonError::into_inner);
        let next = next.entry(endpoint).or_insert(now);
        let at = now.max(*next);
        *next = at + self.endpoint_interval;
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

    #[tokio::test]
    async fn each_endpoint_has_a_pace_of_its_own() {
        let pace = Pace::per_second(100).per_endpoint(10);
        let start = Instant::now();
        let book = |endpoint| (pace.book_endpoint(endpoint, start) - start).as_millis();
        assert_eq!(["a", "a", "b", "a", "b"].map(book), [0, 100, 0, 200, 100]);
        let pace = Pace::per_second(100);
        assert_eq!(pace.book_endpoint("a", start), pace.book_endpoint("a", start));
    }
}
