//! Sends usage: one frozen batch at a time, kept in shared data until it is acknowledged, so that
//! another worker can post it when this one is gone.

use weir_domain::{protocol::USAGE_PATH, usage::UsageAnswer};

use crate::{
    host,
    http_call::{self, Answer},
    places::{self, BEAT_NS, Found, outbox_key},
    stats::Counter,
    usage::{Outbox, freeze},
    worker::{Call, Worker},
};

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
    /// Others took this worker for gone, and its place with what lay there is theirs.
    displaced: bool,
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

    /// Where its worker stands.
    pub fn place(&self) -> u32 {
        self.place
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
    }

    /// Keeps what is not acknowledged in shared data, at the place of `worker`.
    fn keep(&self, worker: &str) {
        if !places::is_held_by(self.place, worker) {
            return;
        }
        let bytes = self.outbox.encode();
        if bytes.is_empty() {
            host::clear(&outbox_key(self.place));
        } else {
            host::update(&outbox_key(self.place), |_| (Some(bytes.clone()), ()));
        }
    }
}

impl Worker {
    /// Takes a place among the gateway's workers; `false` if there is none.
    pub fn register(&mut self, now_ns: u64) -> bool {
        let Some((place, found)) = places::take(&self.name, now_ns) else {
            return false;
        };
        if found == Found::Lost {
            self.stats.count(Counter::LostWorkers);
        }
        self.usage_calls.place = place;
        self.usage_calls.beat_ns = now_ns;
        true
    }

    fn beat(&mut self, now_ns: u64) {
        let calls = &mut self.usage_calls;
        if now_ns.saturating_sub(calls.beat_ns) >= BEAT_NS {
            calls.beat_ns = now_ns;
            calls.displaced |= !places::beat(calls.place, &self.name, now_ns);
        }
        if calls.displaced && !calls.in_flight {
            // What lies there is others' to post by now, maybe under another name, so this worker
            // must not post it too.
            calls.outbox = Outbox::default();
            self.usage_calls.displaced = !self.register(now_ns);
        }
    }

    /// Freezes what was counted when it is time, and sends what is frozen.
    pub fn send_usage(&mut self, now_ns: u64) {
        self.beat(now_ns);
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
        let is_old = !calls.outbox.batches.is_empty()
            && unacknowledged_ns > self.config.max_unacknowledged_ms * 1_000_000;
        calls.stuck = is_old || self.usage.is_overfull();
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
        for index in std::mem::take(&mut self.counting) {
            if let Some(tenant) = self.tenants.get_mut(index) {
                tenant.close_minute(&mut self.usage);
                tenant.counts = false;
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
            calls.keep(&self.name);
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
                calls.keep(&self.name);
                self.stats.add(Counter::Stored, requests);
            }
            Err(why) => {
                if answer.is_conflict() {
                    self.usage_calls.start_anew();
                    self.usage_calls.keep(&self.name);
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

    /// Freezes all that was counted, for others to post.
    pub fn leave_usage(&mut self, now_ns: u64) {
        if !self.gateway.is_empty() {
            // Were its place another's, what it freezes would not be kept.
            self.beat(now_ns);
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

    /// Whether all that this worker counted is acknowledged.
    pub fn is_usage_stored(&self) -> bool {
        self.usage.is_empty() && self.usage_calls.outbox.batches.is_empty()
    }
}
