//! Which ends the periods of a tenant can't lose: a period ends in the time zone that the tenant had when
//! it began, and one that had an invoice before, and is billed again, ends where it ended then. So another
//! time zone counts from the next period on, and nothing that has ended goes on.

use std::collections::HashMap;

use jiff::{Timestamp, tz::TimeZone};
use sqlx::PgConnection;
use weir_domain::billing_period::Quarter;

use super::Error;

/// A time zone, and its name as it is stored.
#[derive(Debug, Clone)]
pub(super) struct Zone {
    pub(super) name: String,
    pub(super) zone: TimeZone,
}

/// Of one tenant.
#[derive(Debug, Clone)]
pub(super) struct Calendar {
    /// The tenant's.
    own: Zone,
    /// Those that it had before, and until when; in that order.
    former: Vec<(Timestamp, Zone)>,
    /// The periods that are billed again, by their starts: where they end, and by whose calendar.
    again: HashMap<Quarter, (Quarter, Zone)>,
}

impl Zone {
    /// A time zone as it is stored.
    pub(super) fn named(name: String) -> Result<Self, Error> {
        let zone = TimeZone::get(&name).map_err(Error::stored)?;
        Ok(Self { name, zone })
    }
}

impl Calendar {
    /// By whose calendar the period that starts at `start` ends.
    pub(super) fn zone(&self, start: Quarter) -> &Zone {
        if let Some((_, zone)) = self.again.get(&start) {
            return zone;
        }
        let then = self.former.iter().find(|(until, _)| *until > start.start());
        then.map_or(&self.own, |(_, zone)| zone)
    }

    /// Where the period that starts at `start` ended when it was billed before.
    pub(super) fn billed_end(&self, start: Quarter) -> Option<Quarter> {
        self.again.get(&start).map(|(end, _)| *end)
    }
}

/// The calendars of these tenants, given with the names of their time zones. What is stored for one and
/// can't be read is an error in its place.
pub(super) async fn read(
    db: &mut PgConnection,
    tenants: &[(String, String)],
) -> Result<HashMap<String, Result<Calendar, Error>>, Error> {
    let ids: Vec<&str> = tenants.iter().map(|(id, _)| id.as_str()).collect();
    let mut former = former(db, &ids).await?;
    let mut again = billed_again(db, &ids).await?;
    Ok(tenants
        .iter()
        .map(|(id, own)| {
            let (former, again) = (former.remove(id), again.remove(id));
            let calendar = || {
                Ok(Calendar {
                    own: Zone::named(own.clone())?,
                    former: former.unwrap_or_else(|| Ok(Vec::new()))?,
                    again: again.unwrap_or_else(|| Ok(HashMap::new()))?,
                })
            };
            (id.clone(), calendar())
        })
        .collect())
}

async fn former(
    db: &mut PgConnection,
    tenants: &[&str],
) -> Result<HashMap<String, Result<Vec<(Timestamp, Zone)>, Error>>, Error> {
    let rows = sqlx::query!(
        "select tenant_id, until, time_zone from former_time_zone
         where tenant_id = any($1) order by tenant_id, until",
        tenants as _,
    )
    .fetch_all(db)
    .await?;
    let mut found = HashMap::new();
    for row in rows {
        let zone = Zone::named(row.time_zone).map(|zone| (row.until.to_jiff(), zone));
        add(&mut found, row.tenant_id, zone, Vec::push);
    }
    Ok(found)
}

async fn billed_again(
    db: &mut PgConnection,
    tenants: &[&str],
) -> Result<HashMap<String, Result<HashMap<Quarter, (Quarter, Zone)>, Error>>, Error> {
    // Of those with one start the last one counts.
    let rows = sqlx::query!(
        "select tenant_id, period_start, period_end, time_zone from invoice
         where rebilled and tenant_id = any($1) order by id",
        tenants as _,
    )
    .fetch_all(db)
    .await?;
    let mut found = HashMap::new();
    for row in rows {
        let [start, end] =
            [row.period_start, row.period_end].map(|at| Quarter::containing(at.to_jiff()));
        let bounds = Zone::named(row.time_zone).map(|zone| (start, (end, zone)));
        add(&mut found, row.tenant_id, bounds, |known: &mut HashMap<_, _>, (start, bounds)| {
            known.insert(start, bounds);
        });
    }
    Ok(found)
}

/// Adds one item to those of a tenant, or keeps the first error.
fn add<C: Default, T>(
    found: &mut HashMap<String, Result<C, Error>>,
    tenant: String,
    item: Result<T, Error>,
    into: impl FnOnce(&mut C, T),
) {
    let known = found.entry(tenant).or_insert_with(|| Ok(C::default()));
    match (known, item) {
        (Ok(items), Ok(item)) => into(items, item),
        (known @ Ok(_), Err(error)) => *known = Err(error),
        (Err(_), _) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(quarter: i64) -> Quarter {
        Quarter::containing(Timestamp::from_second(quarter * 900).unwrap())
    }

    fn zone(name: &str) -> Zone {
        Zone::named(name.to_owned()).unwrap()
    }

    #[test]
    fn a_period_ends_in_the_zone_of_its_start_or_where_it_ended_before() {
        let second = Timestamp::from_second;
        let calendar = Calendar {
            own: zone("UTC"),
            former: vec![
                (second(10 * 900 + 1).unwrap(), zone("Asia/Tokyo")),
                (second(20 * 900).unwrap(), zone("Europe/Zurich")),
            ],
            again: HashMap::from([(at(12), (at(17), zone("Asia/Tokyo")))]),
        };
        for (start, expected) in [
            (0, "Asia/Tokyo"),
            // It had begun a second before.
            (10, "Asia/Tokyo"),
            (11, "Europe/Zurich"),
            (12, "Asia/Tokyo"),
            (19, "Europe/Zurich"),
            (20, "UTC"),
        ] {
            assert_eq!(calendar.zone(at(start)).name, expected, "{start}");
        }
        assert_eq!(calendar.billed_end(at(12)), Some(at(17)));
        assert_eq!(calendar.billed_end(at(11)), None);
    }
}
