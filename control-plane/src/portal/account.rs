//! What the page shows, read in one snapshot so that its numbers agree with each other.

use std::{collections::HashMap, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use sqlx::PgConnection;
use tokio::time::timeout;
use weir_domain::{
    id::TenantId,
    limit::{Period, Refill},
};

use crate::{
    admin::{
        self,
        tenants::{self, AccountState},
    },
    app::App,
    credit_balance::{self, CreditLeft},
    invoice::{
        self, Invoice, InvoiceState,
        preview::{Upcoming, preview_in},
        read::Filter,
    },
    ledger::{self, DayTotal, Totals},
    problem::ApiError,
};

/// The page does not wait longer to learn what is left.
const BUCKETS_TIMEOUT: Duration = Duration::from_secs(3);
/// The most past invoices on the page.
pub(super) const MAX_PAST: i64 = 24;

pub(super) struct Account {
    pub(super) id: TenantId,
    pub(super) name: String,
    pub(super) plan: String,
    pub(super) state: AccountState,
    pub(super) zone: TimeZone,
    pub(super) zone_name: String,
    /// By the database's clock.
    pub(super) now: Timestamp,
    /// `None` while Redis can't be asked.
    pub(super) buckets: Option<Vec<Bucket>>,
    /// Of the current billing period, which is that of `upcoming`.
    pub(super) totals: Totals,
    /// In order, without days on which nothing was used.
    pub(super) days: Vec<DayTotal>,
    /// What the period costs so far.
    pub(super) upcoming: Invoice,
    /// The invoice of the period before it, while it is in grace.
    pub(super) in_grace: Option<Invoice>,
    /// Those of which something is left.
    pub(super) credits: Vec<CreditLeft>,
    /// The latest first, at most one more than [`MAX_PAST`].
    pub(super) past: Vec<Invoice>,
}

/// What is left of a limit.
pub(super) struct Bucket {
    pub(super) bucket: admin::buckets::Bucket,
    /// How it fills again, in words.
    pub(super) refill: String,
}

/// Reads all that the page of `tenant` shows.
pub(super) async fn read(app: &App, tenant: &TenantId) -> Result<Account, ApiError> {
    let mut db = app.db.begin_with("begin isolation level repeatable read, read only").await?;
    let row = sqlx::query!(
        r#"select tenant.name, plan.name as plan, state as "state: AccountState", time_zone, now() as "now!"
           from tenant join plan on plan.id = plan_id where tenant.id = $1"#,
        tenant.as_str(),
    )
    .fetch_one(&mut *db)
    .await?;
    let zone = TimeZone::get(&row.time_zone).map_err(ApiError::internal)?;
    let preview = async |db: &mut PgConnection, which| {
        preview_in(db, tenant, which, app.config.invoice_grace()).await
    };
    let upcoming = preview(&mut db, Upcoming::Current).await?;
    let next = preview(&mut db, Upcoming::Next).await?;
    let in_grace = Some(next).filter(|invoice| invoice.state == InvoiceState::Grace);
    let (from, to) = (upcoming.period_start, upcoming.period_end);
    let totals = ledger::totals(&mut db, tenant, from, to).await?;
    let days = ledger::by_day(&mut db, tenant, from, to, &zone).await?;
    let filter = Filter { tenant: Some(tenant), ..Filter::default() };
    let past = invoice::read::list_in(&mut db, &filter, MAX_PAST + 1).await?;
    let credits = credit_balance::left(&mut db, tenant.as_str(), to).await?;
    drop(db);
    Ok(Account {
        id: tenant.clone(),
        name: row.name,
        plan: row.plan,
        state: row.state,
        zone,
        zone_name: row.time_zone,
        now: row.now.to_jiff(),
        buckets: buckets(app, tenant).await,
        totals,
        days,
        upcoming,
        in_grace,
        credits,
        past,
    })
}

/// What is left of each limit; `None`, and a line in the log, while Redis can't be asked.
async fn buckets(app: &App, tenant: &TenantId) -> Option<Vec<Bucket>> {
    let asked = timeout(BUCKETS_TIMEOUT, ask_buckets(app, tenant));
    match asked.await {
        Ok(Ok(buckets)) => Some(buckets),
        Ok(Err(error)) => {
            tracing::warn!(%tenant, "the portal shows no limits: {error}");
            None
        }
        Err(_) => {
            tracing::warn!(%tenant, "the portal shows no limits: Redis took too long");
            None
        }
    }
}

async fn ask_buckets(app: &App, tenant: &TenantId) -> Result<Vec<Bucket>, ApiError> {
    let known = app.leases.tenants.get(tenant).await?.ok_or_else(|| tenants::unknown(tenant))?;
    let buckets = admin::buckets::buckets(app, &known).await?;
    let refills: HashMap<_, _> =
        known.limits.iter().map(|limit| (limit.name.as_str(), limit.refill)).collect();
    let with_words = |bucket: admin::buckets::Bucket| Bucket {
        refill: refills
            .get(bucket.limit.as_str())
            .map_or_else(String::new, |refill| refill_in_words(*refill)),
        bucket,
    };
    Ok(buckets.into_iter().map(with_words).collect())
}

/// How a limit fills again, in words.
fn refill_in_words(refill: Refill) -> String {
    let every = |period| format!("Refills at the start of each {period}");
    match refill {
        Refill::Continuous { amount, interval_ms } => {
            format!("Refills by {amount} every {}", span(interval_ms))
        }
        Refill::Periodic { period } => match period {
            Period::Hour => every("hour"),
            Period::Day => every("day"),
            Period::Week => every("week"),
            Period::Month => every("month"),
            Period::Year => every("year"),
            Period::EveryMinutes(minutes) => format!("Refills every {minutes} minutes"),
        },
    }
}

/// `1000` is `second`, `1500` is `1500 ms`.
fn span(ms: u64) -> String {
    let units = [(86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1_000, "second")];
    for (length, name) in units {
        if ms == length {
            return name.to_owned();
        }
        if ms > 0 && ms.is_multiple_of(length) {
            return format!("{} {name}s", ms / length);
        }
    }
    format!("{ms} ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refills_are_said_in_words() {
        let amount = weir_domain::quantity::Quantity::from(50);
        let continuous = |interval_ms| refill_in_words(Refill::Continuous { amount, interval_ms });
        assert_eq!(continuous(1_000), "Refills by 50 every second");
        assert_eq!(continuous(90_000), "Refills by 50 every 90 seconds");
        assert_eq!(continuous(120_000), "Refills by 50 every 2 minutes");
        assert_eq!(continuous(250), "Refills by 50 every 250 ms");
        let week = refill_in_words(Refill::Periodic { period: Period::Week });
        assert_eq!(week, "Refills at the start of each week");
    }
}
