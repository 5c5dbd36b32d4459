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
    protocol::{LeaseAsk, MAX_PERIODIC_TTL_MS, MAX_TTL_MS, PLENTY},
    quantity::Quantity,
};

use super::link::{Link, Redis, RedisDown};
use reply::Answer;
pub use reply::{Bucket, Decided, Outcome, Reply, State, Wish};

/// The whole script; the operations share its first part.
pub const TEXT: &str = concat!(
    include_str!("script/arithmetic.lua"),
    include_str!("script/open.lua"),
    include_str!("script/ask.lua"),
    include_str!("script/feed.lua"),
    include_str!("script/run.lua"),
);

/// How often a call is sent that Redis does not execute: it must learn the script, and be sure of
/// the time.
const MAX_SENDS: usize = 5;

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

/// What Postgres has released of a period, when it releases a block.
#[derive(Debug, Clone, Copy)]
pub struct Released {
    /// In all, with this block.
    pub claimed: i64,
    /// No block before this one is on its way to Redis.
    pub is_settled: bool,
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
            MAX_PERIODIC_TTL_MS.to_string(),
            PLENTY.to_string(),
            home.to_owned(),
            limits.len().to_string(),
        ];
        for placed in limits {
            keys.push(format!("weir:1:{{{tenant}}}:bucket:{}", placed.limit.name));
            arguments.extend(limit_arguments(placed));
        }
        Self { keys, arguments }
    }

    /// Decides on a lease; without `claims`, with what Redis has.
    pub fn ask(
        place: &Place<'_>,
        base: &str,
        caller: (&str, &str),
        ask: &LeaseAsk,
        claims: bool,
    ) -> Self {
        let (gateway, worker) = caller;
        let mut call = place.call(if claims { "ask" } else { "take" });
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
    pub fn feed(
        place: &Place<'_>,
        amount: i64,
        unclaimed: Quantity,
        released: Option<Released>,
    ) -> Self {
        let mut call = place.call("feed");
        let claimed = released.map_or_else(String::new, |it| it.claimed.to_string());
        let settled = if released.is_some_and(|it| it.is_settled) { "settled" } else { "" };
        call.arguments.extend([amount.to_string(), unclaimed.to_string(), claimed]);
        call.arguments.push(settled.to_owned());
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

/// Runs `calls` as one pipeline. Redis' time in the answers is told to its clock.
pub async fn run(
    redis: &Redis,
    link: &Link,
    calls: &[Call],
) -> Result<Vec<Result<(i64, Reply), RedisError>>, RedisDown> {
    let mut outcomes: Vec<Option<Result<Answer, RedisError>>> =
        calls.iter().map(|_| None).collect();
    for _ in 0..MAX_SENDS {
        let missing = calls.iter().zip(&mut outcomes).filter(|(_, outcome)| outcome.is_none());
        let (unsent, places): (Vec<_>, Vec<_>) = missing.unzip();
        if unsent.is_empty() {
            break;
        }
        redis.refresh_clock(link).await?;
        let sent_us = redis.clock.monotonic_us();
        let results = redis.run(link, &pipeline(redis, &unsent)).await?;
        if results.len() != unsent.len() {
            return Err(RedisDown::new("it answers fewer commands than were sent"));
        }
        let mut knows_script = true;
        for (place, result) in places.into_iter().zip(results) {
            if result.as_ref().is_err_and(|error| error.code() == Some("NOSCRIPT")) {
                knows_script = false;
                continue;
            }
            let answer = result.and_then(answer);
            if let Ok(answer) = &answer {
                redis.clock.hear(answer.redis_us, sent_us).await;
            }
            // One in doubt about the time was not executed, so it can be sent again.
            if !answer.as_ref().is_ok_and(|answer| matches!(answer.reply, Reply::Doubt)) {
                *place = Some(answer);
            }
        }
        if !knows_script {
            let mut load = redis::pipe();
            load.cmd("SCRIPT").arg("LOAD").arg(TEXT);
            redis.run(link, &load).await?;
        }
        if redis.clock.is_doubtful() {
            redis.clock.check(sent_us).await;
        }
    }
    let outcomes: Option<Vec<_>> = outcomes.into_iter().collect();
    let outcomes = outcomes.ok_or_else(|| RedisDown::new("it is too slow to agree on the time"))?;
    Ok(outcomes
        .into_iter()
        .map(|outcome| outcome.map(|answer| (answer.now_ms, answer.reply)))
        .collect())
}

fn answer(value: Value) -> Result<Answer, RedisError> {
    reply::parse(value).ok_or_else(|| {
        let detail = "the script's answer has an unexpected form";
        (redis::ErrorKind::UnexpectedReturnType, detail).into()
    })
}

/// Runs one call.
pub async fn run_one(redis: &Redis, link: &Link, call: Call) -> Result<(i64, Reply), RedisDown> {
    let mut results = run(redis, link, &[call]).await?;
    Ok(results.pop().ok_or_else(|| RedisDown::new("no answer"))??)
}

fn pipeline(redis: &Redis, calls: &[&Call]) -> redis::Pipeline {
    let expected = redis.clock.expected();
    let mut pipeline = redis::pipe();
    pipeline.ignore_errors();
    for call in calls {
        pipeline
            .cmd("EVALSHA")
            .arg(SCRIPT.get_hash())
            .arg(call.keys.len())
            .arg(&call.keys)
            .arg(&call.arguments)
            .arg(expected.time_us)
            .arg(if expected.is_vouched { "vouched" } else { "" });
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
