//! What a request costs, and under which meter and version of the policy it is counted. Without a
//! policy that is what the configuration says, and nothing is evaluated.

use std::borrow::Cow;

use weir_domain::{
    id::Meter,
    protocol::RatingPolicy,
    quantity::{Amount, Quantity},
};
use weir_policy::{
    Failure, Input, Memo, Place, Policy, Time,
    contract::{Decision, Field},
};

use crate::{
    config::PolicyFailure,
    host::{self, Value},
    llm::call::Asks,
    refusal::Refused,
    slot::Slot,
    stats::Counter,
    tenants::{Index, Tenants},
    worker::Worker,
};

/// What a request takes from the buckets, and how it is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    pub cost: Amount,
    /// Of the policy that said so; 0 without one.
    pub policy_version: u32,
    /// `None` for the default one.
    pub meter: Option<Meter>,
}

/// What comes of rating a request.
#[derive(Debug)]
pub enum Rating {
    Rated(Rate),
    Refused(Refused),
    /// Something that it takes has yet to be heard from the control plane.
    NotYet,
}

/// The policy by which this worker rates requests.
#[derive(Debug, Default)]
pub enum ActivePolicy {
    /// Not heard yet.
    #[default]
    Unknown,
    None,
    Some(Box<Compiled>),
}

#[derive(Debug)]
pub struct Compiled {
    /// As it was told.
    told: RatingPolicy,
    policy: Policy,
    memo: Memo,
    reads_plan: bool,
    /// When a failure was last logged.
    logged_ns: Option<u64>,
}

/// How often failures of a policy are logged, in ns.
const LOG_EVERY_NS: u64 = 1_000_000_000;
const NS_PER_MINUTE: i64 = 60_000_000_000;

impl Rate {
    /// Without a policy.
    pub const fn plain(cost: Amount) -> Self {
        Self { cost, policy_version: 0, meter: None }
    }
}

impl ActivePolicy {
    /// Compiles `policy`; the error says why that does not do.
    pub fn compile(policy: &RatingPolicy) -> Result<Self, String> {
        if policy.version == 0 {
            return Ok(Self::None);
        }
        let compiled = Policy::compile(&policy.source, Place::Edge)
            .map_err(|error| format!("the policy {}, is refused: {error}", named(policy)))?;
        Ok(Self::Some(Box::new(Compiled {
            told: policy.clone(),
            reads_plan: compiled.reads().contains(&Field::Plan),
            memo: Memo::new(compiled.clone()),
            policy: compiled,
            logged_ns: None,
        })))
    }

    /// 0 for none.
    pub fn version(&self) -> Option<u32> {
        match self {
            Self::Unknown => None,
            Self::None => Some(0),
            Self::Some(policy) => Some(policy.told.version),
        }
    }

    /// Whether it is this one. In a database that was restored, a version may have another text.
    fn is(&self, other: &RatingPolicy) -> bool {
        match self {
            Self::Unknown => false,
            Self::None => other.version == 0,
            Self::Some(policy) => policy.told == *other,
        }
    }

    /// Whether slots must say which plans tenants are on.
    pub fn reads_plan(&self) -> bool {
        matches!(self, Self::Some(policy) if policy.reads_plan)
    }
}

impl Compiled {
    fn log(&mut self, failure: &Failure, now_ns: u64) {
        if self.logged_ns.is_none_or(|logged_ns| now_ns - logged_ns >= LOG_EVERY_NS) {
            self.logged_ns = Some(now_ns);
            host::warn(&format!("weir: the policy {}, failed: {failure}", named(&self.told)));
        }
    }
}

impl Worker {
    /// What the request `context` costs without a policy.
    #[inline]
    pub fn plain_rate(&self, context: u32) -> Rate {
        if self.model_calls.is_empty() {
            return Rate::plain(Amount::request(self.config.cost));
        }
        let asks = self.model_calls.get(&context).map(|call| &call.asks);
        Rate::plain(asks.map_or(Amount::request(self.config.cost), Asks::most))
    }

    /// What the request `context` of the tenant at `index` costs. Its stream must be effective.
    #[inline]
    pub fn rate(&mut self, context: u32, index: Index, now_ns: u64) -> Rating {
        let plain = self.plain_rate(context);
        match &self.policy {
            ActivePolicy::None => return Rating::Rated(plain),
            ActivePolicy::Unknown => return Rating::NotYet,
            ActivePolicy::Some(policy) => {
                if let Err(rating) = self.tenants.prepare_rating(index, policy.reads_plan, now_ns) {
                    return rating;
                }
            }
        }
        self.rate_by_policy(context, index, plain.cost, now_ns)
    }

    #[inline(never)]
    fn rate_by_policy(&mut self, context: u32, index: Index, base: Amount, now_ns: u64) -> Rating {
        let asks = self.model_calls.get(&context).map(|call| &call.asks);
        let (ActivePolicy::Some(policy), Some(tenant)) =
            (&mut self.policy, self.tenants.get_mut(index))
        else {
            return Rating::NotYet;
        };
        let read = Read::of(policy.policy.reads());
        let input = Input {
            tenant: Cow::Borrowed(tenant.id.as_str()),
            plan: tenant.plan.as_deref().filter(|plan| !plan.is_empty()).map(Cow::Borrowed),
            time: self.refresher.clock_offset_ns().map(|offset_ns| {
                Time::of_minute(offset_ns.saturating_add_unsigned(now_ns).div_euclid(NS_PER_MINUTE))
            }),
            model: asks.map(|asks| asks.model.as_str()).filter(known).map(Cow::Borrowed),
            prompt_tokens: asks.map(|asks| asks.prompt_tokens.get()),
            max_output_tokens: asks.map(|asks| asks.output_tokens.get()),
            ..read.input()
        };
        match policy.memo.decide(&input) {
            Ok(Decision { allow: true, cost, meter, .. }) => {
                let version = policy.told.version;
                Rating::Rated(rate(base, asks.is_some(), *cost, meter, version))
            }
            Ok(Decision { reason, .. }) => {
                Rating::Refused(Refused::PolicyDenied(reason.as_deref().map(Into::into)))
            }
            Err(failure) => {
                let failure = failure.clone();
                policy.log(&failure, now_ns);
                self.stats.count(Counter::PolicyFailures);
                match self.config.policy_failure {
                    PolicyFailure::Deny => Rating::Refused(Refused::PolicyFailed),
                    PolicyFailure::Allow => Rating::Rated(Rate {
                        policy_version: policy.told.version,
                        ..Rate::plain(base)
                    }),
                }
            }
        }
    }

    /// Rates requests by `policy` from now on. An error leaves all as it was.
    pub fn rate_by(&mut self, policy: &RatingPolicy) -> Result<(), String> {
        if !self.policy.is(policy) {
            self.policy = ActivePolicy::compile(policy)?;
        }
        Ok(())
    }

    /// Whether it takes a call to the control plane to rate requests of the tenant at `index`.
    pub fn must_ask_to_rate(&mut self, index: Index, now_ns: u64) -> bool {
        let reads_plan = self.policy.reads_plan();
        let Some(tenant) = self.tenants.get_mut(index) else {
            return false;
        };
        let slot = Slot::decode(host::read(&tenant.slot_key()).as_deref());
        let is_refused = slot.is_refused(now_ns);
        slot.must_ask
            || (reads_plan && slot.plan.is_none())
            || !(slot.is_live(now_ns) || is_refused)
    }
}

impl Tenants {
    /// Sees to it that what a policy is told of a tenant is known. Who may be a stranger is not rated,
    /// nor who is suspended.
    fn prepare_rating(
        &mut self,
        index: Index,
        reads_plan: bool,
        now_ns: u64,
    ) -> Result<(), Rating> {
        let Some(tenant) = self.get_mut(index) else {
            return Err(Rating::Refused(Refused::UnknownTenant));
        };
        if tenant.is_suspended(now_ns) {
            return Err(Rating::Refused(Refused::Suspended));
        }
        if tenant.proven && (!reads_plan || tenant.plan.is_some()) {
            return Ok(());
        }
        let slot = Slot::decode(host::read(&tenant.slot_key()).as_deref());
        tenant.plan = slot.plan.map(String::into_boxed_str);
        if slot.stamp.is_empty() || (reads_plan && tenant.plan.is_none()) {
            return Err(Rating::NotYet);
        }
        self.prove(index);
        Ok(())
    }
}

/// For the log.
pub fn named(policy: &RatingPolicy) -> String {
    format!("{}, version {}", policy.id, policy.version)
}

fn known(text: &&str) -> bool {
    !text.is_empty()
}

/// A call of a language model counts on the meters of what it takes, and at least as much is reserved as
/// it may take.
fn rate(base: Amount, is_call: bool, cost: Quantity, meter: &Meter, policy_version: u32) -> Rate {
    if is_call {
        let cost = Amount { tokens: base.tokens.max(cost), ..base };
        return Rate { cost, policy_version, meter: None };
    }
    let meter = (!meter.is_default()).then(|| meter.clone());
    Rate { cost: Amount::request(cost), policy_version, meter }
}

/// What a policy reads of a request's headers.
struct Read<'p> {
    fields: &'p [Field],
    /// Of those fields that are headers.
    values: Vec<Option<Value>>,
}

impl<'p> Read<'p> {
    fn of(fields: &'p [Field]) -> Self {
        let names: Vec<&str> = fields.iter().filter_map(header_of).collect();
        Self { fields, values: host::request_headers(&names) }
    }

    fn input(&self) -> Input<'_> {
        let mut input = Input::default();
        let fields = self.fields.iter().filter(|field| header_of(field).is_some());
        for (field, value) in fields.zip(&self.values) {
            // What is no UTF-8 is replaced: a policy reads texts.
            let text = value.as_deref().map(String::from_utf8_lossy);
            match (field, text) {
                (Field::Method, text) => input.method = text.unwrap_or_default(),
                (Field::Path, _) => {
                    let path = value.as_deref().unwrap_or_default();
                    let bare = path.split(|byte| *byte == b'?').next().unwrap_or_default();
                    input.path = String::from_utf8_lossy(bare);
                }
                (Field::Header(name), Some(text)) => {
                    input.headers.insert(Cow::Borrowed(name), text);
                }
                _ => {}
            }
        }
        input
    }
}

/// The header that the field stands for, if it does for one.
fn header_of(field: &Field) -> Option<&str> {
    match field {
        Field::Method => Some(":method"),
        Field::Path => Some(":path"),
        Field::Header(name) => Some(name),
        _ => None,
    }
}
