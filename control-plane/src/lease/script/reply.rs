//! What the Lua script answers.

use redis::Value;
use weir_domain::{
    bucket::Level,
    quantity::{Amount, Quantity},
};

/// One answer.
#[derive(Debug)]
pub struct Answer {
    /// The script's time, in ms since 1970.
    pub now_ms: i64,
    /// What Redis' own clock showed, in µs.
    pub redis_us: i64,
    pub reply: Reply,
}

/// What the script answered.
#[derive(Debug)]
pub enum Reply {
    /// Redis' clock shows another time than was expected.
    Doubt,
    /// The periods passed do not hold this moment.
    Period,
    /// Whether continuous buckets start full must be decided for `home`.
    Start {
        home: String,
    },
    /// Periodic buckets must be fed first: for each limit, what is missing and what is welcome.
    Claim(Vec<Option<Wish>>),
    /// The need may be in a block on its way; or in Postgres, and nothing may be claimed.
    Unfed,
    Decided(Decided),
    /// What was taken back.
    Fed {
        taken: i64,
    },
    Adjusted(State),
    Look {
        state: State,
        gateways: Vec<(String, Amount)>,
    },
}

/// What a periodic bucket must be fed with before the script can grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    pub least: Quantity,
    pub welcome: Quantity,
}

/// The decision on a lease.
#[derive(Debug)]
pub struct Decided {
    pub outcome: Outcome,
    pub stamp: String,
    pub ttl_ms: u64,
    pub granted: Amount,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Granted,
    Refused,
    /// The same call again: the same answer.
    Replayed,
    /// A later call of this worker has been decided.
    Outdated,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Refused => "refused",
            Self::Replayed => "replayed",
            Self::Outdated => "outdated",
        }
    }
}

/// A tenant's buckets.
#[derive(Debug)]
pub struct State {
    /// What all gateways hold.
    pub held: Amount,
    /// In the order of the limits.
    pub buckets: Vec<Bucket>,
}

#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    /// False for a continuous bucket that is not there, and for a periodic one whose `unclaimed` is not known.
    pub known: bool,
    pub level: Level,
    /// What Postgres has not released yet in this period, or another replica is about to bring.
    pub unclaimed: Quantity,
    /// What the ask had to leave in it for a larger one, which would else be undercut for ever.
    pub spared: Quantity,
}

/// Reads an answer; `None` where it has another form.
pub fn parse(value: Value) -> Option<Answer> {
    let Value::Array(mut values) = value else { return None };
    let Some(Value::Int(redis_us)) = values.pop() else { return None };
    let mut fields = Fields(values.into_iter());
    let kind = fields.text()?;
    let now_ms = fields.number()?;
    let home = fields.text()?;
    let decided = |outcome, mut fields: Fields| {
        Some(Reply::Decided(Decided {
            outcome,
            stamp: fields.text()?,
            ttl_ms: fields.number()?.try_into().ok()?,
            granted: fields.amount()?,
            state: fields.state(usize::MAX)?,
        }))
    };
    let reply = match kind.as_str() {
        "doubt" => Reply::Doubt,
        "period" => Reply::Period,
        "start" => Reply::Start { home },
        "claim" => Reply::Claim(fields.wishes()?),
        "unfed" => Reply::Unfed,
        "granted" => decided(Outcome::Granted, fields)?,
        "refused" => decided(Outcome::Refused, fields)?,
        "replayed" => decided(Outcome::Replayed, fields)?,
        "outdated" => decided(Outcome::Outdated, fields)?,
        "fed" => Reply::Fed { taken: fields.number()? },
        "adjusted" => Reply::Adjusted(fields.state(usize::MAX)?),
        "look" => {
            let limits = fields.number()?.try_into().ok()?;
            Reply::Look { state: fields.state(limits)?, gateways: fields.gateways()? }
        }
        _ => return None,
    };
    Some(Answer { now_ms, redis_us, reply })
}

/// Reads an answer from its start; `None` where it has another form than expected.
struct Fields(std::vec::IntoIter<Value>);

impl Fields {
    fn text(&mut self) -> Option<String> {
        match self.0.next()? {
            Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
            Value::SimpleString(text) => Some(text),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<i64> {
        match self.0.next()? {
            Value::Int(number) => Some(number),
            _ => None,
        }
    }

    fn quantity(&mut self) -> Option<Quantity> {
        Some(Quantity::clamped(u64::try_from(self.number()?).unwrap_or(0)))
    }

    fn amount(&mut self) -> Option<Amount> {
        Some(Amount { tokens: self.quantity()?, requests: self.quantity()? })
    }

    fn wishes(&mut self) -> Option<Vec<Option<Wish>>> {
        let mut wishes = Vec::new();
        while self.0.len() > 0 {
            let wanted = self.number()? == 1;
            let wish = Wish { least: self.quantity()?, welcome: self.quantity()? };
            wishes.push(wanted.then_some(wish));
        }
        Some(wishes)
    }

    /// What `append_buckets` wrote, of at most `limits` buckets.
    fn state(&mut self, limits: usize) -> Option<State> {
        let held = self.amount()?;
        let mut buckets = Vec::new();
        while self.0.len() > 0 && buckets.len() < limits {
            let known = self.number()? == 1;
            let level = Level {
                level: self.number()?,
                fraction: self.number()?.try_into().ok()?,
                at_ms: self.number()?,
            };
            let (unclaimed, spared) = (self.quantity()?, self.quantity()?);
            buckets.push(Bucket { known, level, unclaimed, spared });
        }
        Some(State { held, buckets })
    }

    fn gateways(&mut self) -> Option<Vec<(String, Amount)>> {
        let mut gateways = Vec::new();
        while self.0.len() > 0 {
            gateways.push((self.text()?, self.amount()?));
        }
        Some(gateways)
    }
}
