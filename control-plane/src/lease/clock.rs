//! The clock that limits follow: Redis' time, as long as that goes on evenly.
//!
//! Each process reckons with its own monotonic clock what the time should be, and runs the script
//! with that. What Redis' `TIME` shows corrects it by small steps only, so a jump of Redis' clock, or
//! of this host's wall clock, is no time that has passed. When Redis is out of line, the median of
//! three clocks says who is wrong: this host's wall clock, Postgres' and Redis'.

mod estimate;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use sqlx::PgPool;

use self::estimate::{Clocks, Estimate, Offset, Redis};

/// How long Postgres may take to say the time; a lease may be waiting for it.
const POSTGRES_WITHIN: Duration = Duration::from_millis(300);

/// The time that limits follow, as this process reckons it.
pub struct Clock {
    db: PgPool,
    started: Instant,
    /// None before Redis was first reached.
    estimate: Mutex<Option<Estimate>>,
    /// Held while the other clocks are being asked; when that last began.
    check: tokio::sync::Mutex<Option<i64>>,
}

/// What the script is told about the time.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    pub time_us: i64,
    /// It has been found that Redis' clock is wrong and this one is right.
    pub is_vouched: bool,
}

impl Clock {
    pub fn new(db: PgPool) -> Self {
        Self {
            db,
            started: Instant::now(),
            estimate: Mutex::default(),
            check: tokio::sync::Mutex::default(),
        }
    }

    /// µs of the monotonic clock.
    pub fn monotonic_us(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    /// What the time is now. Before Redis was ever reached it is the wall clock's, which the script
    /// does not follow.
    pub fn expected(&self) -> Expected {
        match &*self.estimate() {
            Some(estimate) => Expected {
                time_us: estimate.time_us(self.monotonic_us()),
                is_vouched: estimate.redis == Redis::Wrong,
            },
            None => Expected { time_us: wall_us(), is_vouched: false },
        }
    }

    /// Whether Redis should be asked for its time before a call that depends on it.
    pub fn is_stale(&self) -> bool {
        let now_us = self.monotonic_us();
        self.estimate().as_ref().is_none_or(|estimate| estimate.is_stale(now_us))
    }

    /// Takes in what Redis' `TIME` showed at some moment since `sent_us` of the monotonic clock. The
    /// first time it is compared with the other clocks at once; later, when it is out of line, they
    /// are asked in the background.
    pub async fn hear(self: &Arc<Self>, redis_us: i64, sent_us: i64) {
        let now_us = self.monotonic_us();
        let redis = Offset::new(redis_us, sent_us, now_us);
        match self.note(redis, now_us) {
            None => self.anchor(redis).await,
            Some(false) => {}
            Some(true) => {
                let clock = Arc::clone(self);
                tokio::spawn(async move { clock.check(now_us).await });
            }
        }
    }

    /// Whether the other clocks should be asked; `None` when there is no estimate yet.
    fn note(&self, redis: Offset, now_us: i64) -> Option<bool> {
        let mut estimate = self.estimate();
        let estimate = estimate.as_mut()?;
        let before = estimate.redis;
        if estimate.hear(redis, now_us) {
            metrics::counter!("weir_redis_clock_jumps_total").increment(1);
            tracing::warn!(
                by_ms = estimate.correction_us() / 1_000,
                "Redis' clock has jumped, and is not followed"
            );
        } else if before == Redis::Wrong && estimate.redis == Redis::InLine {
            tracing::info!("Redis' clock is in line again");
        }
        Some(estimate.wants_check(now_us))
    }

    async fn anchor(&self, redis: Offset) {
        let postgres = self.postgres().await;
        let first =
            Estimate::first(Clocks { own: self.own(), redis, postgres }, self.monotonic_us());
        if first.redis == Redis::Wrong {
            metrics::counter!("weir_redis_clock_jumps_total").increment(1);
            tracing::warn!(
                by_ms = first.correction_us() / 1_000,
                "Redis' clock is wrong by those of Postgres and this host, and is not followed"
            );
        }
        self.estimate().get_or_insert(first);
    }

    /// Whether the other clocks must be asked before this one is used.
    pub fn is_doubtful(&self) -> bool {
        self.estimate().as_ref().is_some_and(|estimate| estimate.redis == Redis::Doubtful)
    }

    /// Asks the other clocks, unless that was done since `since_us` of the monotonic clock.
    pub async fn check(&self, since_us: i64) {
        let mut begun = self.check.lock().await;
        if begun.is_some_and(|begun| begun >= since_us) {
            return;
        }
        *begun = Some(self.monotonic_us());
        let postgres = self.postgres().await;
        let own = self.own();
        let now_us = self.monotonic_us();
        let set =
            self.estimate().as_mut().and_then(|estimate| estimate.check(own, postgres, now_us));
        if let Some(set_us) = set {
            let set_ms = set_us / 1_000;
            tracing::warn!(set_ms, "the time was set: two of three clocks say so");
        }
    }

    fn own(&self) -> Offset {
        let sent_us = self.monotonic_us();
        Offset::new(wall_us(), sent_us, self.monotonic_us())
    }

    async fn postgres(&self) -> Option<Offset> {
        let ask = async {
            let mut connection = self.db.acquire().await?;
            let sent_us = self.monotonic_us();
            let postgres_us = sqlx::query_scalar!(
                r#"select (extract(epoch from clock_timestamp()) * 1000000)::bigint as "us!""#
            )
            .fetch_one(&mut *connection)
            .await?;
            Ok::<_, sqlx::Error>(Offset::new(postgres_us, sent_us, self.monotonic_us()))
        };
        match tokio::time::timeout(POSTGRES_WITHIN, ask).await {
            Ok(Ok(offset)) => Some(offset),
            Ok(Err(error)) => {
                tracing::warn!(%error, "Postgres cannot be asked for the time");
                None
            }
            Err(_) => None,
        }
    }

    fn estimate(&self) -> MutexGuard<'_, Option<Estimate>> {
        self.estimate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wall_us() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX)
}
