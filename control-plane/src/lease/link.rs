//! The link to Redis: one multiplexed connection, and which Redis process is at its other end.

use std::{error::Error, sync::Arc, time::Duration};

use redis::{AsyncConnectionConfig, RedisError, Value, aio::MultiplexedConnection};
use sqlx::PgPool;
use thiserror::Error;
use tokio::{sync::Mutex, time::Instant};

use super::clock::Clock;
use crate::problem::ApiError;

/// No command takes longer, and neither does connecting.
const DEADLINE: Duration = Duration::from_secs(1);
/// The longest pause between attempts to connect.
const MAX_BACKOFF: Duration = Duration::from_secs(1);
const FIRST_BACKOFF: Duration = Duration::from_millis(20);

/// Redis does not answer as it should.
#[derive(Debug, Clone, Error)]
#[error("Redis: {0}")]
pub struct RedisDown(Arc<dyn Error + Send + Sync>);

impl RedisDown {
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Arc::from(cause.into()))
    }
}

impl From<RedisError> for RedisDown {
    fn from(error: RedisError) -> Self {
        Self(Arc::new(error))
    }
}

impl From<RedisDown> for ApiError {
    fn from(down: RedisDown) -> Self {
        Self::Unavailable("Redis", Box::new(down))
    }
}

/// Reconnects when it must, and never hides that it did: what runs on one [`Link`] runs in one
/// Redis process, the one that the epoch names.
pub struct Redis {
    client: redis::Client,
    state: Mutex<State>,
    pub clock: Arc<Clock>,
}

#[derive(Default)]
struct State {
    link: Option<Link>,
    /// Counts links, so that only the one that failed is given up.
    opened: u64,
    epoch: Option<Arc<str>>,
    backoff: Option<(Duration, Instant)>,
}

/// An open connection.
#[derive(Clone)]
pub struct Link {
    connection: MultiplexedConnection,
    number: u64,
    /// The `run_id` of the Redis process: another one has other memory.
    pub epoch: Arc<str>,
}

impl Redis {
    /// Redis at `url`; connects when it is first needed. Where its clock is in doubt, that of `db` is
    /// asked.
    pub fn new(url: &str, db: PgPool) -> Result<Self, RedisError> {
        Ok(Self {
            client: redis::Client::open(url)?,
            state: Mutex::default(),
            clock: Arc::new(Clock::new(db)),
        })
    }

    /// The connection, opened if there is none. After a failure the next attempt waits, and until
    /// then this fails at once.
    pub async fn link(&self) -> Result<Link, RedisDown> {
        let mut state = self.state.lock().await;
        if let Some(link) = &state.link {
            return Ok(link.clone());
        }
        if let Some((_, until)) = state.backoff
            && Instant::now() < until
        {
            return Err(RedisDown::new("it could not be reached a moment ago"));
        }
        match tokio::time::timeout(DEADLINE, self.open(state.opened + 1)).await {
            Ok(Ok(link)) => {
                note_link(&mut state, &link);
                Ok(link)
            }
            failed => {
                let wait =
                    state.backoff.map_or(FIRST_BACKOFF, |(wait, _)| (wait * 2).min(MAX_BACKOFF));
                state.backoff = Some((wait, Instant::now() + wait));
                Err(match failed {
                    Ok(Err(error)) => error.into(),
                    _ => RedisDown::new("connecting takes too long"),
                })
            }
        }
    }

    async fn open(&self, number: u64) -> Result<Link, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE));
        let mut connection =
            self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
        let run_id = info
            .lines()
            .find_map(|line| line.strip_prefix("run_id:"))
            .map(str::trim)
            .filter(|run_id| {
                !run_id.is_empty() && run_id.chars().all(|c| c.is_ascii_alphanumeric())
            })
            .ok_or((redis::ErrorKind::UnexpectedReturnType, "INFO server names no run_id"))?;
        self.ask_time(&mut connection).await?;
        Ok(Link { connection, number, epoch: run_id.into() })
    }

    /// Gives `link` up, so that the next call connects afresh.
    pub async fn give_up(&self, link: &Link) {
        let mut state = self.state.lock().await;
        if state.link.as_ref().is_some_and(|current| current.number == link.number) {
            state.link = None;
        }
    }

    /// Runs `pipeline`, whose commands fail one by one. An error of the connection leaves open what
    /// has been executed.
    pub async fn run(
        &self,
        link: &Link,
        pipeline: &redis::Pipeline,
    ) -> Result<Vec<Result<Value, RedisError>>, RedisDown> {
        let mut connection = link.connection.clone();
        let outcome: Result<Vec<Result<Value, RedisError>>, RedisError> =
            pipeline.query_async(&mut connection).await;
        let failure = match &outcome {
            Err(error) => Some(error),
            // A process that is loading, or has become a replica, is not to be used any more.
            Ok(results) => {
                results.iter().filter_map(|result| result.as_ref().err()).find(|error| {
                    matches!(error.code(), Some("READONLY" | "LOADING" | "MASTERDOWN" | "MOVED"))
                })
            }
        };
        if let Some(error) = failure {
            self.give_up(link).await;
            return Err(error.clone().into());
        }
        Ok(outcome?)
    }

    /// Whether Redis answers.
    pub async fn is_up(&self) -> bool {
        let Ok(link) = self.link().await else { return false };
        let mut ping = redis::pipe();
        ping.cmd("PING").ignore_errors();
        self.run(&link, &ping).await.is_ok_and(|answers| answers.iter().all(Result::is_ok))
    }

    /// Has the clock hear Redis' time, if that was long ago.
    pub async fn refresh_clock(&self, link: &Link) -> Result<(), RedisError> {
        if !self.clock.is_stale() {
            return Ok(());
        }
        let asked = self.ask_time(&mut link.connection.clone()).await;
        if asked.is_err() {
            // Nobody has used it for long, and it may be dead since.
            self.give_up(link).await;
        }
        asked
    }

    async fn ask_time(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let sent_us = self.clock.monotonic_us();
        let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(connection).await?;
        self.clock.hear(seconds * 1_000_000 + micros, sent_us).await;
        Ok(())
    }

    /// The time that limits follow, in ms since 1970.
    pub fn now_ms(&self) -> i64 {
        self.clock.expected().time_us / 1_000
    }
}

fn note_link(state: &mut State, link: &Link) {
    if state.opened > 0 {
        metrics::counter!("weir_redis_reconnects_total").increment(1);
    }
    if state.epoch.as_ref().is_some_and(|epoch| *epoch != link.epoch) {
        metrics::counter!("weir_redis_epoch_changes_total").increment(1);
        tracing::warn!("another Redis process answers; what buckets had in the former one is lost");
    }
    state.opened = link.number;
    state.epoch = Some(Arc::clone(&link.epoch));
    state.backoff = None;
    state.link = Some(link.clone());
}
