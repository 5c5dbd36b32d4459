//! What workers left that are gone: their batches are posted, one after the other.

use weir_domain::{protocol::USAGE_PATH, usage::UsageAnswer};

use crate::{
    host,
    http_call::{self, Answer},
    places::{self, Found, outbox_key},
    stats::Counter,
    usage::{Frozen, Outbox},
    worker::{Call, Worker},
};

impl Worker {
    /// Looks who is gone, and posts the oldest batch of one of them; the next one follows when it is
    /// stored.
    pub(super) fn adopt_orphans(&mut self, now_ns: u64) {
        let places = places::count();
        let mut gone = Vec::new();
        for place in 0..places {
            let found = places::look(place, now_ns);
            if found == Found::Lost {
                self.stats.count(Counter::LostWorkers);
            }
            if found != Found::Nothing {
                gone.push(place);
            }
        }
        if self.refresher.orphan_under_way {
            return;
        }
        // From the one after the last: one that is refused must not hold up the others.
        let first = self.refresher.next_orphan;
        let in_turn = gone.iter().filter(|place| **place >= first);
        let orphan = in_turn
            .chain(gone.iter().filter(|place| **place < first))
            .find_map(|place| Some((*place, places::outbox(*place).batches.into_iter().next()?)));
        let Some((place, batch)) = orphan else {
            return;
        };
        self.refresher.next_orphan = place + 1;
        if let Some(token) = http_call::post(&self.config.control_plane, USAGE_PATH, &batch.body) {
            self.refresher.orphan_under_way = true;
            self.calls.insert(token, Call::Orphan { place, batch });
        }
    }

    /// The answer to a batch of a worker that is gone.
    pub fn on_orphan(&mut self, place: u32, batch: &Frozen, answer: &Answer, now_ns: u64) {
        self.refresher.orphan_under_way = false;
        let stored = answer.parse::<UsageAnswer>();
        // As with a worker's own: see UsageCalls::start_anew.
        let sender = host::nonce().filter(|_| stored.is_err() && answer.is_conflict());
        let requests = host::update(&outbox_key(place), |bytes| {
            let mut outbox = Outbox::decode(bytes);
            // Another refresher was faster, and the place may have another worker by now.
            if outbox.batches.first() != Some(batch) {
                return (None, 0);
            }
            if let Some(sender) = &sender {
                return (Some(outbox.renamed(sender).encode()), 0);
            }
            if stored.is_err() {
                return (None, 0);
            }
            let requests = outbox.acknowledge(batch.sequence);
            (Some(outbox.encode()), requests)
        });
        match stored {
            Ok(_) => {
                self.stats.count(Counter::OrphansPosted);
                self.stats.add(Counter::Stored, requests.unwrap_or(0));
                if self.refresher.is_owner {
                    self.adopt_orphans(now_ns);
                }
            }
            Err(why) => host::warn(&format!(
                "weir: usage of a worker that is gone is not stored yet: {why}"
            )),
        }
    }
}
