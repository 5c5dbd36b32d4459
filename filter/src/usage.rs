//! Usage on its way to the ledger: gathered in memory, frozen as a batch, sent until acknowledged.

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use weir_domain::{
    id::{Meter, TenantId},
    llm::usage::TokenUsage,
    protocol,
    quantity::{Amount, Quantity},
    usage::{UsageBatch, UsageRecord},
};

/// What a call of a language model reads that no cache had, what it reads from one, and what it writes.
pub const INPUT_METER: &str = "input";
pub const CACHED_METER: &str = "cached";
pub const OUTPUT_METER: &str = "output";

/// The most records in one batch; the rest waits for the next one.
const MAX_RECORDS: usize = 5_000;

/// The most records that gather while no batch is acknowledged and requests go on all the same.
const MAX_WAITING: usize = 200_000;

/// Usage that is in no batch yet.
#[derive(Debug, Default)]
pub struct UsageLog {
    records: Vec<UsageRecord>,
    /// What was admitted on meters that a policy names, summed up by tenant, minute, meter and version
    /// of the policy.
    metered: HashMap<(TenantId, i64, Meter, u32), Amount>,
    /// What calls of language models used, summed up by tenant, minute, model and version of the
    /// policy, with how many they were.
    calls: HashMap<(TenantId, i64, String, u32), (TokenUsage, Quantity)>,
}

impl UsageLog {
    /// Adds what was admitted on the default meter.
    pub fn add(&mut self, tenant: &TenantId, minute: i64, policy_version: u32, counted: Amount) {
        let meter = Meter::default();
        self.records.push(record((tenant.clone(), minute, meter, policy_version), counted));
    }

    /// Adds what one request took on a meter that the policy named.
    pub fn add_metered(
        &mut self,
        tenant: &TenantId,
        minute: i64,
        meter: &Meter,
        policy_version: u32,
        cost: Amount,
    ) {
        let key = (tenant.clone(), minute, meter.clone(), policy_version);
        let sum = self.metered.entry(key.clone()).or_default();
        match sum.checked_add(cost) {
            Some(more) => *sum = more,
            None => self.records.push(record(key, std::mem::replace(sum, cost))),
        }
    }

    /// Adds what one call of `model` used.
    pub fn add_call(
        &mut self,
        tenant: &TenantId,
        minute: i64,
        model: &str,
        policy_version: u32,
        used: TokenUsage,
    ) {
        let key = (tenant.clone(), minute, model.to_owned(), policy_version);
        let (sum, requests) = self.calls.entry(key).or_default();
        sum.input = sum.input.saturating_add(used.input);
        sum.cached = sum.cached.saturating_add(used.cached);
        sum.output = sum.output.saturating_add(used.output);
        *requests = requests.saturating_add(Quantity::ONE);
    }

    /// Three meters for calls; the calls themselves stand with what went in.
    fn record_sums(&mut self) {
        self.records.extend(self.metered.drain().map(|(key, amount)| record(key, amount)));
        for ((tenant, minute, model, policy_version), (used, requests)) in self.calls.drain() {
            let parts = [
                (INPUT_METER, used.input, requests),
                (CACHED_METER, used.cached, Quantity::ZERO),
                (OUTPUT_METER, used.output, Quantity::ZERO),
            ];
            for (meter, tokens, requests) in parts {
                let (Ok(meter), false) = (meter.parse(), tokens.is_zero() && requests.is_zero())
                else {
                    continue;
                };
                let key = (tenant.clone(), minute, meter, policy_version);
                let counted = record(key, Amount { tokens, requests });
                self.records.push(UsageRecord { model: model.clone(), ..counted });
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.metered.is_empty() && self.calls.is_empty()
    }

    /// Whether more waits than one batch takes, so that nothing should be added yet.
    pub fn is_full(&self) -> bool {
        self.len() >= MAX_RECORDS
    }

    /// Whether so much waits that no more may be counted, whatever the outage contract says.
    pub fn is_overfull(&self) -> bool {
        self.len() >= MAX_WAITING
    }

    fn len(&self) -> usize {
        self.records.len() + self.metered.len() + 3 * self.calls.len()
    }

    /// The oldest records, as many as fit into a batch: their sum must be a quantity too.
    pub fn take_records(&mut self) -> Vec<UsageRecord> {
        self.record_sums();
        let sums = self.records.iter().scan(Amount::ZERO, |sum, record| {
            let UsageRecord { tokens, requests, .. } = *record;
            *sum = sum.checked_add(Amount { tokens, requests })?;
            Some(())
        });
        let count = sums.take(MAX_RECORDS).count();
        self.records.drain(..count).collect()
    }
}

fn record(key: (TenantId, i64, Meter, u32), counted: Amount) -> UsageRecord {
    let (tenant, minute, meter, policy_version) = key;
    let Amount { tokens, requests } = counted;
    UsageRecord { tenant, minute, meter, model: String::new(), policy_version, tokens, requests }
}

/// A batch as it is kept in shared data and posted: its bytes never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    pub sequence: u64,
    pub body: Vec<u8>,
    /// How many requests it tells of.
    pub requests: u64,
}

/// The batches of one worker that are not acknowledged, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outbox {
    pub batches: Vec<Frozen>,
}

impl Outbox {
    pub fn decode(bytes: Option<&[u8]>) -> Self {
        bytes.and_then(|bytes| postcard::from_bytes(bytes).ok()).unwrap_or_default()
    }

    /// The bytes to keep; none when all is acknowledged.
    pub fn encode(&self) -> Vec<u8> {
        if self.batches.is_empty() {
            return Vec::new();
        }
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// The same batches as those of another worker, which has sent none yet: for a control plane
    /// that has lost what it acknowledged, and refuses what comes after the gap.
    pub fn renamed(&self, worker: &str) -> Self {
        let batches = self
            .batches
            .iter()
            .filter_map(|batch| serde_json::from_slice::<UsageBatch>(&batch.body).ok());
        let renamed = (1..).zip(batches).filter_map(|(sequence, batch)| {
            freeze(&batch.gateway, worker, sequence, batch.records)
        });
        Self { batches: renamed.collect() }
    }

    /// Drops what is acknowledged up to `sequence`; how many requests that was.
    pub fn acknowledge(&mut self, sequence: u64) -> u64 {
        let stored = self.batches.iter().filter(|batch| batch.sequence <= sequence);
        let requests = stored.map(|batch| batch.requests).sum();
        self.batches.retain(|batch| batch.sequence > sequence);
        requests
    }
}

/// Freezes `records` as the batch `sequence` of `worker`.
pub fn freeze(
    gateway: &str,
    worker: &str,
    sequence: u64,
    records: Vec<UsageRecord>,
) -> Option<Frozen> {
    let requests = records.iter().map(|record| record.requests.get()).sum();
    let batch = UsageBatch {
        version: protocol::VERSION,
        gateway: gateway.to_owned(),
        worker: worker.to_owned(),
        sequence,
        records,
    };
    Some(Frozen { sequence, body: serde_json::to_vec(&batch).ok()?, requests })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renamed_batches_hold_the_same_and_count_from_1() {
        let mut log = UsageLog::default();
        let acme = TenantId::new("acme").unwrap();
        let mut outbox = Outbox::default();
        for sequence in 7..9 {
            log.add(&acme, 100, 0, Amount::request(weir_domain::quantity::Quantity::ONE));
            outbox.batches.push(freeze("g", "w", sequence, log.take_records()).unwrap());
        }
        let renamed = outbox.renamed("w2");
        let read = |outbox: &Outbox| -> Vec<UsageBatch> {
            outbox.batches.iter().map(|b| serde_json::from_slice(&b.body).unwrap()).collect()
        };
        let names: Vec<_> = read(&renamed).iter().map(|b| (b.worker.clone(), b.sequence)).collect();
        assert_eq!(names, [("w2".to_owned(), 1), ("w2".to_owned(), 2)]);
        let records = |outbox| -> Vec<_> { read(outbox).into_iter().map(|b| b.records).collect() };
        assert_eq!(records(&renamed), records(&outbox));
        assert_eq!(renamed.batches.iter().map(|b| b.requests).sum::<u64>(), 2);
    }

    #[test]
    fn what_waits_is_full_while_it_fills_a_batch() {
        let mut usage = UsageLog::default();
        let tenant = TenantId::new("acme").unwrap();
        for minute in 0..=MAX_RECORDS {
            assert_eq!(usage.is_full(), minute == MAX_RECORDS);
            usage.add(&tenant, i64::try_from(minute).unwrap(), 0, Amount::ZERO);
        }
        assert_eq!(usage.take_records().len(), MAX_RECORDS);
        assert!(!usage.is_full() && !usage.is_empty());
    }

    /// A batch whose sum is no quantity is put aside whole.
    #[test]
    fn the_sum_of_a_batch_is_a_quantity() {
        let mut usage = UsageLog::default();
        let (tenant, meter) = (TenantId::new("acme").unwrap(), "exports".parse().unwrap());
        let most = Amount::request(Quantity::MAX);
        for _ in 0..3 {
            usage.add_metered(&tenant, 1, &meter, 1, most);
        }
        for _ in 0..3 {
            let records = usage.take_records();
            assert_eq!(records.iter().map(|it| it.tokens).collect::<Vec<_>>(), [Quantity::MAX]);
        }
        assert!(usage.is_empty());
    }
}
