//! The Lua script that keeps the buckets, called from Rust.
//!
//! `script/open.lua` documents keys and arguments; each operation's file documents its own.

mod reply;

use std::sync::LazyLock;

use redis::{RedisError, Script, Value};
use weir_domain::{
    bucket::Rate,
    id::TenantId,
    limit::{Limit, Refill, Unit, Window},
    protocol::{LeaseAsk, MAX_TTL_MS},
    quantity::Quantity,
};

use super::link::{Link, Redis, RedisDown};
pub use reply::{Bucket, Decided, Outcome, Reply, State, Wish};

/// The whole script; the operations share its first part.
pub const TEXT: &str = concat!(
    include_str!("script/arithmetic.lua"),
    include_str!("script/open.lua"),
    include_str!("script/ask.lua"),
    include_str!("script/feed.lua"),
    include_str!("script/run.lua"),
);

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(TEXT));

/// A limit, with the period that is passed to the script.
#[derive(Debug, Clone)]
pub struct Placed<'a> {
    pub limit: &'a Limit,
    /// The current period; none for a continuous limit.
    pub window: Option<Window>,
    pub start: Start,
}

/// How a continuous bucket starts that the script does not find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Undecided,
    /// It has never been granted from.
    Full,
    Lost,
}

/// One run of the script.
pub struct Call {
    keys: Vec<String>,
    arguments: Vec<String>,
}

impl Call {
    fn new(
        operation: &str,
        epoch: &str,
        lease_ttl_ms: u64,
        tenant: &TenantId,
        home: &str,
        limits: &[Placed<'_>],
    ) -> Self {
        let mut keys = vec![format!("weir:1:{{{tenant}}}:gateways")];
        let mut arguments = vec![
            operation.to_owned(),
            epoch.to_owned(),
            lease_ttl_ms.to_string(),
            MAX_TTL_MS.to_string(),
            home.to_owned(),
            limits.len().to_string(),
        ];
        for placed in limits {
            keys.push(format!("weir:1:{{{tenant}}}:bucket:{}", placed.limit.name));
            arguments.extend(limit_arguments(placed));
        }
        Self { keys, arguments }
    }

    /// Decides on a lease.
    pub fn ask(place: &Place<'_>, base: &str, caller: (&str, &str), ask: &LeaseAsk) -> Self {
        let (gateway, worker) = caller;
        let mut call = place.call("ask");
        call.keys.push(format!("weir:1:{{{}}}:calls:{gateway}", place.tenant));
        call.arguments.extend([base, gateway, worker].map(str::to_owned));
        call.arguments.push(ask.call.to_string());
        call.arguments.push(ask.stamp.clone());
        for amount in [ask.need, ask.want, ask.spent, ask.refund, ask.owe] {
            call.arguments.extend([amount.tokens, amount.requests].map(|part| part.to_string()));
        }
        call.arguments.push(u8::from(ask.fresh).to_string());
        call
    }

    /// Gives `amount` to the one bucket in `place`, or takes it back where negative.
    pub fn feed(place: &Place<'_>, amount: i64, unclaimed: Quantity) -> Self {
        let mut call = place.call("feed");
        call.arguments.extend([amount.to_string(), unclaimed.to_string()]);
        call
    }

    /// Tops up the one continuous bucket in `place`, or takes from it where negative.
    pub fn adjust(place: &Place<'_>, amount: i64) -> Self {
        let mut call = place.call("adjust");
        call.arguments.push(amount.to_string());
        call
    }

    /// Reads all buckets in `place` and changes none.
    pub fn look(place: &Place<'_>) -> Self {
        place.call("look")
    }
}

/// What every run is told about a tenant.
pub struct Place<'a> {
    pub tenant: &'a TenantId,
    pub epoch: &'a str,
    pub lease_ttl_ms: u64,
    /// The life of the tenant's keys that [`Placed::start`] was decided for.
    pub home: &'a str,
    pub limits: &'a [Placed<'a>],
}

impl Place<'_> {
    fn call(&self, operation: &str) -> Call {
        Call::new(operation, self.epoch, self.lease_ttl_ms, self.tenant, self.home, self.limits)
    }
}

fn limit_arguments(placed: &Placed<'_>) -> [String; 7] {
    let limit = placed.limit;
    let unit = match limit.unit {
        Unit::Tokens => "1",
        Unit::Requests => "2",
    };
    let (kind, first, second) = match (limit.refill, placed.window) {
        (Refill::Continuous { amount, interval_ms }, _) => {
            ("c", amount.to_string(), interval_ms.to_string())
        }
        (Refill::Periodic { .. }, Some(window)) => {
            ("p", window.start_ms.to_string(), window.end_ms.to_string())
        }
        // Holds no moment, so the script asks for another.
        (Refill::Periodic { .. }, None) => ("p", "0".to_owned(), "0".to_owned()),
    };
    let start = match placed.start {
        Start::Undecided => "",
        Start::Full => "full",
        Start::Lost => "lost",
    };
    [
        limit.name.to_string(),
        kind.to_owned(),
        unit.to_owned(),
        limit.capacity.to_string(),
        first,
        second,
        start.to_owned(),
    ]
}

/// Runs `calls` as one pipeline. The time of the answers is noted in `redis`.
pub async fn run(
    redis: &Redis,
    link: &Link,
    calls: &[Call],
) -> Result<Vec<Result<(i64, Reply), RedisError>>, RedisDown> {
    if calls.is_empty() {
        return Ok(Vec::new());
    }
    let mut results = redis.run(link, &pipeline(calls.iter())).await?;
    let unknown = |result: &Result<Value, RedisError>| {
        result.as_ref().is_err_and(|error| error.code() == Some("NOSCRIPT"))
    };
    if results.iter().any(unknown) {
        let mut load = redis::pipe();
        load.cmd("SCRIPT").arg("LOAD").arg(TEXT);
        redis.run(link, &load).await?;
        // Those were not executed, so they can be sent again.
        let again = calls.iter().zip(&results).filter(|(_, result)| unknown(result));
        let mut repeated =
            redis.run(link, &pipeline(again.map(|(call, _)| call))).await?.into_iter();
        for result in results.iter_mut().filter(|result| unknown(result)) {
            if let Some(value) = repeated.next() {
                *result = value;
            }
        }
    }
    if results.len() != calls.len() {
        return Err(RedisDown::new("it answers fewer commands than were sent"));
    }
    Ok(results
        .into_iter()
        .map(|result| {
            let (now_ms, reply) = reply::parse(result?).ok_or((
                redis::ErrorKind::UnexpectedReturnType,
                "the script's answer has an unexpected form",
            ))?;
            redis.note_time(now_ms);
            Ok((now_ms, reply))
        })
        .collect())
}

/// Runs one call.
pub async fn run_one(redis: &Redis, link: &Link, call: Call) -> Result<(i64, Reply), RedisDown> {
    let mut results = run(redis, link, &[call]).await?;
    Ok(results.pop().ok_or_else(|| RedisDown::new("no answer"))??)
}

fn pipeline<'a>(calls: impl Iterator<Item = &'a Call>) -> redis::Pipeline {
    let mut pipeline = redis::pipe();
    pipeline.ignore_errors();
    for call in calls {
        pipeline
            .cmd("EVALSHA")
            .arg(SCRIPT.get_hash())
            .arg(call.keys.len())
            .arg(&call.keys)
            .arg(&call.arguments);
    }
    pipeline
}

/// The rate of a continuous limit.
pub fn rate(limit: &Limit) -> Option<Rate> {
    match limit.refill {
        Refill::Continuous { amount, interval_ms } => Some(Rate { amount, interval_ms }),
        Refill::Periodic { .. } => None,
    }
}

/// A quantity as a signed number, as Postgres and levels have them.
pub fn signed(quantity: Quantity) -> i64 {
    i64::try_from(quantity.get()).unwrap_or(i64::MAX)
}
