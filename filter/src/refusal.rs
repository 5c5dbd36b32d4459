//! What a refused client is told: a status, a reason code, problem+json, and when to come back.

use std::rc::Rc;

use proxy_wasm::{
    hostcalls,
    types::{GrpcStatusCode, MapType},
};
use serde_json::{Value, json};
use weir_domain::{
    protocol::LimitStatus,
    quantity::Amount,
    rate_limit_fields::{self, POLICY_FIELD, REMAINING_FIELD},
};

use crate::{slot, stats::Counter, tenant::Limits};

/// Why a request is refused.
#[derive(Debug, Clone)]
pub enum Refused {
    /// The request says no tenant.
    MissingCredential,
    /// No tenant has this credential.
    UnknownTenant,
    Suspended,
    /// The buckets do not hold the cost.
    Limit {
        refusal: slot::Refusal,
        cost: Amount,
        limits: Rc<Limits>,
    },
    /// No lease could be had in time, and the outage contract admits nothing.
    ControlPlaneUnreachable,
    /// Nor one, and grace has nothing left in this second.
    GraceExceeded,
    /// Too much usage waits to be stored to count on.
    UsageUnacknowledged,
    /// Too many requests wait already.
    Overloaded,
}

/// How long a client is asked to wait when only the control plane stands in its way, in s.
const OUTAGE_RETRY_S: u64 = 1;

impl Refused {
    pub fn counter(&self) -> Counter {
        match self {
            Self::MissingCredential => Counter::MissingCredential,
            Self::UnknownTenant => Counter::UnknownTenant,
            Self::Suspended => Counter::Suspended,
            Self::Limit { refusal, .. } if refusal.retry_ns.is_none() => {
                Counter::CostExceedsCapacity
            }
            Self::Limit { .. } => Counter::LimitExceeded,
            Self::ControlPlaneUnreachable => Counter::ControlPlaneUnreachable,
            Self::GraceExceeded => Counter::GraceExceeded,
            Self::UsageUnacknowledged => Counter::UsageUnacknowledged,
            Self::Overloaded => Counter::Overloaded,
        }
    }

    /// The code that clients and dashboards see; the same as the stat's name.
    fn reason(&self) -> &'static str {
        match self.counter() {
            Counter::MissingCredential => "missing_credential",
            Counter::UnknownTenant => "unknown_tenant",
            Counter::Suspended => "suspended",
            Counter::CostExceedsCapacity => "cost_exceeds_capacity",
            Counter::LimitExceeded => "limit_exceeded",
            Counter::UsageUnacknowledged => "usage_unacknowledged",
            Counter::Overloaded => "overloaded",
            Counter::GraceExceeded => "grace_exceeded",
            _ => "control_plane_unreachable",
        }
    }

    fn status(&self) -> (u32, &'static str) {
        match self {
            Self::MissingCredential | Self::UnknownTenant => (401, "Unauthorized"),
            Self::Suspended => (403, "Forbidden"),
            Self::Limit { .. } => (429, "Too Many Requests"),
            Self::ControlPlaneUnreachable
            | Self::GraceExceeded
            | Self::UsageUnacknowledged
            | Self::Overloaded => (503, "Service Unavailable"),
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::MissingCredential => "The request does not say which tenant it is of.".to_owned(),
            Self::UnknownTenant => "There is no such tenant.".to_owned(),
            Self::Suspended => "This tenant is suspended; ask the operator of this API.".to_owned(),
            Self::Limit { refusal, cost, .. } if refusal.retry_ns.is_none() => format!(
                "The request costs {}, more than a limit ever holds; it can never succeed as it is.",
                spell(*cost)
            ),
            Self::Limit { .. } => "No tokens or requests are left; come back later.".to_owned(),
            Self::ControlPlaneUnreachable | Self::GraceExceeded | Self::UsageUnacknowledged => {
                "Requests cannot be metered at the moment; try again.".to_owned()
            }
            Self::Overloaded => "Too many requests wait at the moment; try again.".to_owned(),
        }
    }

    fn grpc_status(&self) -> GrpcStatusCode {
        match self {
            Self::MissingCredential | Self::UnknownTenant => GrpcStatusCode::Unauthenticated,
            Self::Suspended => GrpcStatusCode::PermissionDenied,
            Self::Limit { .. } => GrpcStatusCode::ResourceExhausted,
            Self::ControlPlaneUnreachable
            | Self::GraceExceeded
            | Self::UsageUnacknowledged
            | Self::Overloaded => GrpcStatusCode::Unavailable,
        }
    }

    /// In how many seconds to come back; `None` where nobody knows, or never.
    fn retry_after_s(&self, now_ns: u64) -> Option<u64> {
        match self {
            Self::Limit { refusal, .. } => refusal
                .retry_ns
                .map(|retry_ns| retry_ns.saturating_sub(now_ns).max(1).div_ceil(NS_PER_S)),
            _ => (self.status().0 == 503).then_some(OUTAGE_RETRY_S),
        }
    }

    /// The limits as they stand; empty where none is concerned.
    fn limits(&self, now_ns: u64) -> Vec<LimitStatus> {
        let Self::Limit { limits, .. } = self else {
            return Vec::new();
        };
        let mut limits = limits.at(now_ns, Amount::ZERO);
        // Retry-After must not be earlier than the reset of a limit that was violated.
        for limit in limits.iter_mut().filter(|limit| limit.violated) {
            let wait_s = self.retry_after_s(now_ns).unwrap_or(limit.reset_s);
            limit.reset_s = limit.reset_s.min(wait_s);
        }
        limits
    }

    fn problem(&self, limits: &[LimitStatus]) -> Value {
        let (status, title) = self.status();
        let mut problem = json!({
            "type": "about:blank", "title": title, "status": status,
            "detail": self.detail(), "reason": self.reason(),
        });
        if let (Self::Limit { .. }, Some(members)) = (self, problem.as_object_mut()) {
            let violated: Vec<_> = limits
                .iter()
                .filter(|limit| limit.violated)
                .map(|limit| limit.name.as_str())
                .collect();
            members.insert("type".to_owned(), json!(QUOTA_EXCEEDED));
            members.insert("violated-policies".to_owned(), json!(violated));
        }
        problem
    }

    /// Answers the stream that is effective now: a gRPC caller with a grpc-status.
    pub fn send(&self, now_ns: u64) {
        let limits = self.limits(now_ns);
        let mut headers = vec![(REASON_FIELD, self.reason().to_owned())];
        if let Some(wait_s) = self.retry_after_s(now_ns) {
            headers.push(("retry-after", wait_s.to_string()));
        }
        if !limits.is_empty() {
            headers.push((POLICY_FIELD, rate_limit_fields::policy_value(&limits)));
            headers.push((REMAINING_FIELD, rate_limit_fields::remaining_value(&limits)));
        }
        if is_grpc() {
            let metadata = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
            let message = self.detail();
            let _ = hostcalls::send_grpc_response(self.grpc_status(), Some(&message), metadata);
            return;
        }
        let body = self.problem(&limits).to_string();
        headers.push(("content-type", "application/problem+json".to_owned()));
        let headers = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let _ = hostcalls::send_http_response(self.status().0, headers, Some(body.as_bytes()));
    }
}

fn is_grpc() -> bool {
    hostcalls::get_map_value_bytes(MapType::HttpRequestHeaders, "content-type")
        .ok()
        .flatten()
        .is_some_and(|value| value.starts_with(b"application/grpc"))
}

/// The response header that says why a request was refused, or passed in an outage.
pub const REASON_FIELD: &str = "x-weir-reason";

/// The problem type of RFC 9457's registry for a spent quota.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

const NS_PER_S: u64 = 1_000_000_000;

fn spell(cost: Amount) -> String {
    format!("{} tokens", cost.tokens)
}

impl Limits {
    /// The limits as they stand at `now_ns`, after `spent` more by this worker.
    pub fn at(&self, now_ns: u64, spent: Amount) -> Vec<LimitStatus> {
        let age_s = now_ns.saturating_sub(self.at_ns) / NS_PER_S;
        let aged = |limit: &LimitStatus| LimitStatus {
            remaining: limit.remaining.saturating_sub(match limit.unit {
                weir_domain::limit::Unit::Tokens => spent.tokens,
                weir_domain::limit::Unit::Requests => spent.requests,
            }),
            reset_s: limit.reset_s.saturating_sub(age_s),
            ..limit.clone()
        };
        self.list.iter().map(aged).collect()
    }
}
