//! The terms by which periods are priced: plan versions, and from when each was in force.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    sync::Arc,
};

use sqlx::{PgConnection, types::Json};
use weir_domain::{
    billing_period::{BillingPeriod, Quarter},
    invoice::TermsFrom,
    plan::PlanTerms,
};

use super::{Error, period::Due};

/// A plan version, and from when it was in force in a billing period.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) starts_at: Quarter,
    pub(super) plan_id: String,
    pub(super) plan_version: i32,
    pub(super) terms: Arc<PlanTerms>,
}

/// Terms in force, as input of the invoice arithmetic.
pub(super) fn in_force(terms: &[Terms]) -> Vec<TermsFrom> {
    terms
        .iter()
        .map(|terms| TermsFrom { from: terms.starts_at, terms: PlanTerms::clone(&terms.terms) })
        .collect()
}

/// The terms in force in each of the periods, in their order. Those of a period's start begin with it;
/// a tenant's first terms also hold for what lies before them. None for a tenant that has none.
pub(super) async fn of_periods(
    db: &mut PgConnection,
    due: &[Due],
) -> Result<Vec<Vec<Terms>>, Error> {
    let tenants: Vec<String> = due.iter().map(|due| due.tenant.to_string()).collect();
    let rows = sqlx::query!(
        "select tenant_id, starts_at, plan_id, plan_version from tenant_terms
         where tenant_id = any($1) order by tenant_id, starts_at",
        &tenants,
    )
    .fetch_all(&mut *db)
    .await?;
    let mut started = HashMap::<String, Vec<Version>>::new();
    for row in rows {
        let starts_at = Quarter::containing(row.starts_at.to_jiff());
        let version = Version { starts_at, plan: (row.plan_id, row.plan_version) };
        started.entry(row.tenant_id).or_default().push(version);
    }
    let in_force: Vec<Vec<Version>> = due
        .iter()
        .map(|due| in_period(started.remove(due.tenant.as_str()).unwrap_or_default(), due.period))
        .collect();
    let mut terms = with_plans(db, in_force).await?;
    for (due, terms) in due.iter().zip(&mut terms) {
        if due.is_after_close {
            *terms = without_fees(mem::take(terms));
        }
    }
    Ok(terms)
}

/// The periods that invoices closed, and the terms that they were priced by.
pub(super) async fn of_invoices(
    db: &mut PgConnection,
    invoices: &[i64],
) -> Result<HashMap<i64, (BillingPeriod, Vec<Terms>)>, Error> {
    let rows = sqlx::query!(
        r#"select invoice.id, period_start, period_end, starts_at,
                  billed.plan_id, billed.plan_version,
                  coalesce(closed_at <= period_start, false) as "is_after_close!"
           from invoice join invoice_terms billed on invoice_id = invoice.id
           join tenant on tenant.id = tenant_id
           where invoice.id = any($1) order by invoice.id, starts_at"#,
        invoices,
    )
    .fetch_all(&mut *db)
    .await?;
    let mut periods: Vec<(i64, BillingPeriod, bool)> = Vec::new();
    let mut versions: Vec<Vec<Version>> = Vec::new();
    for row in rows {
        if periods.last().is_none_or(|(id, ..)| *id != row.id) {
            let (start, end) = (row.period_start.to_jiff(), row.period_end.to_jiff());
            let period = BillingPeriod::new(Quarter::containing(start), Quarter::containing(end))?;
            periods.push((row.id, period, row.is_after_close));
            versions.push(Vec::new());
        }
        let starts_at = Quarter::containing(row.starts_at.to_jiff());
        let version = Version { starts_at, plan: (row.plan_id, row.plan_version) };
        versions.last_mut().into_iter().for_each(|list| list.push(version.clone()));
    }
    let terms = with_plans(db, versions).await?;
    Ok(periods
        .into_iter()
        .zip(terms)
        .map(|((id, period, is_after_close), terms)| {
            let terms = if is_after_close { without_fees(terms) } else { terms };
            (id, (period, terms))
        })
        .collect())
}

/// What a tenant that is closed still pays: for what it used, and no flat fees and minimums.
fn without_fees(mut terms: Vec<Terms>) -> Vec<Terms> {
    for part in &mut terms {
        let plan = Arc::make_mut(&mut part.terms);
        plan.minimum = None;
        plan.prices.retain(|price| price.charge.unit().is_some());
        for price in &mut plan.prices {
            price.minimum = None;
        }
    }
    terms
}

#[derive(Clone)]
struct Version {
    starts_at: Quarter,
    plan: (String, i32),
}

/// Of all terms of a tenant, in their order, those in force in `period`.
fn in_period(mut started: Vec<Version>, period: BillingPeriod) -> Vec<Version> {
    let begun = started.partition_point(|terms| terms.starts_at <= period.start());
    started.drain(..begun.saturating_sub(1));
    let ends = started.iter().skip(1).take_while(|terms| terms.starts_at < period.end()).count();
    started.truncate(ends.saturating_add(1));
    if let Some(first) = started.first_mut() {
        first.starts_at = period.start();
    }
    started
}

/// Reads what the plan versions say, each once.
async fn with_plans(
    db: &mut PgConnection,
    versions: Vec<Vec<Version>>,
) -> Result<Vec<Vec<Terms>>, Error> {
    let named: BTreeSet<&(String, i32)> =
        versions.iter().flatten().map(|version| &version.plan).collect();
    let (plans, numbers): (Vec<String>, Vec<i32>) = named.into_iter().cloned().unzip();
    let rows = sqlx::query!(
        r#"select plan_id, version, terms as "terms: Json<PlanTerms>" from plan_version
           where (plan_id, version) in (select * from unnest($1::text[], $2::integer[]))"#,
        &plans,
        &numbers,
    )
    .fetch_all(db)
    .await?;
    let known: HashMap<(String, i32), Arc<PlanTerms>> =
        rows.into_iter().map(|row| ((row.plan_id, row.version), Arc::new(row.terms.0))).collect();
    let terms = |Version { starts_at, plan }: Version| {
        let terms = known.get(&plan).ok_or_else(|| Error::stored("a plan version is missing"))?;
        let (plan_id, plan_version) = plan;
        Ok(Terms { starts_at, plan_id, plan_version, terms: Arc::clone(terms) })
    };
    versions.into_iter().map(|list| list.into_iter().map(terms).collect()).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn at(second: i64) -> Quarter {
        Quarter::containing(Timestamp::from_second(second * 900).unwrap())
    }

    #[test]
    fn the_terms_of_the_start_and_what_follows_are_in_force() {
        let started = |starts: &[i64]| -> Vec<Version> {
            let version = |start: &i64| Version {
                starts_at: at(*start),
                plan: ("plan".to_owned(), i32::try_from(*start).unwrap()),
            };
            starts.iter().map(version).collect()
        };
        let period = BillingPeriod::new(at(10), at(20)).unwrap();
        for (starts, expected) in [
            (&[1, 5, 12, 19, 20][..], &[(10, 5), (12, 12), (19, 19)][..]),
            (&[10], &[(10, 10)]),
            (&[15, 18], &[(10, 15), (18, 18)]),
            (&[30, 40], &[(10, 30)]),
            (&[], &[]),
        ] {
            let in_force = in_period(started(starts), period);
            let expected: Vec<_> = expected.iter().map(|(from, plan)| (at(*from), *plan)).collect();
            let found: Vec<_> = in_force.iter().map(|it| (it.starts_at, it.plan.1)).collect();
            assert_eq!(found, expected, "{starts:?}");
        }
    }
}
