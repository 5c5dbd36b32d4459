//! Quantities: what the rollup says now.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures_util::TryStreamExt;
use rust_decimal::{Decimal, prelude::ToPrimitive};
use sqlx::{Connection, PgConnection};
use weir_domain::{
    billing_period::Quarter,
    id::Meter,
    invoice::{Usage, Used},
};

use super::{Error, draft::Input, period::to_sql};

/// So many tenants with the same period are worth a pass over all usage in that time.
const COMMON: usize = 1_000;

/// A sum over the time in which the same terms were in force, as the database writes it. In what an
/// invoice prices for an earlier period it is a difference, and may be negative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QuantityRow {
    /// Start of the terms.
    pub(super) starts_at: Quarter,
    pub(super) meter: String,
    pub(super) model: String,
    pub(super) tokens: Decimal,
    pub(super) requests: Decimal,
}

impl QuantityRow {
    /// The same as input of the invoice arithmetic.
    pub(super) fn usage(&self) -> Result<Usage, Error> {
        let whole = |sum: &Decimal| {
            sum.to_u64().ok_or_else(|| Error::stored(format!("{sum} is not a sum of usage")))
        };
        Ok(Usage {
            quarter: self.starts_at,
            meter: Meter::new(self.meter.clone()).map_err(Error::stored)?,
            model: self.model.clone(),
            used: Used { tokens: whole(&self.tokens)?, requests: whole(&self.requests)? },
        })
    }
}

/// The same of several.
pub(super) fn to_usage(quantities: &[QuantityRow]) -> Result<Vec<Usage>, Error> {
    quantities.iter().map(QuantityRow::usage).collect()
}

/// The usage of the inputs' periods as it is known now, summed per terms: for each input in their order,
/// and for each in the order of terms, meter and model.
pub(super) async fn rolled_up(
    db: &mut PgConnection,
    inputs: &[Input],
) -> Result<Vec<Vec<QuantityRow>>, Error> {
    let mut sums = vec![Vec::new(); inputs.len()];
    let common = CommonTimes::of(inputs);
    let is_common: Vec<bool> = inputs.iter().map(|input| common.have(input)).collect();
    let rare = inputs.iter().enumerate().zip(&is_common).filter(|(_, is_common)| !**is_common);
    let rare: Vec<(usize, Stretch)> =
        rare.flat_map(|((place, input), _)| stretches(input).map(move |it| (place, it))).collect();
    of_each(db, inputs, &rare, &mut sums).await?;
    if is_common.contains(&true) {
        let places = inputs.iter().enumerate().zip(&is_common).filter(|(_, is_common)| **is_common);
        let places = places.map(|((place, input), _)| (input.due.tenant.as_str(), place)).collect();
        of_all(db, inputs, &common, &places, &mut sums).await?;
    }
    for quantities in &mut sums {
        quantities.sort_by(|a, b| {
            (a.starts_at, &a.meter, &a.model).cmp(&(b.starts_at, &b.meter, &b.model))
        });
    }
    Ok(sums)
}

/// A time in which the same terms were in force for a tenant: from, and to before.
type Stretch = (Quarter, Quarter);

fn stretches(input: &Input) -> impl Iterator<Item = Stretch> {
    let starts = input.terms.iter().map(|terms| terms.starts_at);
    starts.clone().zip(starts.skip(1).chain([input.due.period.end()]))
}

/// Sums of some tenants, found by their ids.
async fn of_each(
    db: &mut PgConnection,
    inputs: &[Input],
    stretches: &[(usize, Stretch)],
    sums: &mut [Vec<QuantityRow>],
) -> Result<(), Error> {
    let mut tenants = Vec::new();
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for (place, (start, end)) in stretches {
        tenants.extend(inputs.get(*place).map(|input| input.due.tenant.as_str()));
        starts.push(to_sql(*start));
        ends.push(to_sql(*end));
    }
    let rows = sqlx::query!(
        r#"select place as "place!", meter, model, sum(tokens) as "tokens!", sum(requests) as "requests!"
           from unnest($1::text[], $2::timestamptz[], $3::timestamptz[])
                  with ordinality as stretch (tenant_id, starts_at, ends_at, place)
           join usage_rollup using (tenant_id)
           where quarter >= starts_at and quarter < ends_at
           group by place, meter, model"#,
        &tenants as _,
        &starts as _,
        &ends as _,
    )
    .fetch_all(db)
    .await?;
    for row in rows {
        let stretch = usize::try_from(row.place - 1).ok().and_then(|place| stretches.get(place));
        let Some((place, (starts_at, _))) = stretch.copied() else { continue };
        let (meter, model) = (row.meter, row.model);
        let (tokens, requests) = (row.tokens, row.requests);
        let quantity = QuantityRow { starts_at, meter, model, tokens, requests };
        sums.get_mut(place).into_iter().for_each(|sums| sums.push(quantity.clone()));
    }
    Ok(())
}

/// Sums of very many tenants, most of whom have the same few periods: in one pass over the rollup, which
/// Postgres does in parallel, instead of very many looks at it.
async fn of_all(
    db: &mut PgConnection,
    inputs: &[Input],
    common: &CommonTimes,
    places: &HashMap<&str, usize>,
    sums: &mut [Vec<QuantityRow>],
) -> Result<(), Error> {
    // The sums of a wave fit into this; otherwise Postgres writes them to disk and reads them again.
    let mut tx = db.begin().await?;
    sqlx::query!("select set_config('work_mem', '64MB', true)").fetch_one(&mut *tx).await?;
    for (from, to) in common.bounds.iter().zip(common.bounds.iter().skip(1)) {
        // One time after the other: Postgres would not see that a sum is split into few.
        let mut rows = sqlx::query!(
            r#"select tenant_id, meter, model, sum(tokens) as "tokens!", sum(requests) as "requests!"
               from usage_rollup where quarter >= $1 and quarter < $2
               group by tenant_id, meter, model"#,
            to_sql(*from) as _,
            to_sql(*to) as _,
        )
        .fetch(&mut *tx);
        while let Some(row) = rows.try_next().await? {
            let Some(place) = places.get(row.tenant_id.as_str()).copied() else { continue };
            let (Some(input), Some(sums)) = (inputs.get(place), sums.get_mut(place)) else {
                continue;
            };
            let of = stretches(input).find(|(start, end)| start <= from && from < end);
            let Some((starts_at, _)) = of else { continue };
            let (meter, model) = (row.meter, row.model);
            let (tokens, requests) = (row.tokens, row.requests);
            add(sums, QuantityRow { starts_at, meter, model, tokens, requests })?;
        }
    }
    tx.commit().await?;
    Ok(())
}

/// Adds to the sum of the same terms, meter and model, or makes it.
pub(super) fn add(sums: &mut Vec<QuantityRow>, more: QuantityRow) -> Result<(), Error> {
    let same = |sum: &&mut QuantityRow| {
        sum.starts_at == more.starts_at && sum.meter == more.meter && sum.model == more.model
    };
    let Some(sum) = sums.iter_mut().find(same) else {
        sums.push(more);
        return Ok(());
    };
    let checked = |a: Decimal, b| {
        a.checked_add(b).ok_or_else(|| Error::stored("a sum of usage is too large"))
    };
    sum.tokens = checked(sum.tokens, more.tokens)?;
    sum.requests = checked(sum.requests, more.requests)?;
    Ok(())
}

/// Times that very many inputs have in common, such as the last month in UTC.
struct CommonTimes {
    times: HashSet<Stretch>,
    /// Their starts and ends, in order.
    bounds: Vec<Quarter>,
}

impl CommonTimes {
    fn of(inputs: &[Input]) -> Self {
        let mut counts = HashMap::<Stretch, usize>::new();
        for stretch in inputs.iter().flat_map(stretches) {
            *counts.entry(stretch).or_default() += 1;
        }
        // Few enough that few sums are split at their bounds.
        let enough = COMMON.max(inputs.len() / 100);
        counts.retain(|_, count| *count >= enough);
        let times: HashSet<Stretch> = counts.into_keys().collect();
        let bounds: BTreeSet<Quarter> =
            times.iter().flat_map(|(start, end)| [*start, *end]).collect();
        Self { times, bounds: bounds.into_iter().collect() }
    }

    fn have(&self, input: &Input) -> bool {
        !self.times.is_empty() && stretches(input).all(|stretch| self.times.contains(&stretch))
    }
}
