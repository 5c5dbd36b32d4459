//! Quantities: what the rollup says now.

use rust_decimal::{Decimal, prelude::ToPrimitive};
use sqlx::PgConnection;
use weir_domain::{
    billing_period::Quarter,
    id::Meter,
    invoice::{Usage, Used},
};

use super::{Error, draft::Input, period::to_sql};

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

/// The usage of one period as it is known now, summed per terms; in the order of terms, meter and model.
pub(super) async fn rolled_up(
    db: &mut PgConnection,
    input: &Input,
) -> Result<Vec<QuantityRow>, Error> {
    let stretches = Stretches::of(std::slice::from_ref(input));
    let rows = sqlx::query_as!(
        SumRow,
        r#"select place as "place!", meter, model, sum(tokens) as "tokens!", sum(requests) as "requests!"
           from unnest($1::integer[], $2::text[], $3::timestamptz[], $4::timestamptz[])
                  as stretch (place, tenant_id, starts_at, ends_at)
           join usage_rollup using (tenant_id)
           where quarter >= starts_at and quarter < ends_at
           group by place, meter, model order by place, meter, model"#,
        &stretches.places,
        &stretches.tenants as _,
        &stretches.starts as _,
        &stretches.ends as _,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(|row| Ok(stretches.quantity(row)?.1)).collect()
}

/// Times in which the same terms were in force for a tenant, as columns. All that is known of a stretch by
/// its place is in `inputs`.
pub(super) struct Stretches<'a> {
    /// 0, 1, 2, …
    pub(super) places: Vec<i32>,
    pub(super) tenants: Vec<&'a str>,
    pub(super) starts: Vec<jiff_sqlx::Timestamp>,
    pub(super) ends: Vec<jiff_sqlx::Timestamp>,
    /// The place of its input, and its start.
    inputs: Vec<(usize, Quarter)>,
}

/// What was used in a stretch, of a meter and a model.
pub(super) struct SumRow {
    pub(super) place: i32,
    pub(super) meter: String,
    pub(super) model: String,
    pub(super) tokens: Decimal,
    pub(super) requests: Decimal,
}

impl<'a> Stretches<'a> {
    /// Those of all inputs, in their order.
    pub(super) fn of(inputs: &'a [Input]) -> Self {
        let (mut tenants, mut starts, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        let mut places = Vec::new();
        let mut of = Vec::new();
        for (index, input) in inputs.iter().enumerate() {
            let next = input.terms.iter().skip(1).map(|terms| terms.starts_at);
            let next = next.chain([input.due.period.end()]);
            for ((terms, end), place) in input.terms.iter().zip(next).zip(places.len()..) {
                places.push(i32::try_from(place).unwrap_or(i32::MAX));
                tenants.push(input.due.tenant.as_str());
                starts.push(to_sql(terms.starts_at));
                ends.push(to_sql(end));
                of.push((index, terms.starts_at));
            }
        }
        Self { places, tenants, starts, ends, inputs: of }
    }

    /// The quantity, and the place of its input.
    pub(super) fn quantity(&self, row: SumRow) -> Result<(usize, QuantityRow), Error> {
        let SumRow { place, meter, model, tokens, requests } = row;
        let stretch = usize::try_from(place).ok().and_then(|place| self.inputs.get(place));
        let (index, starts_at) =
            stretch.copied().ok_or_else(|| Error::stored(format!("no stretch {place}")))?;
        Ok((index, QuantityRow { starts_at, meter, model, tokens, requests }))
    }
}
