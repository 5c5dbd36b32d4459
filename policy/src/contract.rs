//! What a policy may read, and what it says. `policy/contract.schema.json` is the same as a JSON Schema.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use weir_domain::{id::Meter, quantity::Quantity};

/// The package that a policy must declare.
pub const PACKAGE: &str = "weir.rating";

/// A request, as a policy sees it: the document `input`. What is not known is undefined there.
///
/// A policy names each part that it reads (`input.path`, `input.headers["x-tier"]`), so that what it
/// says can be kept for the next request that has the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Input<'a> {
    pub tenant: Cow<'a, str>,
    /// The plan that the tenant is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Cow<'a, str>>,
    /// In capital letters, such as `GET`.
    pub method: Cow<'a, str>,
    /// Without the query.
    pub path: Cow<'a, str>,
    /// Of the language model that is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Cow<'a, str>>,
    /// How long the prompt is, in the model's tokens; an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u64>,
    /// The most that the model may answer, in its tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    /// By their names in lower case; those that the policy names are enough.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// When the request came, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// 0 to 23.
    pub hour: u8,
    /// 1 for Monday to 7 for Sunday.
    pub weekday: u8,
}

impl Time {
    /// The time so many minutes after 1970-01-01T00:00Z, a Thursday.
    pub fn of_minute(minute: i64) -> Self {
        let small = |number: i64| u8::try_from(number).unwrap_or_default();
        Self {
            hour: small(minute.div_euclid(60).rem_euclid(24)),
            weekday: small((minute.div_euclid(24 * 60) + 3).rem_euclid(7) + 1),
        }
    }
}

/// What a tenant has left, as `data.buckets[input.tenant]`, in the control plane only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buckets {
    /// Undefined without a limit in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Quantity>,
    /// Undefined without a limit in requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<Quantity>,
}

/// What a policy says of a request, by its rules of these names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The rule `allow`, true or false; a policy whose `allow` is undefined denies.
    pub allow: bool,
    /// The rule `cost`, in tokens; 1 in a policy without that rule. 0 where denied.
    pub cost: Quantity,
    /// The rule `meter`; `default` in a policy without that rule, or where denied.
    pub meter: Meter,
    /// The rule `reason`: for the client that is denied, at most [`MAX_REASON`] characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The longest reason, in characters.
pub const MAX_REASON: usize = 200;

/// The rules that make up a [`Decision`].
pub(crate) const OUTPUTS: [&str; 4] = ["allow", "cost", "meter", "reason"];

/// One part of the input.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    Tenant,
    Plan,
    Method,
    Path,
    Model,
    PromptTokens,
    MaxOutputTokens,
    Hour,
    Weekday,
    /// By its name in lower case.
    Header(String),
}

impl fmt::Display for Field {
    /// As a policy names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant => f.write_str("input.tenant"),
            Self::Plan => f.write_str("input.plan"),
            Self::Method => f.write_str("input.method"),
            Self::Path => f.write_str("input.path"),
            Self::Model => f.write_str("input.model"),
            Self::PromptTokens => f.write_str("input.prompt_tokens"),
            Self::MaxOutputTokens => f.write_str("input.max_output_tokens"),
            Self::Hour => f.write_str("input.time.hour"),
            Self::Weekday => f.write_str("input.time.weekday"),
            Self::Header(name) => write!(f, "input.headers[{name:?}]"),
        }
    }
}

impl Field {
    /// The part named `input.<name>`, where that is a value and has no parts itself.
    pub(crate) fn simple(name: &str) -> Option<Self> {
        Some(match name {
            "tenant" => Self::Tenant,
            "plan" => Self::Plan,
            "method" => Self::Method,
            "path" => Self::Path,
            "model" => Self::Model,
            "prompt_tokens" => Self::PromptTokens,
            "max_output_tokens" => Self::MaxOutputTokens,
            _ => return None,
        })
    }

    /// The part named `input.time.<name>`.
    pub(crate) fn time(name: &str) -> Option<Self> {
        match name {
            "hour" => Some(Self::Hour),
            "weekday" => Some(Self::Weekday),
            _ => None,
        }
    }

    /// What `input` has there.
    pub(crate) fn of<'i>(&self, input: &'i Input<'_>) -> Option<Part<'i>> {
        let text = |text: &'i Cow<'_, str>| Part::Text(text);
        match self {
            Self::Tenant => Some(Part::Text(&input.tenant)),
            Self::Plan => input.plan.as_ref().map(text),
            Self::Method => Some(Part::Text(&input.method)),
            Self::Path => Some(Part::Text(&input.path)),
            Self::Model => input.model.as_ref().map(text),
            Self::PromptTokens => input.prompt_tokens.map(Part::Number),
            Self::MaxOutputTokens => input.max_output_tokens.map(Part::Number),
            Self::Hour => input.time.map(|time| Part::Number(time.hour.into())),
            Self::Weekday => input.time.map(|time| Part::Number(time.weekday.into())),
            Self::Header(name) => input.headers.get(name.as_str()).map(text),
        }
    }
}

/// The value of a [`Field`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part<'i> {
    Text(&'i str),
    Number(u64),
}
