//! What a refused client is told: a status, a reason code, problem+json, and when to come back.

use std::{borrow::Cow, sync::Arc};

use serde::Serialize;
use weir_domain::{
    protocol::LimitStatus,
    quantity::Amount,
    rate_limit_fields::{self, POLICY_FIELD, REMAINING_FIELD},
};

use crate::{
    host::{self, GrpcStatus},
    slot,
    stats::Counter,
    tenant::Limits,
};

/// Why a request is refused.
#[derive(Debug, Clone)]
pub enum Refused {
    /// The request says no tenant.
    MissingCredential,
    /// No tenant has this credential.
    UnknownTenant,
    Suspended,
    /// The body of a call of a language model is longer than is read.
    BodyTooLarge,
    /// It is not what it should be; why.
    BodyUnreadable(String),
    /// The rating policy says so, and maybe why.
    PolicyDenied(Option<Arc<str>>),
    /// It failed, or took more than its budget.
    PolicyFailed,
    /// The buckets do not hold the cost.
    Limit(Arc<LimitRefused>),
    /// No lease could be had in time, and the outage contract admits nothing.
    ControlPlaneUnreachable,
    /// Nor one, and grace has nothing left in this second.
    GraceExceeded,
    /// Too much usage waits to be stored to count on.
    UsageUnacknowledged,
    /// Too many requests wait already.
    Overloaded,
    /// The worker that had it panicked.
    WorkerFailed,
}

/// That the buckets do not hold `cost`, and how that is said. It is said alike to all until a number
/// in it changes.
#[derive(Debug)]
pub struct LimitRefused {
    refusal: slot::Refusal,
    cost: Amount,
    limits: Arc<Limits>,
    message: Message,
    until_ns: u64,
}

/// What a client is told.
#[derive(Debug)]
struct Message {
    /// Those of a gRPC answer too.
    headers: Vec<(&'static str, String)>,
    detail: String,
    body: String,
}

/// RFC 9457.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u32,
    detail: &'a str,
    reason: &'a str,
    #[serde(rename = "violated-policies", skip_serializing_if = "Option::is_none")]
    violated_policies: Option<Vec<&'a str>>,
}

const NOTHING_LEFT: &str = "No tokens or requests are left; come back later.";

/// How long a client is asked to wait when only the control plane stands in its way, in s.
const OUTAGE_RETRY_S: u64 = 1;

impl Refused {
    pub fn counter(&self) -> Counter {
        match self {
            Self::MissingCredential => Counter::MissingCredential,
            Self::UnknownTenant => Counter::UnknownTenant,
            Self::Suspended => Counter::Suspended,
            Self::BodyTooLarge => Counter::BodyTooLarge,
            Self::BodyUnreadable(_) => Counter::BodyUnreadable,
            Self::PolicyDenied(_) => Counter::PolicyDenied,
            Self::PolicyFailed => Counter::PolicyFailed,
            Self::Limit(it) if it.is_for_ever() => Counter::CostExceedsCapacity,
            Self::Limit(_) => Counter::LimitExceeded,
            Self::ControlPlaneUnreachable => Counter::ControlPlaneUnreachable,
            Self::GraceExceeded => Counter::GraceExceeded,
            Self::UsageUnacknowledged => Counter::UsageUnacknowledged,
            Self::Overloaded => Counter::Overloaded,
            Self::WorkerFailed => Counter::WorkerFailed,
        }
    }

    /// The code that clients and dashboards see; the same as the stat's name.
    fn reason(&self) -> &'static str {
        match self.counter() {
            Counter::MissingCredential => "missing_credential",
            Counter::UnknownTenant => "unknown_tenant",
            Counter::Suspended => "suspended",
            Counter::BodyTooLarge => "body_too_large",
            Counter::BodyUnreadable => "body_unreadable",
            Counter::PolicyDenied => "policy_denied",
            Counter::PolicyFailed => "policy_failed",
            Counter::CostExceedsCapacity => "cost_exceeds_capacity",
            Counter::LimitExceeded => "limit_exceeded",
            Counter::UsageUnacknowledged => "usage_unacknowledged",
            Counter::Overloaded => "overloaded",
            Counter::GraceExceeded => "grace_exceeded",
            Counter::WorkerFailed => "worker_failed",
            _ => "control_plane_unreachable",
        }
    }

    fn status(&self) -> (u32, &'static str) {
        match self {
            Self::MissingCredential | Self::UnknownTenant => (401, "Unauthorized"),
            Self::Suspended | Self::PolicyDenied(_) => (403, "Forbidden"),
            Self::BodyTooLarge => (413, "Content Too Large"),
            Self::BodyUnreadable(_) => (400, "Bad Request"),
            Self::Limit(_) => (429, "Too Many Requests"),
            Self::ControlPlaneUnreachable
            | Self::PolicyFailed
            | Self::GraceExceeded
            | Self::UsageUnacknowledged
            | Self::Overloaded
            | Self::WorkerFailed => (503, "Service Unavailable"),
        }
    }

    fn detail(&self) -> Cow<'static, str> {
        let detail = match self {
            Self::MissingCredential => "The request does not say which tenant it is of.",
            Self::UnknownTenant => "There is no such tenant.",
            Self::Suspended => "This tenant is suspended; ask the operator of this API.",
            Self::BodyTooLarge => "The body of this call is longer than is metered here.",
            Self::BodyUnreadable(why) => {
                return format!("The body of this call cannot be metered: {why}.").into();
            }
            Self::PolicyDenied(Some(reason)) => return reason.to_string().into(),
            Self::PolicyDenied(None) => {
                "The rating policy of this API does not allow this request."
            }
            Self::PolicyFailed => "Requests like this one cannot be rated at the moment.",
            Self::Limit(_) => NOTHING_LEFT,
            Self::ControlPlaneUnreachable
            | Self::GraceExceeded
            | Self::UsageUnacknowledged
            | Self::WorkerFailed => "Requests cannot be metered at the moment; try again.",
            Self::Overloaded => "Too many requests wait at the moment; try again.",
        };
        Cow::Borrowed(detail)
    }

    fn grpc_status(&self) -> GrpcStatus {
        match self {
            Self::MissingCredential | Self::UnknownTenant => GrpcStatus::Unauthenticated,
            Self::Suspended | Self::PolicyDenied(_) => GrpcStatus::PermissionDenied,
            Self::BodyTooLarge | Self::BodyUnreadable(_) => GrpcStatus::InvalidArgument,
            Self::Limit(_) => GrpcStatus::ResourceExhausted,
            Self::ControlPlaneUnreachable
            | Self::PolicyFailed
            | Self::GraceExceeded
            | Self::UsageUnacknowledged
            | Self::Overloaded
            | Self::WorkerFailed => GrpcStatus::Unavailable,
        }
    }

    /// Answers the stream that is effective now: a gRPC caller with a grpc-status.
    pub fn send(&self) {
        if let Self::Limit(refused) = self {
            return self.say(&refused.message);
        }
        let (status, title) = self.status();
        let mut headers = vec![(REASON_FIELD, self.reason().to_owned())];
        if status == 503 {
            headers.push(("retry-after", OUTAGE_RETRY_S.to_string()));
        }
        let problem = Problem {
            r#type: "about:blank",
            title,
            status,
            detail: &self.detail(),
            reason: self.reason(),
            violated_policies: None,
        };
        let body = problem.to_json();
        self.say(&Message { headers, detail: self.detail().into_owned(), body });
    }

    fn say(&self, message: &Message) {
        let headers = message.headers.iter().map(|(name, value)| (*name, value.as_str()));
        if is_grpc() {
            return host::reply_grpc(self.grpc_status(), &message.detail, headers.collect());
        }
        let headers = headers.chain([("content-type", "application/problem+json")]).collect();
        host::reply(self.status().0, headers, message.body.as_bytes());
    }
}

impl LimitRefused {
    pub fn new(refusal: slot::Refusal, cost: Amount, limits: Arc<Limits>, now_ns: u64) -> Self {
        let message = Message { headers: Vec::new(), detail: String::new(), body: String::new() };
        let mut refused = Self { refusal, cost, limits, message, until_ns: 0 };
        refused.message = refused.message(now_ns);
        refused.until_ns = refused.until_ns(now_ns);
        refused
    }

    /// Whether it is what a request that takes `cost` is told at `now_ns`.
    pub fn is(
        &self,
        refusal: slot::Refusal,
        cost: Amount,
        limits: &Arc<Limits>,
        now_ns: u64,
    ) -> bool {
        now_ns < self.until_ns
            && self.refusal == refusal
            && self.cost == cost
            && Arc::ptr_eq(&self.limits, limits)
    }

    pub fn is_for_ever(&self) -> bool {
        self.refusal.retry_ns.is_none()
    }

    /// In how many seconds to come back; `None` for never.
    fn retry_after_s(&self, now_ns: u64) -> Option<u64> {
        let retry_ns = self.refusal.retry_ns?;
        Some(retry_ns.saturating_sub(now_ns).max(1).div_ceil(NS_PER_S))
    }

    /// When the next number in it changes.
    fn until_ns(&self, now_ns: u64) -> u64 {
        let age_s = now_ns.saturating_sub(self.limits.at_ns) / NS_PER_S;
        let reset_changes_ns = self.limits.at_ns + (age_s + 1) * NS_PER_S;
        let retry_changes_ns = self
            .refusal
            .retry_ns
            .zip(self.retry_after_s(now_ns))
            .map(|(retry_ns, wait_s)| retry_ns.saturating_sub((wait_s - 1) * NS_PER_S));
        retry_changes_ns.map_or(reset_changes_ns, |changes_ns| changes_ns.min(reset_changes_ns))
    }

    /// The limits as they stand.
    fn limits(&self, now_ns: u64) -> Vec<LimitStatus> {
        let mut limits = self.limits.at(now_ns, Amount::ZERO);
        // Retry-After must not be earlier than the reset of a limit that was violated.
        for limit in limits.iter_mut().filter(|limit| limit.violated) {
            let wait_s = self.retry_after_s(now_ns).unwrap_or(limit.reset_s);
            limit.reset_s = limit.reset_s.min(wait_s);
        }
        limits
    }

    fn message(&self, now_ns: u64) -> Message {
        let limits = self.limits(now_ns);
        let reason = if self.is_for_ever() { "cost_exceeds_capacity" } else { "limit_exceeded" };
        let mut headers = vec![(REASON_FIELD, reason.to_owned())];
        if let Some(wait_s) = self.retry_after_s(now_ns) {
            headers.push(("retry-after", wait_s.to_string()));
        }
        if !limits.is_empty() {
            headers.push((POLICY_FIELD, rate_limit_fields::policy_value(&limits)));
            headers.push((REMAINING_FIELD, rate_limit_fields::remaining_value(&limits)));
        }
        let detail = if self.is_for_ever() {
            format!(
                "The request costs {}, more than a limit ever holds; it can never succeed as it is.",
                spell(self.cost)
            )
        } else {
            NOTHING_LEFT.to_owned()
        };
        let violated = limits.iter().filter(|limit| limit.violated);
        let problem = Problem {
            r#type: QUOTA_EXCEEDED,
            title: "Too Many Requests",
            status: 429,
            detail: &detail,
            reason,
            violated_policies: Some(violated.map(|limit| limit.name.as_str()).collect()),
        };
        let body = problem.to_json();
        Message { headers, detail, body }
    }
}

impl Problem<'_> {
    fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn is_grpc() -> bool {
    host::request_header("content-type").is_some_and(|value| value.starts_with(b"application/grpc"))
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
    /// Whether a limit never holds as much as `cost`.
    pub fn are_exceeded_by(&self, cost: Amount) -> bool {
        self.list.iter().any(|limit| match limit.unit {
            weir_domain::limit::Unit::Tokens => cost.tokens > limit.capacity,
            weir_domain::limit::Unit::Requests => cost.requests > limit.capacity,
        })
    }

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
