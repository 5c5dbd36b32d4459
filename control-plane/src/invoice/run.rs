//! The invoices of all billing periods that have ended: `weir invoice run`, and the scheduler.
//!
//! Tenants are taken in waves, and those of a wave that are behind by several periods in rounds of one
//! period each. A round sums the usage of all its tenants up in one pass over the rollup, and closes
//! their periods in small transactions, several at once. What it has read before is still true when a
//! period is closed if the period is still the tenant's first without an invoice.

use std::{collections::HashSet, mem};

use indicatif::{ProgressBar, ProgressStyle};
use jiff::{SignedDuration, Timestamp};
use sqlx::{PgConnection, PgPool};
use tokio::task::JoinSet;
use weir_domain::{billing_period::Quarter, id::TenantId};

use super::{
    Error,
    close::{self, Closed},
    draft::{self, Input},
    late,
    period::{self, Due},
    usage::{self, QuantityRow},
};

/// How many tenants are read at once: a round holds about a kilobyte of each in memory.
const WAVE: i64 = 200_000;
/// How many periods one transaction closes.
const CHUNK: usize = 1_000;
/// How many such transactions there are at once, each on a connection of its own.
const WRITERS: usize = 2;

/// What a run has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    pub tenants: u64,
    pub invoices: u64,
    /// Tenants whose invoices could not be computed; the log says why.
    pub failed: u64,
}

/// The time by which a period has ended whose invoice is made at `as_of`, which is now by Postgres' clock
/// unless said otherwise: `grace` before it.
pub async fn due_by(
    db: &PgPool,
    as_of: Option<Timestamp>,
    grace: SignedDuration,
) -> Result<Timestamp, Error> {
    let as_of = match as_of {
        Some(as_of) => as_of,
        None => period::now(&mut *db.acquire().await?).await?,
    };
    Ok(as_of.checked_sub(grace).unwrap_or(Timestamp::MIN))
}

/// Makes the invoices of all periods that ended by `ended_by` and have none: of `only` one tenant, or of
/// all. To run it again, or twice at once, changes nothing. `bar` is drawn meanwhile.
///
/// A tenant whose invoice can't be computed is logged and counted, and the others go on. Ends with an
/// error where Postgres does: what is made by then is made.
pub async fn run(
    db: &PgPool,
    only: Option<&TenantId>,
    ended_by: Timestamp,
    bar: ProgressBar,
) -> Result<Summary, Error> {
    if let Some(tenant) = only {
        let mut invoices = 0;
        while close::close_ended(db, tenant, ended_by).await?.is_some() {
            invoices += 1;
        }
        return Ok(Summary { tenants: 1, invoices, failed: 0 });
    }
    let total = sqlx::query_scalar!(r#"select count(*) as "count!" from tenant"#);
    bar.set_length(u64::try_from(total.fetch_one(db).await?).unwrap_or(0));
    let mut run =
        Run { db, ended_by, summary: Summary::default(), failed: HashSet::new(), stale: 0, bar };
    let mut after = String::new();
    while let Some(last) = run.wave(&after).await? {
        after = last;
    }
    run.bar.finish_and_clear();
    Ok(run.summary)
}

struct Run<'a> {
    db: &'a PgPool,
    ended_by: Timestamp,
    summary: Summary,
    /// Tenants of this wave that failed.
    failed: HashSet<String>,
    /// How many periods of this round were out of date when they were to be closed.
    stale: u64,
    bar: ProgressBar,
}

/// The periods of a wave that have ended, one of each tenant.
#[derive(Default)]
struct Ended {
    due: Vec<Due>,
    /// Whether a tenant has one more.
    more: bool,
    /// How many tenants were looked at, and the last of them.
    tenants: u64,
    last: Option<String>,
}

impl Run<'_> {
    /// Makes all invoices of the tenants that come after `after`, up to the one that it returns; `None`
    /// without any.
    async fn wave(&mut self, after: &str) -> Result<Option<String>, Error> {
        self.failed.clear();
        let mut is_first = true;
        loop {
            let (mut reader, read_at) = late::snapshot(self.db).await?;
            let Ended { due, more, tenants, last } = self.ended(&mut reader, after).await?;
            if mem::take(&mut is_first) {
                self.summary.tenants += tenants;
                self.bar.inc(tenants.saturating_sub(due.len() as u64));
            }
            let inputs = draft::gather(&mut reader, due, read_at).await?;
            let sums = usage::rolled_up(&mut reader, &inputs).await?;
            reader.commit().await?;
            self.round(inputs, sums, read_at).await?;
            // What was out of date is looked at again: another run may have closed it, or else it is due.
            if mem::take(&mut self.stale) == 0 && !more {
                return Ok(last);
            }
        }
    }

    async fn ended(&mut self, reader: &mut PgConnection, after: &str) -> Result<Ended, Error> {
        let tenants = period::open_after(reader, None, after, WAVE).await?;
        let mut ended = Ended { tenants: tenants.len() as u64, ..Ended::default() };
        ended.last = tenants.last().map(|(id, _)| id.clone());
        let now = Quarter::containing(self.ended_by);
        for (id, open) in tenants {
            let due = || {
                let open = open?;
                let Some(period) = open.ended_by(now)? else { return Ok(None) };
                let due = open.due(TenantId::new(id.clone()).map_err(Error::stored)?, period);
                Ok(Some((due, open.after(period).period()?.end() <= now)))
            };
            if self.failed.contains(&id) {
                continue;
            }
            match due() {
                Ok(None) => {}
                Ok(Some((due, more))) => {
                    ended.due.push(due);
                    ended.more |= more;
                }
                Err(error) => self.fail(&id, &error),
            }
        }
        Ok(ended)
    }

    /// Closes one period of each tenant.
    async fn round(
        &mut self,
        inputs: Vec<Input>,
        sums: Vec<Vec<QuantityRow>>,
        read_at: Timestamp,
    ) -> Result<(), Error> {
        let mut writers = JoinSet::new();
        let mut chunk = Vec::with_capacity(CHUNK);
        for (input, quantities) in inputs.into_iter().zip(sums) {
            let tenant = input.due.tenant.clone();
            match input.draw_up(quantities) {
                Ok(draft) => chunk.push(draft),
                Err(error) => self.fail(tenant.as_str(), &error),
            }
            if chunk.len() == CHUNK {
                self.leave_at_most(WRITERS - 1, &mut writers).await?;
                writers.spawn(close::close_drawn_up(
                    self.db.clone(),
                    mem::take(&mut chunk),
                    read_at,
                ));
            }
        }
        if !chunk.is_empty() {
            writers.spawn(close::close_drawn_up(self.db.clone(), chunk, read_at));
        }
        self.leave_at_most(0, &mut writers).await
    }

    /// Waits until no more than `count` chunks are being written.
    async fn leave_at_most(
        &mut self,
        count: usize,
        writers: &mut JoinSet<Result<Closed, Error>>,
    ) -> Result<(), Error> {
        while writers.len() > count {
            let Some(written) = writers.join_next().await else { break };
            let Closed { made, of, stale } = written.map_err(Error::stored)??;
            self.stale += stale;
            self.summary.invoices += made;
            self.bar.set_message(format!("{} invoices", self.summary.invoices));
            self.bar.inc(of.saturating_sub(stale));
        }
        Ok(())
    }

    fn fail(&mut self, tenant: &str, error: &Error) {
        tracing::error!(tenant, %error, "the invoice can't be made");
        self.failed.insert(tenant.to_owned());
        self.summary.failed += 1;
    }
}

/// For a run of the command: drawn on a terminal, and nowhere else.
pub fn progress() -> ProgressBar {
    let bar = ProgressBar::new(0);
    match ProgressStyle::with_template("{bar:40} {pos}/{len} tenants, {msg}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
