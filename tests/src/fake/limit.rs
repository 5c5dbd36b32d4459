//! How many calls a stand-in takes in a second.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Of searches Stripe takes no more, whatever an account's other limits are.
const SEARCHES: u32 = 20;

/// The most calls in a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) in_all: u32,
    pub(crate) per_endpoint: u32,
}

/// The calls of the second that has begun.
pub(super) struct Second {
    began: Instant,
    in_all: u32,
    per_endpoint: HashMap<String, u32>,
}

impl Second {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), in_all: 0, per_endpoint: HashMap::new() }
    }

    /// Counts a call; whether it is one too many.
    pub(super) fn exceeds(&mut self, endpoint: &str, limit: Option<Limit>) -> bool {
        if self.began.elapsed() >= Duration::from_secs(1) {
            *self = Self::new();
        }
        self.in_all += 1;
        let of_endpoint = self.per_endpoint.entry(endpoint.to_owned()).or_default();
        *of_endpoint += 1;
        limit.is_some_and(|limit| {
            let per_endpoint = match endpoint.ends_with("/search") {
                true => limit.per_endpoint.min(SEARCHES),
                false => limit.per_endpoint,
            };
            self.in_all > limit.in_all || *of_endpoint > per_endpoint
        })
    }
}
