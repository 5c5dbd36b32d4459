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
    /// The tenant's.
    zone: TimeZone,
    dates: Dates,
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

/// Holds the tenant's row until the end of the transaction: nobody else closes a period of it.
/// Rows that refer to the tenant may still be written.
pub(super) async fn lock(tx: &mut PgConnection, tenant: &TenantId) -> Result<(), Error> {
    sqlx::query!("select id from tenant where id = $1 for no key update", tenant.as_str())
        .fetch_optional(tx)
        .await?
        .map(|_| ())
        .ok_or_else(|| Error::NoTenant(tenant.clone()))
}

/// The first period of the tenant that has no invoice.
pub(super) async fn open(db: &mut PgConnection, tenant: &TenantId) -> Result<OpenPeriod, Error> {
    let row = sqlx::query!(
        r#"select tenant.time_zone, tenant.created_at,
                  last.period_end as "period_end?", last.time_zone as "opened_in?"
           from tenant left join lateral (
             select period_end, time_zone from invoice
             where tenant_id = tenant.id order by period_start desc limit 1
           ) last on true
           where tenant.id = $1"#,
        tenant.as_str(),
    )
    .fetch_optional(&mut *db)
    .await?
    .ok_or_else(|| Error::NoTenant(tenant.clone()))?;
    let zone = zone_named(&row.time_zone)?;
    let start = Quarter::containing(row.period_end.unwrap_or(row.created_at).to_jiff());
    let opened_in = row.opened_in.map_or_else(|| Ok(zone.clone()), |name| zone_named(&name))?;
    let mut stored = dates::read(db, &[(tenant.to_string(), start)]).await?;
    let dates = match stored.remove(tenant.as_str()) {
        Some(dates) => dates?,
        None => Dates::calendar_months(start, &opened_in),
    };
    Ok(OpenPeriod { start, opened_in, zone, dates })
}

impl OpenPeriod {
    /// The period, if nobody ends it before its time.
    pub(super) fn period(&self) -> Result<BillingPeriod, Error> {
        Ok(BillingPeriod::scheduled(
            self.start,
            self.dates.schedule(),
            &self.opened_in,
            &self.zone,
        )?)
    }

    /// The first quarter hour of the period.
    pub(super) fn start(&self) -> Quarter {
        self.start
    }

    /// The period that holds `now`, or the one to come where the last one was ended early.
    pub(super) fn running_at(mut self, now: Timestamp) -> Result<Self, Error> {
        loop {
            let end = self.period()?.end();
            if end > Quarter::containing(now) {
                return Ok(self);
            }
            let dates = self.dates.after(end, &self.zone);
            self = Self { start: end, opened_in: self.zone.clone(), zone: self.zone, dates };
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
