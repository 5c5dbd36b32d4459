//! The edge API: what gateways and the control plane say to each other, as JSON over HTTP.

use serde::{Deserialize, Serialize};

use crate::{
    id::{LimitName, TenantId},
    limit::Unit,
    quantity::{Amount, Quantity},
};

/// The version of this protocol. Each call carries it; the control plane refuses others.
pub const VERSION: u32 = 1;

/// Where a gateway asks for leases.
pub const LEASES_PATH: &str = "/edge/v1/leases";
/// Where a worker posts its usage batches ([`crate::usage::UsageBatch`]).
pub const USAGE_PATH: &str = "/edge/v1/usage";
/// Where a gateway waits for changes: `GET …?version=1&after=<revision>&gateway=<id>&policy=<version>`,
/// with the version of the rating policy by which it rates requests, 0 without one. A gateway that does
/// not know whether there is one leaves `policy` out, and is answered at once.
pub const CONFIG_PATH: &str = "/edge/v1/config";

/// The longest rating policy, in bytes.
pub const MAX_POLICY_BYTES: usize = 32 * 1024;
/// The most tenants that one call asks for.
pub const MAX_LEASES_PER_CALL: usize = 100;
/// The longest lease of a continuous limit, in ms. A bucket that was lost starts to refill only when
/// every lease drawn from it has ended, so no answer may exceed this.
pub const MAX_TTL_MS: u64 = 10_000;
/// The longest lease where all limits are periodic, in ms.
pub const MAX_PERIODIC_TTL_MS: u64 = 120_000;
/// A lease is as long as it may be while all that gateways hold like it is at most this part of what a
/// limit has left: one in so many. Others don't miss it then, and the tenants of whom there are most,
/// those that ask rarely, need few calls.
pub const PLENTY: u32 = 64;

/// A worker's call for leases of several tenants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    pub version: u32,
    /// One Envoy process.
    pub gateway: String,
    /// One worker thread of it.
    pub worker: String,
    /// The revision that the gateway has heard of ([`ConfigAnswer::revision`]): what it is told must not
    /// be older.
    #[serde(default)]
    pub revision: u64,
    pub leases: Vec<LeaseAsk>,
}

/// What a gateway asks for one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseAsk {
    pub tenant: TenantId,
    /// Rises with each call of a worker for a tenant, and is repeated unchanged, with all else in
    /// this struct, until it is answered. 1 to 2⁵³ − 1.
    pub call: u64,
    /// Of the lease that the gateway holds; empty without one.
    #[serde(default)]
    pub stamp: String,
    /// Granted whole or not at all.
    pub need: Amount,
    /// Welcome; at least `need`.
    pub want: Amount,
    /// Admitted by this gateway and not yet said.
    pub spent: Amount,
    /// Given back; ignored when `stamp` is not the current one. Beyond what is held it is ignored too.
    #[serde(default)]
    pub refund: Amount,
    /// Admitted in an outage without a lease; the buckets pay it, below zero if need be.
    #[serde(default)]
    pub owe: Amount,
    /// A worker of the gateway was lost, and nobody knows what it had drawn from the lease `stamp`.
    /// So another lease is wanted, and what is still held under this one counts until its end. Ignored
    /// when `stamp` is not the current one.
    #[serde(default)]
    pub fresh: bool,
}

/// The answer to a [`LeaseRequest`], one for each tenant asked for, in the same order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseResponse {
    pub leases: Vec<LeaseAnswer>,
}

/// What a gateway may spend for one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseAnswer {
    pub tenant: TenantId,
    /// The call that this answers; 0 where the control plane could not decide: repeat the ask.
    pub call: u64,
    pub state: TenantState,
    /// Names period, limits and Redis epoch, and this lease: a gateway whose lease has ended gets
    /// another. When it differs from the one the gateway
    /// holds, `granted` replaces what is held instead of adding to it.
    pub stamp: String,
    /// Zero in both units when the need was not met.
    pub granted: Amount,
    /// The gateway's whole lease for this tenant ends this long after the call was sent; 0 if there is none.
    pub ttl_ms: u64,
    /// The clock that stamps usage under this lease: ms since 1970 when the lease was decided.
    pub now_ms: i64,
    /// The plan that the tenant is on; empty where nothing can be leased.
    #[serde(default)]
    pub plan: String,
    /// When refused: what to tell the client. 0 with a limit that can never hold the need.
    #[serde(default)]
    pub retry_after_ms: u64,
    /// When refused: how long the gateway refuses on its own what costs at least as much. 0 when not
    /// refused, even with nothing granted: then ask anew.
    #[serde(default)]
    pub ask_again_ms: u64,
    #[serde(default)]
    pub limits: Vec<LimitStatus>,
}

/// Whether a tenant may use the API at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TenantState {
    Active,
    Suspended,
    /// No such tenant.
    Unknown,
}

/// One limit of a tenant when a lease was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitStatus {
    pub name: LimitName,
    pub unit: Unit,
    pub capacity: Quantity,
    /// What the tenant had left, with all that gateways hold unspent.
    pub remaining: Quantity,
    /// The length of the period; for a continuous limit, how long it takes from empty to full.
    pub window_s: u64,
    /// Until the period ends; for a continuous limit, until the bucket is full, or where it is
    /// violated, until it holds the need, so that it is not later than `Retry-After`.
    pub reset_s: u64,
    /// Whether this limit is why the need was not met. Written always: gateways keep this struct in
    /// a format without field names, where a field that is left out makes the rest unreadable.
    #[serde(default)]
    pub violated: bool,
}

/// What changed since the revision that a gateway knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigAnswer {
    /// To be sent as `after` next time.
    pub revision: u64,
    /// The revision asked for is too old, or unknown: forget everything that was held back.
    #[serde(default)]
    pub reset: bool,
    /// Tenants whose state, plan or buckets changed.
    #[serde(default)]
    pub tenants: Vec<TenantId>,
    /// When this was answered: ms since 1970.
    #[serde(default)]
    pub now_ms: i64,
    /// The policy that the gateway should have, unless it said that it has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<RatingPolicy>,
}

/// The policy by which gateways rate requests, from when they hear of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatingPolicy {
    /// Names id and text; 0 for none.
    pub version: u32,
    pub id: String,
    /// Rego. At most [`MAX_POLICY_BYTES`].
    pub source: String,
}
