//! Quantities: what the rollup says now, and what invoices have priced.

use rust_decimal::{Decimal, prelude::ToPrimitive};
use sqlx::PgConnection;
use weir_domain::{
    billing_period::{BillingPeriod, Quarter},
    id::{Meter, TenantId},
    invoice::{Usage, Used},
};

use super::{Error, draft::Terms, period::to_sql};

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

/// The tenant's usage of `period` as it is known now, summed per terms.
pub(super) async fn rolled_up(
    db: &mut PgConnection,
    tenant: &TenantId,
    period: BillingPeriod,
    terms: &[Terms],
) -> Result<Vec<QuantityRow>, Error> {
    let ends = terms.iter().skip(1).map(|next| next.starts_at).chain([period.end()]);
    let mut quantities = Vec::new();
    for (terms, end) in terms.iter().zip(ends) {
        let rows = sqlx::query!(
            r#"select meter, model, sum(tokens) as "tokens!", sum(requests) as "requests!"
               from usage_rollup
               where tenant_id = $1 and quarter >= $2 and quarter < $3
               group by meter, model order by meter, model"#,
            tenant.as_str(),
            to_sql(terms.starts_at) as _,
            to_sql(end) as _,
        )
        .fetch_all(&mut *db)
        .await?;
        quantities.extend(rows.into_iter().map(|row| QuantityRow {
            starts_at: terms.starts_at,
            meter: row.meter,
            model: row.model,
            tokens: row.tokens,
            requests: row.requests,
        }));
    }
    Ok(quantities)
}

/// What all invoices together have priced of the period that `invoice_id` closed.
pub(super) async fn billed(
    db: &mut PgConnection,
    invoice_id: i64,
) -> Result<Vec<QuantityRow>, Error> {
    let rows = sqlx::query!(
        r#"select starts_at, meter, model, sum(tokens) as "tokens!", sum(requests) as "requests!"
           from invoice_quantity where period_invoice_id = $1
           group by starts_at, meter, model"#,
        invoice_id,
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| QuantityRow {
            starts_at: Quarter::containing(row.starts_at.to_jiff()),
            meter: row.meter,
            model: row.model,
            tokens: row.tokens,
            requests: row.requests,
        })
        .collect())
}

/// How far the rollup of the tenant's closed periods is from what was billed for them: the
/// differences, with the invoices that closed the periods, oldest first. Empty unless usage came
/// late.
pub(super) async fn late(
    db: &mut PgConnection,
    tenant: &TenantId,
) -> Result<Vec<(i64, QuantityRow)>, Error> {
    let rows = sqlx::query!(
        r#"with stretch as (
             select invoice.id as invoice_id, terms.starts_at,
                    coalesce(lead(terms.starts_at) over (partition by invoice.id order by terms.starts_at),
                             invoice.period_end) as ends_at
             from invoice join invoice_terms terms on terms.invoice_id = invoice.id
             where invoice.tenant_id = $1
           ), known as (
             select invoice_id, starts_at, meter, model, tokens, requests
             from stretch join usage_rollup rollup
               on rollup.tenant_id = $1
              and rollup.quarter >= stretch.starts_at and rollup.quarter < stretch.ends_at
             union all
             select quantity.period_invoice_id, starts_at, meter, model, -tokens, -requests
             from invoice join invoice_quantity quantity on quantity.period_invoice_id = invoice.id
             where invoice.tenant_id = $1
           )
           select invoice_id as "invoice_id!", starts_at as "starts_at!", meter as "meter!",
                  model as "model!", sum(tokens) as "tokens!", sum(requests) as "requests!"
           from known group by invoice_id, starts_at, meter, model
           having sum(tokens) <> 0 or sum(requests) <> 0
           order by invoice_id, starts_at, meter, model"#,
        tenant.as_str(),
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let difference = QuantityRow {
                starts_at: Quarter::containing(row.starts_at.to_jiff()),
                meter: row.meter,
                model: row.model,
                tokens: row.tokens,
                requests: row.requests,
            };
            (row.invoice_id, difference)
        })
        .collect())
}
