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
    dates::{self, Dates},
};

/// The first period of a tenant that has no invoice.
#[derive(Debug, Clone)]
pub struct OpenPeriod {
    start: Quarter,
    /// The zone in which the period before it ended; the tenant's own for the first one.
    opened_in: TimeZone,
    /// The tenant's, and its name as the operator wrote it.
    zone: TimeZone,
    dates: Dates,
    zone_name: String,
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
    pub(super) time_zone: String,
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
    let opened: Vec<(String, Quarter, Result<OpenPeriod, Error>)> = rows
        .into_iter()
        .map(|row| {
            let start = Quarter::containing(row.period_end.unwrap_or(row.created_at).to_jiff());
            let open = || {
                let zone = zone_named(&row.time_zone)?;
                let opened_in = row.opened_in.as_deref().map_or(Ok(zone.clone()), zone_named)?;
                Ok(OpenPeriod {
                    start,
                    dates: Dates::calendar_months(start, &opened_in),
                    opened_in,
                    zone,
                    zone_name: row.time_zone,
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
        let whole = BillingPeriod::scheduled(
            self.start,
            self.dates.schedule(),
            &self.opened_in,
            &self.zone,
        )?;
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
            time_zone: self.zone_name.clone(),
            is_settled: self.is_settled,
            last: self.last,
            is_after_close: self.is_after_close(),
        }
    }

    /// The one after `period`.
    pub(super) fn after(self, period: BillingPeriod) -> Self {
        let dates = self.dates.after(period.end(), &self.zone);
        Self { start: period.end(), opened_in: self.zone.clone(), dates, ..self }
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

/// A time zone as it is stored.
pub(super) fn zone_named(name: &str) -> Result<TimeZone, Error> {
    TimeZone::get(name).map_err(Error::stored)
}

/// A quarter hour as the database writes it.
pub(super) fn to_sql(quarter: Quarter) -> jiff_sqlx::Timestamp {
    quarter.start().to_sqlx()
}
