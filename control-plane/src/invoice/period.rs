//! Which billing period of a tenant is open.

use jiff::{Timestamp, tz::TimeZone};
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use weir_domain::{
    billing_period::{BillingPeriod, Quarter},
    id::TenantId,
};

use super::{
    Error,
    calendar::{self, Calendar, Zone},
    dates::{self, Dates},
};

/// The first period of a tenant that has no invoice.
#[derive(Debug, Clone)]
pub struct OpenPeriod {
    start: Quarter,
    /// The zone in which the period before it ended; its own for the first one.
    opened_in: TimeZone,
    calendar: Calendar,
    dates: Dates,
    is_settled: bool,
    /// The invoice of the period before it.
    last: Option<i64>,
    /// From when the tenant is gone.
    closed_at: Option<Quarter>,
}

/// A period of a tenant whose invoice is to be drawn up, with all before it closed.
#[derive(Debug, Clone)]
pub(super) struct Due {
    pub(super) tenant: TenantId,
    pub(super) period: BillingPeriod,
    /// Whose calendar said when the period ends.
    pub(super) time_zone: Zone,
    /// Whether all usage of the closed periods that came since is in `usage_late`: their last invoice
    /// was made long enough after their end.
    pub(super) is_settled: bool,
    /// The tenant's last invoice: while it is that, nobody has closed or reopened a period.
    pub(super) last: Option<i64>,
    /// Whether the tenant was gone before it: then only usage is charged, and nothing makes no invoice.
    pub(super) is_after_close: bool,
}

/// The billing period in which the tenant is at this moment, whether or not those before it have
/// their invoices.
pub async fn current(db: &mut PgConnection, tenant: &TenantId) -> Result<BillingPeriod, Error> {
    let now = now(db).await?;
    open(db, tenant).await?.running_at(now)?.period()
}

/// When the tenant's next billing period starts: where the current one was ended early, that is not over yet
/// and has its invoice.
pub async fn next_start(db: &mut PgConnection, tenant: &TenantId) -> Result<Timestamp, Error> {
    let now = now(db).await?;
    let open = open(db, tenant).await?.running_at(now)?;
    let is_to_come = open.start() > Quarter::containing(now);
    let next = if is_to_come { open.start() } else { open.period()?.end() };
    Ok(next.start())
}

/// The time by Postgres' clock, which is the same for all replicas.
pub(super) async fn now(db: &mut PgConnection) -> Result<Timestamp, Error> {
    let now = sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(db).await?;
    Ok(now.to_jiff())
}

/// Holds the tenants' rows until the end of the transaction: nobody else closes a period of them. Rows that
/// refer to a tenant may still be written. In the order of their ids, so that two who do it can't deadlock.
pub(super) async fn lock_all(tx: &mut PgConnection, tenants: &[String]) -> Result<(), Error> {
    sqlx::query_scalar!(
        "select id from tenant where id = any($1) order by id for no key update",
        tenants,
    )
    .fetch_all(tx)
    .await?;
    Ok(())
}

/// The first period of the tenant that has no invoice.
pub(super) async fn open(db: &mut PgConnection, tenant: &TenantId) -> Result<OpenPeriod, Error> {
    let found = open_after(db, Some(tenant), "", 1).await?.pop();
    found.ok_or_else(|| Error::NoTenant(tenant.clone()))?.1
}

/// The same for `only` one tenant, or for the first `limit` of those whose ids come after `after`. What
/// is stored for one of them and can't be read is an error in its place.
pub(super) async fn open_after(
    db: &mut PgConnection,
    only: Option<&TenantId>,
    after: &str,
    limit: i64,
) -> Result<Vec<(String, Result<OpenPeriod, Error>)>, Error> {
    let rows = sqlx::query!(
        r#"select tenant.id, tenant.time_zone, tenant.created_at, tenant.closed_at,
                  last.id as "last?", last.period_end as "period_end?", last.time_zone as "opened_in?",
                  coalesce(last.usage_read_at >= last.period_end + interval '5 minutes', true) as "is_settled!"
           from tenant left join lateral (
             select id, period_end, time_zone, usage_read_at from invoice
             where tenant_id = tenant.id and not rebilled order by period_start desc limit 1
           ) last on true
           where ($1::text is null or tenant.id = $1) and tenant.id > $2
           order by tenant.id limit $3"#,
        only.map(TenantId::as_str),
        after,
        limit,
    )
    .fetch_all(&mut *db)
    .await?;
    let own: Vec<_> = rows.iter().map(|row| (row.id.clone(), row.time_zone.clone())).collect();
    let mut calendars = calendar::read(db, &own).await?;
    let opened: Vec<(String, Quarter, Result<OpenPeriod, Error>)> = rows
        .into_iter()
        .map(|row| {
            let start = Quarter::containing(row.period_end.unwrap_or(row.created_at).to_jiff());
            let calendar = calendars.remove(&row.id);
            let open = || {
                let calendar = calendar.ok_or_else(|| Error::stored("no time zone"))??;
                let opened_in = match row.opened_in {
                    Some(name) => Zone::named(name)?.zone,
                    None => calendar.zone(start).zone.clone(),
                };
                Ok(OpenPeriod {
                    start,
                    dates: Dates::calendar_months(start, &opened_in),
                    opened_in,
                    calendar,
                    is_settled: row.is_settled,
                    last: row.last,
                    closed_at: row.closed_at.map(|at| Quarter::containing(at.to_jiff())),
                })
            };
            (row.id, start, open())
        })
        .collect();
    let starts: Vec<_> = opened.iter().map(|(id, start, _)| (id.clone(), *start)).collect();
    let mut stored = dates::read(db, &starts).await?;
    Ok(opened
        .into_iter()
        .map(|(id, _, open)| {
            let open = match stored.remove(&id) {
                Some(dates) => open.and_then(|open| Ok(OpenPeriod { dates: dates?, ..open })),
                None => open,
            };
            (id, open)
        })
        .collect())
}

impl OpenPeriod {
    /// The period, if nobody ends it before its time. It ends when the tenant is closed.
    pub(super) fn period(&self) -> Result<BillingPeriod, Error> {
        let zone = &self.calendar.zone(self.start).zone;
        let whole = match self.calendar.billed_end(self.start) {
            Some(end) => BillingPeriod::new(self.start, end)?,
            None => {
                BillingPeriod::scheduled(self.start, self.dates.schedule(), &self.opened_in, zone)?
            }
        };
        match self.closed_at {
            Some(end) if self.start < end && end < whole.end() => {
                Ok(BillingPeriod::new(self.start, end)?)
            }
            _ => Ok(whole),
        }
    }

    /// The period to be invoiced at `now`; `None` while it goes on. After the tenant is closed, all
    /// that have ended are one.
    pub(super) fn ended_by(&self, now: Quarter) -> Result<Option<BillingPeriod>, Error> {
        let mut period = self.period()?;
        if period.end() > now {
            return Ok(None);
        }
        let mut open = self.clone();
        while self.is_after_close() {
            open = open.after(period);
            let next = open.period()?;
            if next.end() > now {
                break;
            }
            period = BillingPeriod::new(self.start, next.end())?;
        }
        Ok(Some(period))
    }

    /// Whether the tenant was gone before it.
    pub(super) fn is_after_close(&self) -> bool {
        self.closed_at.is_some_and(|end| end <= self.start)
    }

    /// The first quarter hour of the period.
    pub(super) fn start(&self) -> Quarter {
        self.start
    }

    /// `period`, or another end of it, as what is to be drawn up for `tenant`.
    pub(super) fn due(&self, tenant: TenantId, period: BillingPeriod) -> Due {
        Due {
            tenant,
            period,
            time_zone: self.calendar.zone(self.start).clone(),
            is_settled: self.is_settled,
            last: self.last,
            is_after_close: self.is_after_close(),
        }
    }

    /// The one after `period`.
    pub(super) fn after(self, period: BillingPeriod) -> Self {
        let opened_in = self.calendar.zone(self.start).zone.clone();
        let dates = self.dates.after(period.end(), &opened_in);
        Self { start: period.end(), opened_in, dates, ..self }
    }

    /// The period that holds `now`, or the one to come where the last one was ended early.
    pub(super) fn running_at(mut self, now: Timestamp) -> Result<Self, Error> {
        loop {
            let period = self.period()?;
            if period.end() > Quarter::containing(now) {
                return Ok(self);
            }
            self = self.after(period);
        }
    }
}

/// A quarter hour as the database writes it.
pub(super) fn to_sql(quarter: Quarter) -> jiff_sqlx::Timestamp {
    quarter.start().to_sqlx()
}
