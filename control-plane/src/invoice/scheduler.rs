//! The task in `weir serve` that makes invoices on time.
//!
//! Billing periods end on quarter hours, so there is nothing new before the next one, plus grace. Which
//! quarter hour was gone through is in Postgres, and so is the lock of the replica that is at it. Both only
//! save work: a replica that dies lets go of the lock, and the next one makes what is missing; two that run
//! at once make each invoice once, as two commands would.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx;
use metrics::{counter, gauge};
use sqlx::{Connection, PgPool};
use tokio::{sync::watch, time::sleep};
use weir_domain::billing_period::Quarter;

use super::{
    Error,
    run::{self, Summary},
};
use crate::config::Config;

/// A wait that was a little too short by Postgres' clock is not repeated at once.
const SLACK: Duration = Duration::from_millis(50);

/// Makes invoices when they are due.
pub struct Scheduler {
    db: PgPool,
    grace: SignedDuration,
    /// How often it looks at least.
    every: Duration,
}

/// How far runs have come, by Postgres.
struct Progress {
    now: Timestamp,
    /// `None` before the first run.
    done_until: Option<Quarter>,
}

impl Scheduler {
    /// `None` where the configuration turns it off.
    pub fn new(db: PgPool, config: &Config) -> Option<Self> {
        let every = Duration::from_millis(config.invoice_every_ms.into());
        (!every.is_zero()).then(|| Self { db, grace: config.invoice_grace(), every })
    }

    /// Works until it is told to stop. A run that is under way then is cut off; the next one goes on.
    pub async fn run(self, mut stopping: watch::Receiver<bool>) {
        loop {
            let turn = async {
                let wait = self.look().await.unwrap_or_else(|error| {
                    counter!("weir_invoice_runs_total", "outcome" => "failed").increment(1);
                    tracing::error!(%error, "invoices could not be made; they are tried again");
                    self.every
                });
                sleep(wait + SLACK).await;
            };
            tokio::select! {
                () = turn => {}
                _ = stopping.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Makes the invoices that are due, unless that was done. How long until it is to look again.
    async fn look(&self) -> Result<Duration, Error> {
        let progress = self.progress().await?;
        let due_by = self.due_by(&progress);
        // Also where it has gone further: by a shorter grace, or a clock that was ahead.
        if progress.done_until != Some(due_by) && !self.make(due_by).await? {
            // Another replica is at it. Should that die, this one takes over.
            return Ok(self.every);
        }
        gauge!("weir_invoice_run_lag_seconds").set(0.0);
        let next = due_by.next().start().checked_add(self.grace).unwrap_or(Timestamp::MAX);
        let wait = Duration::try_from(next.duration_since(progress.now)).unwrap_or_default();
        Ok(wait.min(self.every))
    }

    /// The last quarter hour whose periods are due that ended with its start.
    fn due_by(&self, progress: &Progress) -> Quarter {
        Quarter::containing(progress.now.checked_sub(self.grace).unwrap_or(progress.now))
    }

    async fn progress(&self) -> Result<Progress, Error> {
        let row =
            sqlx::query!(r#"select clock_timestamp() as "now!", done_until from invoice_schedule"#)
                .fetch_one(&self.db)
                .await?;
        let done_until = row.done_until.map(|done| Quarter::containing(done.to_jiff()));
        let progress = Progress { now: row.now.to_jiff(), done_until };
        if let Some(done) = done_until {
            let behind = self.due_by(&progress).start().duration_since(done.start());
            gauge!("weir_invoice_run_lag_seconds").set(behind.as_secs_f64().max(0.0));
        }
        Ok(progress)
    }

    /// Makes the invoices of all periods that ended by `due_by`; false if another replica is doing that.
    async fn make(&self, due_by: Quarter) -> Result<bool, Error> {
        // Out of the pool: the lock ends with the connection, whatever happens here.
        let mut lock = self.db.acquire().await?.detach();
        let locked = sqlx::query_scalar!(r#"select pg_try_advisory_lock(5, 2) as "locked!""#);
        if !locked.fetch_one(&mut lock).await? {
            return Ok(false);
        }
        let began = Instant::now();
        let Summary { tenants, invoices, failed } =
            run::run(&self.db, None, due_by.start(), ProgressBar::hidden()).await?;
        sqlx::query!("update invoice_schedule set done_until = $1", due_by.start().to_sqlx() as _,)
            .execute(&mut lock)
            .await?;
        lock.close().await?;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(ended_by = %due_by.start(), tenants, invoices, failed, took_ms, "invoices made");
        counter!("weir_invoice_runs_total", "outcome" => "done").increment(1);
        counter!("weir_invoices_made_total").increment(invoices);
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        gauge!("weir_invoice_run_failed_tenants").set(failed as f64);
        Ok(true)
    }
}
