//! On which dates the periods of a tenant end: the cadence of a period is that of the terms in force at
//! its start, and its dates count from the first period of that cadence. Both are read from terms and
//! invoices, so that nothing else must be kept true.

use std::collections::HashMap;

use jiff::tz::TimeZone;
use sqlx::{PgConnection, types::Json};
use weir_domain::billing_period::{Cadence, Quarter, Schedule};

use super::{Error, calendar::Zone};

/// The dates of a tenant's first open period and of those after it.
#[derive(Debug, Clone)]
pub(super) struct Dates {
    /// Of the first open period.
    schedule: Schedule,
    /// What the tenant's terms say, and from when, in their order.
    cadences: Vec<(Quarter, Cadence)>,
}

impl Dates {
    /// Those of a tenant whose terms never said anything else.
    pub(super) fn calendar_months(start: Quarter, zone: &TimeZone) -> Self {
        let schedule = Schedule::since(Cadence::CalendarMonth, start, zone);
        Self { schedule, cadences: Vec::new() }
    }

    pub(super) fn schedule(&self) -> Schedule {
        self.schedule
    }

    /// Those from `start` on, where the first open period has ended in `zone`.
    pub(super) fn after(self, start: Quarter, zone: &TimeZone) -> Self {
        let cadence = cadence_at(&self.cadences, start);
        if cadence == self.schedule.cadence() {
            return self;
        }
        Self { schedule: Schedule::since(cadence, start, zone), ..self }
    }
}

/// That of the last terms by then. A tenant's first terms also hold for what lies before them.
fn cadence_at(cadences: &[(Quarter, Cadence)], start: Quarter) -> Cadence {
    let last = cadences.iter().rev().find(|(from, _)| *from <= start);
    last.or(cadences.first()).map_or_else(Cadence::default, |(_, cadence)| *cadence)
}

/// The dates of tenants whose first open periods start then, by their ids; without those who never had
/// anything but calendar months. What is stored for one and can't be read is an error in its place.
pub(super) async fn read(
    db: &mut PgConnection,
    open: &[(String, Quarter)],
) -> Result<HashMap<String, Result<Dates, Error>>, Error> {
    let mut cadences = cadences(db, open).await?;
    if cadences.is_empty() {
        return Ok(HashMap::new());
    }
    let current: Vec<(String, Cadence)> = open
        .iter()
        .filter_map(|(tenant, start)| {
            Some((tenant.clone(), cadence_at(cadences.get(tenant)?, *start)))
        })
        .collect();
    let schedules = schedules(db, &current).await?;
    Ok(schedules
        .into_iter()
        .map(|(tenant, schedule)| {
            let cadences = cadences.remove(&tenant).unwrap_or_default();
            (tenant, schedule.map(|schedule| Dates { schedule, cadences }))
        })
        .collect())
}

async fn cadences(
    db: &mut PgConnection,
    open: &[(String, Quarter)],
) -> Result<HashMap<String, Vec<(Quarter, Cadence)>>, Error> {
    let tenants: Vec<&str> = open.iter().map(|(tenant, _)| tenant.as_str()).collect();
    let rows = sqlx::query!(
        r#"select tenant_id as "tenant_id!", starts_at as "starts_at!", cadence as "cadence: Json<Cadence>"
           from (
             select tenant_id, starts_at, terms->'billing_period' as cadence,
                    bool_or(terms ? 'billing_period') over (partition by tenant_id) as is_named
             from tenant_terms join plan_version on plan_version.plan_id = tenant_terms.plan_id
                                                and plan_version.version = tenant_terms.plan_version
             where tenant_id = any($1)
           ) stretch
           where is_named order by tenant_id, starts_at"#,
        &tenants as _,
    )
    .fetch_all(db)
    .await?;
    let mut cadences = HashMap::<String, Vec<(Quarter, Cadence)>>::new();
    for row in rows {
        let cadence = row.cadence.map_or_else(Cadence::default, |cadence| cadence.0);
        let start = Quarter::containing(row.starts_at.to_jiff());
        cadences.entry(row.tenant_id).or_default().push((start, cadence));
    }
    Ok(cadences)
}

/// Since when the open periods of these tenants have these cadences: since the end of the last period
/// with another one, or since there is the tenant; on the date that it was in the zone of then.
async fn schedules(
    db: &mut PgConnection,
    current: &[(String, Cadence)],
) -> Result<Vec<(String, Result<Schedule, Error>)>, Error> {
    let tenants: Vec<&str> = current.iter().map(|(tenant, _)| tenant.as_str()).collect();
    let cadences: Vec<Json<Cadence>> = current.iter().map(|(_, cadence)| Json(*cadence)).collect();
    let rows = sqlx::query!(
        r#"select tenant.id, given.cadence as "cadence!: Json<Cadence>",
                  coalesce(other.period_end, tenant.created_at) as "since!",
                  coalesce(other.time_zone,
                           (select time_zone from former_time_zone
                            where tenant_id = tenant.id order by until limit 1),
                           tenant.time_zone) as "time_zone!"
           from unnest($1::text[], $2::jsonb[]) as given (tenant_id, cadence)
           join tenant on tenant.id = given.tenant_id
           left join lateral (
             select latest.period_end, latest.time_zone
             from (
               select case when lag(starts_at) over by_start is null then '-infinity' else starts_at end
                        as starts_at,
                      coalesce(lead(starts_at) over by_start, 'infinity') as ends_at,
                      coalesce(terms->'billing_period', '"calendar_month"') as cadence
               from tenant_terms join plan_version on plan_version.plan_id = tenant_terms.plan_id
                                                  and plan_version.version = tenant_terms.plan_version
               where tenant_id = given.tenant_id
               window by_start as (order by starts_at)
             ) stretch
             cross join lateral (
               select period_end, time_zone from invoice
               where tenant_id = given.tenant_id and not rebilled
                 and period_start >= stretch.starts_at and period_start < stretch.ends_at
               order by period_start desc limit 1
             ) latest
             where stretch.cadence <> given.cadence
             order by latest.period_end desc limit 1
           ) other on true"#,
        &tenants as _,
        &cadences as _,
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let since = Quarter::containing(row.since.to_jiff());
            let schedule = Zone::named(row.time_zone)
                .map(|Zone { zone, .. }| Schedule::since(row.cadence.0, since, &zone));
            (row.id, schedule)
        })
        .collect())
}
