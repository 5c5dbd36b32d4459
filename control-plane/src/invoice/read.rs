//! Reading stored invoices.

use std::collections::HashMap;

use rust_decimal::{Decimal, prelude::ToPrimitive};
use sqlx::{PgConnection, PgPool, types::Json};
use weir_domain::{
    currency::Currency,
    id::{Meter, TenantId},
    money::Money,
    price::{Charge, ModelPattern},
};

use super::{
    Error, Invoice, InvoiceState, line_usage,
    rule::StoredRule,
    view::{self, Adjusted, Line, PricedLine, Share},
};

/// Which invoices are asked for; newest first.
#[derive(Debug, Clone, Default)]
pub struct Filter<'a> {
    pub tenant: Option<&'a TenantId>,
    /// As it is shown.
    pub state: Option<InvoiceState>,
    /// Only those with a smaller id.
    pub before: Option<i64>,
    /// Only this one.
    pub id: Option<i64>,
}

struct LineRow {
    invoice_id: i64,
    position: i32,
    name: String,
    charge: Option<Json<Charge>>,
    share_quarters: Option<i32>,
    share_of: Option<i32>,
    meter: Option<String>,
    model: Option<String>,
    rule: Option<Json<StoredRule>>,
    quantity: Option<Decimal>,
    adjusts: Option<i64>,
    adjusts_start: Option<jiff_sqlx::Timestamp>,
    adjusts_end: Option<jiff_sqlx::Timestamp>,
    amount_minor: i64,
}

/// The invoice with this id.
pub async fn get(db: &PgPool, id: i64) -> Result<Option<Invoice>, Error> {
    let filter = Filter { id: Some(id), ..Filter::default() };
    Ok(list(db, &filter, 1).await?.pop())
}

/// Invoices with their lines, newest first, at most `limit` of them.
pub async fn list(db: &PgPool, filter: &Filter<'_>, limit: i64) -> Result<Vec<Invoice>, Error> {
    let mut db = db.acquire().await?;
    list_in(&mut db, filter, limit).await
}

/// The same on a connection, such as in a transaction that reads more.
pub async fn list_in(
    db: &mut PgConnection,
    filter: &Filter<'_>,
    limit: i64,
) -> Result<Vec<Invoice>, Error> {
    let rows = sqlx::query!(
        r#"select invoice.id, number, tenant_id, shown.state as "state!: InvoiceState", currency,
                  period_start, period_end, due_at, total_minor, credited_minor as "credited_minor!",
                  void_reason, rebilled, created_at
           from invoice
           cross join lateral (
             select coalesce(sum(amount_minor), 0)::bigint as credited_minor
             from credit_note where invoice_id = invoice.id
           ) credited
           cross join lateral (
             select shown_invoice_state(invoice.state, due_at, total_minor - credited_minor) as state
           ) shown
           where ($1::text is null or tenant_id = $1) and ($2::text is null or shown.state = $2)
             and ($3::bigint is null or invoice.id < $3) and ($4::bigint is null or invoice.id = $4)
           order by invoice.id desc limit $5"#,
        filter.tenant.map(TenantId::as_str),
        filter.state as _,
        filter.before,
        filter.id,
        limit,
    )
    .fetch_all(&mut *db)
    .await?;
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let mut lines = lines_of(db, &ids).await?;
    rows.into_iter()
        .map(|row| {
            let currency = Currency::new(&row.currency).map_err(Error::stored)?;
            let lines = lines.remove(&row.id).unwrap_or_default();
            Ok(Invoice {
                id: Some(row.id),
                number: row.number,
                tenant: row.tenant_id,
                state: row.state,
                currency,
                period_start: row.period_start.to_jiff(),
                period_end: row.period_end.to_jiff(),
                final_at: None,
                due_at: Some(row.due_at.to_jiff()),
                lines: lines
                    .into_iter()
                    .map(|line| {
                        let id = line.invoice_id;
                        let line = line.view(currency)?;
                        let usage = line.bills_usage() && !row.rebilled;
                        let usage = usage.then(|| line_usage::path(id, line.position));
                        Ok(Line { usage, ..line })
                    })
                    .collect::<Result<_, Error>>()?,
                total: Money::new(row.total_minor, currency).decimal(),
                credited: Money::new(row.credited_minor, currency).decimal(),
                void_reason: row.void_reason,
                rebilled: row.rebilled,
                unpriced: Vec::new(),
                created_at: Some(row.created_at.to_jiff()),
            })
        })
        .collect()
}

async fn lines_of(db: &mut PgConnection, ids: &[i64]) -> Result<HashMap<i64, Vec<LineRow>>, Error> {
    let rows = sqlx::query_as!(
        LineRow,
        r#"select line.invoice_id, line.position, line.name, line.charge as "charge: _",
                  line.share_quarters, line.share_of, line.meter, line.model,
                  line.rule as "rule: _", line.quantity,
                  line.adjusts_invoice_id as adjusts,
                  adjusted.period_start as "adjusts_start?", adjusted.period_end as "adjusts_end?",
                  line.amount_minor
           from invoice_line line
           left join invoice adjusted on adjusted.id = line.adjusts_invoice_id
           where line.invoice_id = any($1) order by line.invoice_id, line.position"#,
        ids,
    )
    .fetch_all(db)
    .await?;
    let mut lines = HashMap::<i64, Vec<LineRow>>::new();
    for row in rows {
        lines.entry(row.invoice_id).or_default().push(row);
    }
    Ok(lines)
}

impl LineRow {
    fn view(self, currency: Currency) -> Result<Line, Error> {
        let place = format!("line {} of the invoice with id {}", self.position, self.invoice_id);
        let incomplete = || Error::stored(format!("{place} is incomplete"));
        let position = u32::try_from(self.position).map_err(Error::stored)?;
        let amount = Money::new(self.amount_minor, currency);
        if let Some(Json(rule)) = self.rule {
            return Ok(rule.line(position, self.name, amount));
        }
        let Some(Json(charge)) = self.charge else {
            let adjusts = Adjusted {
                invoice: self.adjusts,
                period_start: self.adjusts_start.ok_or_else(incomplete)?.to_jiff(),
                period_end: self.adjusts_end.ok_or_else(incomplete)?.to_jiff(),
            };
            return Ok(view::adjustment(position, self.name, adjusts, amount));
        };
        let part = |count: Option<i32>| {
            count.and_then(|count| u32::try_from(count).ok()).ok_or_else(incomplete)
        };
        let meter = self.meter.map(Meter::new).transpose().map_err(Error::stored)?;
        let model = self.model.map(ModelPattern::new).transpose().map_err(Error::stored)?;
        let quantity = self.quantity.unwrap_or_default().to_u64().ok_or_else(incomplete)?;
        Ok(PricedLine {
            position,
            name: self.name,
            charge: &charge,
            meter: &meter.unwrap_or_default(),
            model: model.as_ref(),
            quantity,
            share: Share { quarter_hours: part(self.share_quarters)?, of: part(self.share_of)? },
            amount,
        }
        .line())
    }
}
