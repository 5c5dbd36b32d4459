//! Whole ms in place of ns, where a slot is kept.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const NS_PER_MS: u64 = 1_000_000;

pub fn serialize<S: Serializer>(ns: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    (ns / NS_PER_MS).serialize(serializer)
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    u64::deserialize(deserializer).map(|ms| ms.saturating_mul(NS_PER_MS))
}
