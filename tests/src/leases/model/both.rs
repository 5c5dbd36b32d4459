//! One tenant twice: its keys in Redis with the script, and the model.

use anyhow::{Context, Result};
use redis::{Script, Value, aio::MultiplexedConnection};
use weir_domain::{
    bucket::Rate,
    id::TenantId,
    lease::{Account, Answer, Blocks, Bucket, Decided, Outcome, Refill},
    limit::Unit,
    protocol::{LeaseAsk, MAX_PERIODIC_TTL_MS, MAX_TTL_MS},
    quantity::Quantity,
};

use crate::leases::SCRIPT;

const TTL_MS: i64 = 200;
/// Small, as the buckets are.
const PARTS: u32 = 2;
pub(super) const PERIOD_MS: i64 = 30_000;
pub(super) const GATEWAYS: u64 = 3;
pub(super) const WORKERS: u64 = 2;

/// Name, kind, unit, capacity, and of continuous ones amount and interval in ms.
pub(super) const LIMITS: [(&str, &str, Unit, u64, u64, u64); 4] = [
    ("rate", "c", Unit::Tokens, 60, 5, 70),
    ("quota", "p", Unit::Tokens, 500, 0, 0),
    ("calls", "c", Unit::Requests, 40, 1, 2_500),
    ("daily", "p", Unit::Requests, 300, 0, 0),
];

/// The script's keys of one tenant, and the model of them.
pub(super) struct Both {
    pub(super) redis: MultiplexedConnection,
    pub(super) script: Script,
    pub(super) tenant: TenantId,
    pub(super) epoch: u64,
    pub(super) now_us: i64,
    pub(super) period_start_ms: i64,
    pub(super) model: Account,
    /// The last ask of each worker, and the stamps that its gateway has seen.
    pub(super) asked: Vec<Option<LeaseAsk>>,
    pub(super) stamps: Vec<Vec<String>>,
    pub(super) calls: u64,
}

fn buckets(now_ms: i64, ends_ms: i64) -> Vec<Bucket> {
    let bucket = |(_, kind, unit, capacity, amount, interval_ms)| {
        let capacity = Quantity::clamped(capacity);
        let rate = Rate { amount: Quantity::clamped(amount), interval_ms };
        let refill = match kind {
            "c" => Refill::Continuous { rate, fraction: 0, at_ms: now_ms },
            _ => {
                let unclaimed = Quantity::ZERO;
                let blocks = Blocks::default();
                Refill::Periodic { ends_ms, unclaimed, known: false, checked_ms: 0, blocks }
            }
        };
        let full = i64::try_from(capacity.get()).unwrap();
        let level = if kind == "c" { full } else { 0 };
        Bucket { unit, capacity, level, refill, spared: Quantity::ZERO }
    };
    LIMITS.map(bucket).to_vec()
}

/// An answer as texts, without the home.
fn texts(answer: Value) -> Result<Vec<String>> {
    let text = |value| match value {
        Value::Int(number) => Ok(number.to_string()),
        Value::BulkString(bytes) => Ok(String::from_utf8(bytes)?),
        other => anyhow::bail!("{other:?}"),
    };
    let Value::Array(values) = answer else { anyhow::bail!("{answer:?}") };
    values.into_iter().map(text).collect()
}

impl Both {
    pub(super) async fn start(
        redis: &MultiplexedConnection,
        run: u64,
        now_us: i64,
    ) -> Result<Self> {
        let period_start_ms = now_us / 1_000 / PERIOD_MS * PERIOD_MS;
        let mut both = Self {
            redis: redis.clone(),
            script: Script::new(SCRIPT),
            tenant: TenantId::new(format!("t{run}"))?,
            epoch: 1,
            now_us,
            period_start_ms,
            model: Account::new(Vec::new(), "", 0, TTL_MS),
            asked: vec![None; usize::try_from(GATEWAYS * WORKERS)?],
            stamps: vec![vec![String::new()]; usize::try_from(GATEWAYS)?],
            calls: 0,
        };
        let (_, home) = both.run("adjust", &[0], ("", ""), &["0".to_owned()]).await?;
        for index in both.continuous() {
            both.run("adjust", &[index], (&home, "full"), &["0".to_owned()]).await?;
        }
        let (buckets, leases) = (buckets(both.now_ms(), both.ends_ms()), Self::leases_of(&home)?);
        both.model = Account::new(buckets, &both.base(), leases, TTL_MS);
        both.model.plenty = PARTS;
        both.model.settle(both.now_ms());
        Ok(both)
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.now_us / 1_000
    }

    pub(super) fn ends_ms(&self) -> i64 {
        self.period_start_ms + PERIOD_MS
    }

    pub(super) fn base(&self) -> String {
        format!("{}-{}", self.epoch, self.period_start_ms)
    }

    /// A home is `<epoch>.<microseconds>`, and its leases are numbered from the latter on.
    pub(super) fn leases_of(home: &str) -> Result<u64> {
        Ok(home.rsplit('.').next().context("no home")?.parse()?)
    }

    pub(super) fn continuous(&self) -> Vec<usize> {
        (0..LIMITS.len()).filter(|index| LIMITS[*index].1 == "c").collect()
    }

    pub(super) fn key(&self, rest: &str) -> String {
        format!("weir:1:{{{}}}:{rest}", self.tenant)
    }

    /// Runs an operation over some limits; the answer without the home, and the home.
    pub(super) async fn run(
        &mut self,
        operation: &str,
        limits: &[usize],
        (home, start): (&str, &str),
        more: &[String],
    ) -> Result<(Vec<String>, String)> {
        let mut call = self.script.prepare_invoke();
        call.key(self.key("gateways")).arg(operation).arg(self.epoch).arg(TTL_MS).arg(MAX_TTL_MS);
        call.arg(MAX_PERIODIC_TTL_MS).arg(PARTS).arg(home).arg(limits.len());
        for index in limits {
            let (name, kind, unit, capacity, amount, interval_ms) = LIMITS[*index];
            call.key(self.key(&format!("bucket:{name}"))).arg(name).arg(kind);
            call.arg(if unit == Unit::Tokens { 1 } else { 2 }).arg(capacity);
            match kind {
                "c" => call.arg(amount).arg(interval_ms),
                _ => call.arg(self.period_start_ms).arg(self.ends_ms()),
            };
            call.arg(start);
        }
        if matches!(operation, "ask" | "take") {
            call.key(self.key(&format!("calls:{}", more[1])));
        }
        for argument in more {
            call.arg(argument);
        }
        // The test turns the clock.
        call.arg(self.now_us).arg("vouched");
        let answer: Value = call.invoke_async(&mut self.redis).await?;
        let mut answer = texts(answer)?;
        let home = answer.remove(2);
        // What Redis' own clock shows.
        answer.pop();
        Ok((answer, home))
    }

    /// What the script appends of the model's buckets.
    pub(super) fn state(&self, limits: &[usize]) -> Vec<String> {
        let held = self.model.held();
        let mut texts = vec![held.tokens.to_string(), held.requests.to_string()];
        for index in limits {
            let bucket = &self.model.buckets()[*index];
            let (known, fraction, at_ms, unclaimed) = match bucket.refill {
                Refill::Continuous { fraction, at_ms, .. } => (true, fraction, at_ms, 0),
                Refill::Periodic { known, unclaimed, blocks, .. } => {
                    let coming = blocks.coming().unsigned_abs();
                    (known, 0, self.now_ms(), unclaimed.get() + coming)
                }
            };
            texts.push(u8::from(known).to_string());
            texts.extend(
                [bucket.level, i64::try_from(fraction).unwrap_or(0), at_ms]
                    .map(|it| it.to_string()),
            );
            texts.extend([unclaimed, bucket.spared.get()].map(|it| it.to_string()));
        }
        texts
    }

    /// The script's answer to what the model answered.
    pub(super) fn expected(&self, answer: &Answer) -> Vec<String> {
        let now = self.now_ms().to_string();
        match answer {
            Answer::Unfed => vec!["unfed".to_owned(), now],
            Answer::Claim(wishes) => {
                let mut texts = vec!["claim".to_owned(), now];
                for wish in wishes {
                    let (least, welcome) = wish.unwrap_or_default();
                    texts.extend(
                        [i64::from(wish.is_some()), least, welcome].map(|it| it.to_string()),
                    );
                }
                texts
            }
            Answer::Decided(Decided { outcome, stamp, ttl_ms, granted }) => {
                let outcome = match outcome {
                    Outcome::Granted => "granted",
                    Outcome::Refused => "refused",
                    Outcome::Replayed => "replayed",
                    Outcome::Outdated => "outdated",
                };
                let mut texts = vec![outcome.to_owned(), now, stamp.clone(), ttl_ms.to_string()];
                texts.extend([granted.tokens, granted.requests].map(|it| it.to_string()));
                texts.extend(self.state(&[0, 1, 2, 3]));
                texts
            }
        }
    }
}
