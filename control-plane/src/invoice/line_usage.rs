//! The usage that a line of an invoice has billed, by quarter hour. Its sums are exactly what the invoice has
//! stored, whatever came since: where they are not, nothing is told.
//!
//! A line that charges a price bills usage of the invoice's own period: what the rollup has, less what came
//! after the invoice. An adjustment bills what came late for another period. `invoice_quarter` has both
//! (`super::quarters`).

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use rust_decimal::{Decimal, prelude::ToPrimitive};
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use weir_domain::{billing_period::Quarter, invoice::counted_by, limit::Unit, price::Charge};

use super::{
    Error,
    period::to_sql,
    terms::{self, in_force},
    usage::{QuantityRow, to_usage},
};

/// Where the usage of a line is, in the admin API.
pub(super) fn path(invoice: i64, line: u32) -> String {
    format!("{}/invoices/{invoice}/lines/{line}/usage", crate::admin::PREFIX)
}

/// What a line bills, and a snapshot from which its usage is read.
pub struct LineUsage {
    db: Transaction<'static, Postgres>,
    source: Source,
    stretches: Vec<Stretch>,
    /// What the line counts; `None` for an adjustment, which may be of both.
    pub unit: Option<Unit>,
    /// The sums of all of it. An adjustment may take away.
    pub tokens: i64,
    pub requests: i64,
}

/// Usage of a quarter hour on one meter and model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarterUsage {
    pub quarter: Timestamp,
    pub meter: String,
    pub model: String,
    pub tokens: i64,
    pub requests: i64,
}

/// A quarter hour, meter and model: the order of usage.
pub type Key = (Timestamp, String, String);

/// Whose usage it is.
struct Source {
    tenant: String,
    invoice: i64,
    period_invoice: i64,
}

/// What an invoice has billed of a meter and model while the same terms were in force.
struct Stretch {
    starts_at: Quarter,
    ends_at: Quarter,
    meter: String,
    model: String,
    tokens: Decimal,
    requests: Decimal,
}

/// A line as it is stored, with what is needed of its invoice.
struct LineRow {
    tenant_id: String,
    name: String,
    rebilled: bool,
    charge: Option<sqlx::types::Json<Charge>>,
    adjusts: Option<i64>,
    /// How many lines before it charge a price.
    nth: i64,
}

impl LineUsage {
    /// The usage of this line, counted from 1.
    pub async fn of(db: &PgPool, invoice: i64, line: i32) -> Result<Self, Error> {
        let mut db = db.begin_with("begin isolation level repeatable read, read only").await?;
        let row = read_line(&mut db, invoice, line).await?;
        let unit = row.charge.as_ref().and_then(|charge| charge.0.unit());
        let refused = |why: &str| {
            Err(Error::Refused(format!(
                "line {line} of the invoice with id {invoice} ({}) {why}",
                row.name
            )))
        };
        if row.rebilled {
            return refused("is void, and its usage is billed again by another invoice");
        }
        let (stretches, period_invoice) = match (row.adjusts, unit) {
            (Some(period_invoice), _) => {
                (billed(&mut db, invoice, period_invoice, None).await?, period_invoice)
            }
            (None, Some(_)) => (billed(&mut db, invoice, invoice, Some(row.nth)).await?, invoice),
            (None, None) => return refused("bills no usage"),
        };
        let source = Source { tenant: row.tenant_id, invoice, period_invoice };
        let sum = |of: fn(&Stretch) -> Decimal| {
            stretches
                .iter()
                .map(of)
                .sum::<Decimal>()
                .to_i64()
                .ok_or_else(|| Error::stored("a sum is too large"))
        };
        let tokens = sum(|stretch| stretch.tokens)?;
        let requests = sum(|stretch| stretch.requests)?;
        let mut usage = Self { db, source, stretches, unit, tokens, requests };
        if !usage.adds_up().await? {
            return refused(
                "was made by an earlier version of Weir, which did not keep its usage by quarter hour",
            );
        }
        Ok(usage)
    }

    /// At most `limit` quarter hours, meters and models, in their order, those after `after`.
    pub async fn page(
        &mut self,
        after: Option<&Key>,
        limit: i64,
    ) -> Result<Vec<QuarterUsage>, Error> {
        let Columns { starts, ends, meters, models } = Columns::of(&self.stretches);
        let rows = sqlx::query!(
            r#"select quarter as "quarter!", meter as "meter!", model as "model!",
                      tokens as "tokens!", requests as "requests!"
               from billed_quarters($1, $2, $3, $4, $5, $6, $7)
               where $8::timestamptz is null or (quarter, meter, model) > ($8, $9, $10)
               order by quarter, meter, model limit $11"#,
            self.source.tenant,
            self.source.invoice,
            self.source.period_invoice,
            &starts as _,
            &ends as _,
            &meters as _,
            &models as _,
            after.map(|key| key.0.to_sqlx()) as _,
            after.map(|key| key.1.as_str()),
            after.map(|key| key.2.as_str()),
            limit,
        )
        .fetch_all(&mut *self.db)
        .await?;
        let usage = rows.into_iter().map(|row| QuarterUsage {
            quarter: row.quarter.to_jiff(),
            meter: row.meter,
            model: row.model,
            tokens: row.tokens,
            requests: row.requests,
        });
        Ok(usage.collect())
    }

    /// Whether the sums of its usage are what the invoice has billed, in each stretch.
    async fn adds_up(&mut self) -> Result<bool, Error> {
        let Columns { starts, ends, meters, models } = Columns::of(&self.stretches);
        let (tokens, requests): (Vec<_>, Vec<_>) =
            self.stretches.iter().map(|stretch| (stretch.tokens, stretch.requests)).unzip();
        let differs = sqlx::query_scalar!(
            r#"select exists (
                 select from unnest($4::timestamptz[], $6::text[], $7::text[], $8::numeric[], $9::numeric[])
                               as stretch (starts_at, meter, model, tokens, requests)
                 left join (
                   select stretch.starts_at, found.meter, found.model,
                          sum(found.tokens) as tokens, sum(found.requests) as requests
                   from billed_quarters($1, $2, $3, $4, $5, $6, $7) found
                   join unnest($4::timestamptz[], $5::timestamptz[], $6::text[], $7::text[])
                          as stretch (starts_at, ends_at, meter, model)
                     on found.meter = stretch.meter and found.model = stretch.model
                    and quarter >= stretch.starts_at and quarter < stretch.ends_at
                   group by stretch.starts_at, found.meter, found.model
                 ) found using (starts_at, meter, model)
                 where stretch.tokens <> coalesce(found.tokens, 0)
                    or stretch.requests <> coalesce(found.requests, 0)
               ) as "differs!""#,
            self.source.tenant,
            self.source.invoice,
            self.source.period_invoice,
            &starts as _,
            &ends as _,
            &meters as _,
            &models as _,
            &tokens,
            &requests,
        );
        Ok(!differs.fetch_one(&mut *self.db).await?)
    }
}

/// Stretches as arrays.
struct Columns<'a> {
    starts: Vec<jiff_sqlx::Timestamp>,
    ends: Vec<jiff_sqlx::Timestamp>,
    meters: Vec<&'a str>,
    models: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    fn of(stretches: &'a [Stretch]) -> Self {
        Self {
            starts: stretches.iter().map(|stretch| to_sql(stretch.starts_at)).collect(),
            ends: stretches.iter().map(|stretch| to_sql(stretch.ends_at)).collect(),
            meters: stretches.iter().map(|stretch| stretch.meter.as_str()).collect(),
            models: stretches.iter().map(|stretch| stretch.model.as_str()).collect(),
        }
    }
}

async fn read_line(db: &mut PgConnection, invoice: i64, line: i32) -> Result<LineRow, Error> {
    let row = sqlx::query_as!(
        LineRow,
        r#"select tenant_id, name, rebilled, charge as "charge: _", adjusts_invoice_id as adjusts,
                  (select count(*) from invoice_line earlier
                   where earlier.invoice_id = invoice.id and earlier.position < line.position
                     and earlier.charge is not null) as "nth!"
           from invoice join invoice_line line on line.invoice_id = invoice.id
           where invoice.id = $1 and position = $2"#,
        invoice,
        line,
    );
    match row.fetch_optional(&mut *db).await? {
        Some(row) => Ok(row),
        None => Err(Error::NoLine { invoice, line }),
    }
}

/// What the invoice has billed of the period that `period_invoice` closed: all, or what its `nth` line that
/// charges a price counts.
async fn billed(
    db: &mut PgConnection,
    invoice: i64,
    period_invoice: i64,
    nth: Option<i64>,
) -> Result<Vec<Stretch>, Error> {
    let mut periods = terms::of_invoices(db, &[period_invoice]).await?;
    let (period, terms) = periods.remove(&period_invoice).ok_or_else(|| {
        Error::stored(format!("the invoice with id {period_invoice} has no terms"))
    })?;
    let rows = sqlx::query!(
        "select starts_at, meter, model, tokens, requests from invoice_quantity
         where invoice_id = $1 and period_invoice_id = $2",
        invoice,
        period_invoice,
    )
    .fetch_all(&mut *db)
    .await?;
    let rows: Vec<QuantityRow> = rows
        .into_iter()
        .map(|row| QuantityRow {
            starts_at: Quarter::containing(row.starts_at.to_jiff()),
            meter: row.meter,
            model: row.model,
            tokens: row.tokens,
            requests: row.requests,
        })
        .collect();
    let counted = match nth {
        Some(nth) => {
            let nth = usize::try_from(nth).map_err(Error::stored)?;
            counted_by(period, &in_force(&terms), nth, &to_usage(&rows)?)?
        }
        None => vec![true; rows.len()],
    };
    let counted = rows.into_iter().zip(counted).filter(|(_, is_counted)| *is_counted);
    Ok(counted
        .map(|(row, _)| Stretch {
            starts_at: row.starts_at,
            ends_at: terms
                .iter()
                .map(|terms| terms.starts_at)
                .find(|start| *start > row.starts_at)
                .unwrap_or(period.end()),
            meter: row.meter,
            model: row.model,
            tokens: row.tokens,
            requests: row.requests,
        })
        .collect())
}
