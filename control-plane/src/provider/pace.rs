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
    /// Between calls of one endpoint.
    endpoint_interval: Duration,
    /// The same of endpoints that differ.
    intervals: HashMap<&'static str, Duration>,
    turns: Mutex<Turns>,
}

/// From when the next calls may be made.
#[derive(Debug)]
struct Turns {
    next: Instant,
    of_endpoint: HashMap<&'static str, Instant>,
}

impl Pace {
    pub fn per_second(calls: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / calls.max(1),
            endpoint_interval: Duration::ZERO,
            intervals: HashMap::new(),
            turns: Mutex::new(Turns { next: Instant::now(), of_endpoint: HashMap::new() }),
        }
    }

    /// The same, with at most so many calls a second of one endpoint.
    pub fn per_endpoint(self, calls: u32) -> Self {
        Self { endpoint_interval: Duration::from_secs(1) / calls.max(1), ..self }
    }

    /// The same, with at most so many calls a second of this endpoint, unless it is fewer of each.
    pub fn at_most(mut self, endpoint: &'static str, calls: u32) -> Self {
        let interval = Duration::from_secs(1) / calls.max(1);
        self.intervals.insert(endpoint, interval.max(self.endpoint_interval));
        self
    }

    /// Waits until the next call of this endpoint may be made.
    pub async fn turn(&self, endpoint: &'static str) {
        loop {
            match self.book(endpoint, Instant::now()) {
                Ok(at) => return sleep_until(at).await,
                Err(again_at) => sleep_until(again_at).await,
            }
        }
    }

    /// No further call for so long: the provider says that there were too many.
    pub fn hold_off(&self, for_how_long: Duration) {
        let until = Instant::now() + for_how_long;
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.next = until.max(turns.next);
    }

    /// When the call may be made. An error says when to ask again, where its endpoint has to wait for
    /// longer than others: those take their turns meanwhile.
    fn book(&self, endpoint: &'static str, now: Instant) -> Result<Instant, Instant> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let at = now.max(turns.next);
        let interval = self.intervals.get(endpoint).copied().unwrap_or(self.endpoint_interval);
        let of_endpoint = turns.of_endpoint.entry(endpoint).or_insert(at);
        if *of_endpoint > at {
            return Err(*of_endpoint);
        }
        // Who wakes up late takes no turns away; two that were missed are made up for.
        let missed = at.checked_sub(interval * 2).unwrap_or(at);
        *of_endpoint = missed.max(*of_endpoint) + interval;
        turns.next = at + self.interval;
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_are_spread_and_unused_turns_are_not_saved_up() {
        let pace = Pace::per_second(10);
        let start = Instant::now() + Duration::from_secs(1);
        let book = |now| pace.book("a", now).map(|at| (at - start).as_millis());
        assert_eq!([0; 3].map(|_| book(start)), [Ok(0), Ok(100), Ok(200)]);
        let later = start + Duration::from_secs(60);
        assert_eq!([0; 2].map(|_| book(later)), [Ok(60_000), Ok(60_100)]);
        pace.hold_off(Duration::from_secs(600));
        assert!(pace.book("a", later).is_ok_and(|at| at >= start + Duration::from_secs(500)));
    }

    /// Also after a time without calls: else all that waited would come at once.
    #[tokio::test]
    async fn each_endpoint_has_a_pace_of_its_own() {
        let pace = Pace::per_second(100).per_endpoint(10);
        let start = Instant::now() + Duration::from_secs(1);
        let book = |endpoint, after_ms| {
            let ms = |at: Instant| (at - start).as_millis();
            pace.book(endpoint, start + Duration::from_millis(after_ms)).map(ms).map_err(ms)
        };
        assert_eq!([book("a", 0), book("a", 0), book("b", 0)], [Ok(0), Err(100), Ok(10)]);
        assert_eq!([book("a", 100), book("a", 100)], [Ok(100), Err(200)]);
        // Late by one turn, and by very many.
        assert_eq!([book("a", 300), book("a", 300), book("a", 300)], [Ok(300), Ok(310), Err(400)]);
        pace.hold_off(Duration::from_secs(3));
        assert!([0; 3].iter().all(|_| book("a", 500).is_ok_and(|at| at > 1_900)));
        assert!(book("a", 500).is_err_and(|at| at > 1_900));
    }

    #[tokio::test]
    async fn an_endpoint_may_have_less_than_others() {
        let start = Instant::now() + Duration::from_secs(1);
        let first_two = |pace: Pace, endpoint| {
            let ms = |at: Instant| (at - start).as_millis();
            [0; 2].map(|_| pace.book(endpoint, start).map(ms).map_err(ms))
        };
        let pace = || Pace::per_second(1_000).per_endpoint(100);
        assert_eq!(first_two(pace().at_most("search", 20), "search"), [Ok(0), Err(50)]);
        assert_eq!(first_two(pace().at_most("search", 20), "other"), [Ok(0), Err(10)]);
        assert_eq!(first_two(pace().at_most("search", 500), "search"), [Ok(0), Err(10)]);
    }
}
