//! What was admitted: usage records, and the batches in which a worker sends them.

use serde::{Deserialize, Serialize};

use crate::{
    id::{Meter, TenantId},
    quantity::Quantity,
};

/// What one worker admitted for one tenant, meter, model and policy version in one minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageRecord {
    pub tenant: TenantId,
    /// Minutes since 1970-01-01T00:00Z, by the control plane's clock.
    pub minute: i64,
    #[serde(default)]
    pub meter: Meter,
    /// Empty where no model is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// The version of the rating policy that said the cost; 0 without a policy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub policy_version: u32,
    pub tokens: Quantity,
    pub requests: Quantity,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// The largest batch that the control plane takes, in bytes of JSON. A record is about 150 bytes.
pub const MAX_BATCH_BYTES: usize = 4 << 20;

/// Usage records that one worker froze together. It is sent again, unchanged and before any later
/// one, until it is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageBatch {
    /// [`crate::protocol::VERSION`]
    pub version: u32,
    pub gateway: String,
    pub worker: String,
    /// 1 for a worker's first batch, then one more each.
    pub sequence: u64,
    pub records: Vec<UsageRecord>,
}

/// The answer to a batch that is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageAnswer {
    /// The sequence that is stored now: the batch's own.
    pub sequence: u64,
}
