//! Sends usage: one frozen batch at a time, kept in shared data until it is acknowledged, so that
//! another worker can post it when this one is gone.

use serde::{Deserialize, Serialize};
use weir_domain::{protocol::USAGE_PATH, usage::UsageAnswer};

use crate::{
    host,
    http_call::{self, Answer},
    stats::Counter,
    usage::{Outbox, freeze},
    worker::{Call, Worker},
};

/// How often a worker says that it lives, in ns.
const BEAT_NS: u64 = 1_000_000_000;
/// A worker that has been silent for this long is taken for gone.
pub const GONE_NS: u64 = 5_000_000_000;
/// The most workers of one Envoy.
const MAX_PLACES: u32 = 4_096;

/// Where a worker of this gateway stands; places of workers that are gone are used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    pub worker: String,
    pub beat_ns: u64,
}

pub fn worker_key(place: u32) -> String {
    format!("weir/1/worker/{place}")
}

pub fn outbox_key(place: u32) -> String {
    format!("weir/1/outbox/{place}")
}

/// The state of this worker's sending.
#[derive(Debug, Default)]
pub struct UsageCalls {
    place: u32,
    outbox: Outbox,
    /// The name that batches are sent under: the worker's, or one since the last gap.
    sender: Option<String>,
    sequence: u64,
    /// When the oldest batch that is not acknowledged was frozen.
    frozen_ns: u64,
    flushed_ns: u64,
    beat_ns: u64,
    in_flight: bool,
    retry_ns: u64,
    failures: u32,
    stuck: bool,
}

impl UsageCalls {
    /// Whether usage has waited so long to be stored that no more may be counted on.
    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Takes the first free place; `false` if there is none.
    pub fn register(&mut self, worker: &str, now_ns: u64) -> bool {
        let mine = Registration { worker: worker.to_owned(), beat_ns: now_ns };
        for place in 0..MAX_PLACES {
            if host::read(&outbox_key(place)).is_some() {
                continue;
            }
            let taken = host::update(&worker_key(place), |bytes| {
                let holder =
                    bytes.and_then(|bytes| postcard::from_bytes::<Registration>(bytes).ok());
                match holder {
                    Some(holder) if now_ns.saturating_sub(holder.beat_ns) < GONE_NS => {
                        (None, false)
                    }
                    _ => (postcard::to_allocvec(&mine).ok(), true),
                }
            });
            if taken == Some(true) {
                self.place = place;
                self.beat_ns = now_ns;
                return true;
            }
        }
        host::warn("weir: there is no place left for this worker");
        false
    }

    fn beat(&mut self, worker: &str, now_ns: u64) {
        if now_ns.saturating_sub(self.beat_ns) < BEAT_NS {
            return;
        }
        self.beat_ns = now_ns;
        let mine = Registration { worker: worker.to_owned(), beat_ns: now_ns };
        let still_mine = host::update(&worker_key(self.place), |bytes| {
            let holder = bytes.and_then(|bytes| postcard::from_bytes::<Registration>(bytes).ok());
            match holder {
                Some(holder) if holder.worker == worker => {
                    (postcard::to_allocvec(&mine).ok(), true)
                }
                _ => (None, false),
            }
        });
        // This worker stood still for so long that its place was given away.
        if still_mine == Some(false) && self.register(worker, now_ns) {
            self.keep();
        }
    }

    /// The control plane has lost what it acknowledged (a database restored from a backup, say),
    /// and what comes after that gap it will never take under this name.
    fn start_anew(&mut self) {
        let Some(sender) = host::nonce() else {
            return;
        };
        self.outbox = self.outbox.renamed(&sender);
        self.sequence = self.outbox.batches.last().map_or(0, |batch| batch.sequence);
        self.sender = Some(sender);
        self.keep();
    }

    /// Keeps what is not acknowledged in shared data.
    fn keep(&self) {
        let bytes = self.outbox.encode();
        if bytes.is_empty() {
            host::clear(&outbox_key(self.place));
        } else {
            host::update(&outbox_key(self.place), |_| (Some(bytes.clone()), ()));
        }
    }
}

impl Worker {
    /// Freezes what was counted when it is time, and sends what is frozen.
    pub fn send_usage(&mut self, now_ns: u64) {
        let worker = self.name.clone();
        self.usage_calls.beat(&worker, now_ns);
        let calls = &self.usage_calls;
        let due = now_ns.saturating_sub(calls.flushed_ns) >= self.config.flush_ms * 1_000_000;
        if calls.outbox.batches.is_empty() && (due || self.usage.is_full()) {
            // Else tenants go on counting where they are: what waits here would grow with time.
            if !self.usage.is_full() {
                self.close_minutes();
            }
            self.freeze_usage(now_ns);
        }
        let calls = &mut self.usage_calls;
        let unacknowledged_ns = now_ns.saturating_sub(calls.frozen_ns);
        calls.stuck = !calls.outbox.batches.is_empty()
            && unacknowledged_ns > self.config.max_unacknowledged_ms * 1_000_000;
        if calls.in_flight || now_ns < calls.retry_ns {
            return;
        }
        let Some(batch) = calls.outbox.batches.first() else {
            return;
        };
        match http_call::post(&self.config.control_plane, USAGE_PATH, &batch.body) {
            Some(token) => {
                calls.in_flight = true;
                self.calls.insert(token, Call::Usage);
            }
            None => self.usage_call_failed(now_ns, "the call could not be made"),
        }
    }

    fn close_minutes(&mut self) {
        for index in &self.active {
            if let Some(tenant) = self.tenants.get_mut(*index) {
                tenant.close_minute(&mut self.usage);
            }
        }
    }

    fn freeze_usage(&mut self, now_ns: u64) {
        self.usage_calls.flushed_ns = now_ns;
        if self.usage.is_empty() {
            return;
        }
        let calls = &mut self.usage_calls;
        let sequence = calls.sequence + 1;
        let sender = calls.sender.as_ref().unwrap_or(&self.name);
        if let Some(batch) = freeze(&self.gateway, sender, sequence, self.usage.take_records()) {
            calls.sequence = sequence;
            calls.frozen_ns = now_ns;
            calls.outbox.batches.push(batch);
            calls.keep();
        }
    }

    /// The answer to a batch.
    pub fn on_usage(&mut self, answer: &Answer, now_ns: u64) {
        self.usage_calls.in_flight = false;
        match answer.parse::<UsageAnswer>() {
            Ok(stored) => {
                self.stats.count(Counter::UsageBatches);
                let calls = &mut self.usage_calls;
                calls.failures = 0;
                calls.retry_ns = 0;
                let requests = calls.outbox.acknowledge(stored.sequence);
                calls.keep();
                self.stats.add(Counter::Stored, requests);
            }
            Err(why) => {
                if answer.is_conflict() {
                    self.usage_calls.start_anew();
                }
                self.usage_call_failed(now_ns, &why);
            }
        }
    }

    fn usage_call_failed(&mut self, now_ns: u64, why: &str) {
        self.stats.count(Counter::UsageBatchFailures);
        host::warn(&format!("weir: usage is not stored yet: {why}"));
        let calls = &mut self.usage_calls;
        calls.retry_ns = now_ns + http_call::backoff_ns(calls.failures);
        calls.failures += 1;
    }

    /// This VM ends: what it holds goes back to its siblings, what it counted stays for them to post.
    pub fn on_done(&mut self, now_ns: u64) {
        for index in self.tenants.indexes() {
            self.put_back(index);
            self.keep_debt(index);
        }
        self.close_minutes();
        // One that ends before its first tick has no name and no place to leave usage in yet.
        if self.usage.is_empty() || (self.gateway.is_empty() && !self.start(now_ns)) {
            return;
        }
        while !self.usage.is_empty() {
            self.freeze_usage(now_ns);
        }
    }
}
