//! A usage batch as it came in, and what makes one poison: a batch that can never be stored.

use std::collections::HashSet;

use axum::body::Bytes;
use serde::Deserialize;
use weir_domain::{
    id, protocol,
    quantity::Quantity,
    usage::{UsageBatch, UsageRecord},
};

use crate::{extract::parse_json, problem::ApiError};

/// 2020-01-01T00:00Z, in minutes since 1970: nothing was metered before.
const FIRST_MINUTE: i64 = 26_297_280;
/// Usage may be stamped this far ahead of the database's clock.
const MAX_MINUTES_AHEAD: i64 = 24 * 60;

/// A batch that is to be stored or, if it is poison, to be quarantined.
#[derive(Debug)]
pub struct Incoming {
    pub gateway: String,
    pub worker: String,
    /// From 1.
    pub sequence: i64,
    /// As it came, for quarantine.
    pub body: Bytes,
    pub content: Content,
}

#[derive(Debug)]
pub enum Content {
    Records(Vec<UsageRecord>),
    /// Can never be stored, and why.
    Poison(String),
}

/// What must be readable of a batch, so that it can be quarantined in its place.
#[derive(Deserialize)]
struct Envelope {
    version: u32,
    gateway: String,
    worker: String,
    sequence: u64,
}

impl Incoming {
    /// Reads a body. One whose records are malformed is poison; an error says what is wrong with a
    /// body of which not even the worker and the sequence can be read.
    pub fn read(body: Bytes) -> Result<Self, ApiError> {
        // Finding out which field is wrong takes time, and almost all batches are right.
        let read = serde_json::from_slice(&body).or_else(|_| parse_json::<UsageBatch>(&body));
        let (envelope, content) = match read {
            Ok(batch) => {
                let UsageBatch { version, gateway, worker, sequence, records } = batch;
                (Envelope { version, gateway, worker, sequence }, Content::Records(records))
            }
            Err(malformed) => match serde_json::from_slice::<Envelope>(&body) {
                Ok(envelope) => (envelope, Content::Poison(malformed.to_string())),
                Err(_) => return Err(malformed),
            },
        };
        if envelope.version != protocol::VERSION {
            return Err(ApiError::field(
                "version",
                format!(
                    "this control plane speaks version {}, not {}",
                    protocol::VERSION,
                    envelope.version,
                ),
            ));
        }
        check_name("gateway", &envelope.gateway)?;
        check_name("worker", &envelope.worker)?;
        let sequence = i64::try_from(envelope.sequence)
            .ok()
            .filter(|sequence| *sequence > 0)
            .ok_or_else(|| ApiError::field("sequence", "must be 1 to 2^63 - 1"))?;
        Ok(Self { gateway: envelope.gateway, worker: envelope.worker, sequence, body, content })
    }

    /// Batches of one worker are stored in the order of their sequences.
    pub fn worker_key(&self) -> (&str, &str) {
        (&self.gateway, &self.worker)
    }

    pub fn records(&self) -> &[UsageRecord] {
        match &self.content {
            Content::Records(records) => records,
            Content::Poison(_) => &[],
        }
    }

    /// Why this batch can never be stored, if so.
    pub fn poison(&self, known_tenants: &HashSet<String>, now_minute: i64) -> Option<String> {
        let records = match &self.content {
            Content::Poison(reason) => return Some(reason.clone()),
            Content::Records(records) => records,
        };
        let mut tokens = Quantity::ZERO;
        let mut requests = Quantity::ZERO;
        for (position, record) in records.iter().enumerate() {
            if !known_tenants.contains(record.tenant.as_str()) {
                return Some(format!(
                    "records[{position}]: no tenant {:?}",
                    record.tenant.as_str()
                ));
            }
            if record.minute < FIRST_MINUTE || record.minute > now_minute + MAX_MINUTES_AHEAD {
                return Some(format!(
                    "records[{position}].minute: {} is before 2020 or more than a day ahead of {now_minute}",
                    record.minute,
                ));
            }
            let sums = (tokens.checked_add(record.tokens), requests.checked_add(record.requests));
            let (Some(more_tokens), Some(more_requests)) = sums else {
                return Some(format!("records[{position}]: the batch's sum is past 2^53 - 1"));
            };
            (tokens, requests) = (more_tokens, more_requests);
        }
        None
    }
}

fn check_name(field: &str, name: &str) -> Result<(), ApiError> {
    id::check(name).map_err(|error| ApiError::field(field, error))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: i64 = 29_000_000;

    fn body(record: &Value) -> Bytes {
        json!({"version": 1, "gateway": "gw", "worker": "w", "sequence": 1, "records": [record]})
            .to_string()
            .into()
    }

    fn poison_of(record: &Value) -> Option<String> {
        let known = HashSet::from(["acme".to_owned()]);
        Incoming::read(body(record)).unwrap().poison(&known, NOW)
    }

    #[test]
    fn what_can_never_be_stored_is_poison() {
        let good = json!({"tenant": "acme", "minute": NOW, "tokens": 5, "requests": 1});
        assert_eq!(poison_of(&good), None);
        for (field, value) in [
            ("tenant", json!("stranger")),
            ("tenant", json!("a/b")),
            ("minute", json!(FIRST_MINUTE - 1)),
            ("minute", json!(NOW + 24 * 60 + 1)),
            ("tokens", json!(-1)),
            ("tokens", json!(1u64 << 53)),
            ("requests", json!(1.5)),
            ("surprise", json!(1)),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            assert!(poison_of(&bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_batch_whose_sum_overflows_is_poison() {
        let huge =
            json!({"tenant": "acme", "minute": NOW, "tokens": (1u64 << 53) - 1, "requests": 1});
        let body = json!({"version": 1, "gateway": "gw", "worker": "w", "sequence": 1, "records": [huge, huge]});
        let batch = Incoming::read(body.to_string().into()).unwrap();
        let known = HashSet::from(["acme".to_owned()]);
        assert!(batch.poison(&known, NOW).unwrap().contains("records[1]"));
    }

    #[test]
    fn a_body_without_a_readable_worker_and_sequence_is_refused_with_the_field() {
        for (bad, field) in [
            (json!({"version": 1, "worker": "w", "sequence": 1, "records": []}), "gateway"),
            (
                json!({"version": 1, "gateway": "g", "worker": "w", "sequence": 0, "records": []}),
                "sequence",
            ),
            (
                json!({"version": 1, "gateway": "g", "worker": "w", "sequence": -1, "records": []}),
                "sequence",
            ),
            (
                json!({"version": 1, "gateway": "", "worker": "w", "sequence": 1, "records": []}),
                "gateway",
            ),
            (
                json!({"version": 1, "gateway": "g\u{0}", "worker": "w", "sequence": 1, "records": []}),
                "gateway",
            ),
            (
                json!({"version": 2, "gateway": "g", "worker": "w", "sequence": 1, "records": []}),
                "version",
            ),
            (
                json!({"version": 2, "gateway": "g", "worker": "w", "sequence": 1, "else": []}),
                "version",
            ),
        ] {
            let error = Incoming::read(bad.to_string().into()).unwrap_err();
            assert!(error.to_string().contains(field), "{bad}: {error}");
        }
        assert!(Incoming::read(Bytes::from_static(b"{")).is_err());
    }
}
