//! Usage of closed periods that no invoice has priced yet.
//!
//! It is rare, and looking for it must not cost a walk through all that a tenant ever used. Triggers on
//! the rollup note in `usage_late` each quarter hour that is written to more than five minutes after its
//! end. What is written before is found by its time: nothing before the *read point* of a tenant's last
//! invoice, less those five minutes and a quarter hour, can have come since without being noted. Both
//! only say where to look. What was used and not billed is the difference between the rollup and all
//! that invoices have priced of the period, so nothing is lost or billed twice by looking too often.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use rust_decimal::Decimal;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use tokio::time::sleep;
use weir_domain::{
    billing_period::{BillingPeriod, Quarter},
    invoice::{self, Adjustment},
};

use super::{
    Error,
    period::Due,
    quarters::{self, QuarterRow},
    terms::{self, Terms, in_force},
    usage::{QuantityRow, add, to_usage},
};

/// How often a read point is tried for, and the pause after each: longer in all than Postgres lets a
/// session hang in a transaction.
const ATTEMPTS: u32 = 40;
const PAUSE: Duration = Duration::from_secs(1);

/// Usage of a closed period that no invoice has priced yet.
#[derive(Debug)]
pub(super) struct Late {
    /// The invoice that closed the period.
    pub(super) invoice_id: i64,
    /// By how much the quantities differ from those that were billed.
    pub(super) differences: Vec<QuantityRow>,
    /// What that costs; `None` where it costs nothing.
    pub(super) adjustment: Option<Adjustment>,
}

/// A closed period whose usage is not what was billed.
#[derive(Debug)]
pub(super) struct Closed {
    invoice_id: i64,
    period: BillingPeriod,
    terms: Vec<Terms>,
    billed: Vec<QuantityRow>,
    differences: Vec<QuantityRow>,
}

/// What is known of late usage, by tenant.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Oldest first.
    pub(super) closed: HashMap<String, Vec<Closed>>,
    /// The rows of `usage_late` that were looked at.
    pub(super) notes: HashMap<String, Vec<i64>>,
    /// What came to quarter hours without being noted.
    pub(super) quarters: HashMap<String, Vec<QuarterRow>>,
}

/// A snapshot from which invoices are drawn up, and its read point.
///
/// It waits for usage that is being stored at this moment, so the rollup lacks nothing that was written to it
/// before the read point. It is one snapshot, since what is noted in `usage_late` must be what is in the
/// rollup: the notes that an invoice has seen say what it billed.
pub(super) async fn snapshot(
    db: &PgPool,
) -> Result<(Transaction<'static, Postgres>, Timestamp), Error> {
    let point = read_point(db).await?;
    // After it, or it would not see what was waited for.
    let snapshot = db.begin_with("begin isolation level repeatable read, read only").await?;
    Ok((snapshot, point))
}

/// While it waits for one who writes, others who want to write wait for it. So it gives up in two seconds
/// (the function's `lock_timeout`), lets them go first, and tries again.
async fn read_point(db: &PgPool) -> Result<Timestamp, Error> {
    let mut attempts = 1;
    loop {
        let point = sqlx::query_scalar!(r#"select usage_read_point() as "point!""#);
        match point.fetch_one(db).await {
            Ok(point) => return Ok(point.to_jiff()),
            Err(sqlx::Error::Database(cause))
                if attempts < ATTEMPTS && cause.code().as_deref() == Some("55P03") =>
            {
                tracing::warn!(attempts, "usage is being stored for seconds; invoices wait for it");
            }
            Err(error) => return Err(error.into()),
        }
        attempts += 1;
        sleep(PAUSE).await;
    }
}

/// Looks for what came late for the closed periods of these tenants.
pub(super) async fn find(db: &mut PgConnection, due: &[Due]) -> Result<Found, Error> {
    let tenants: Vec<String> = due.iter().map(|due| due.tenant.to_string()).collect();
    let mut found = Found::default();
    let notes =
        sqlx::query!("select id, tenant_id from usage_late where tenant_id = any($1)", &tenants)
            .fetch_all(&mut *db)
            .await?;
    for note in notes {
        found.notes.entry(note.tenant_id).or_default().push(note.id);
    }
    let unsettled: Vec<String> =
        due.iter().filter(|due| !due.is_settled).map(|due| due.tenant.to_string()).collect();
    if found.notes.is_empty() && unsettled.is_empty() {
        return Ok(found);
    }
    let noted: Vec<i64> = found.notes.values().flatten().copied().collect();
    let suspects = suspects(db, &noted, &unsettled).await?;
    let ids: Vec<i64> = suspects.iter().map(|(id, _)| *id).collect();
    found.quarters = quarters::came_unnoted(db, &ids).await?;
    let mut differences = differences(db, &ids).await?;
    let differing: Vec<i64> = differences.keys().copied().collect();
    let mut billed = billed(db, &differing).await?;
    let mut periods = terms::of_invoices(db, &differing).await?;
    for (invoice_id, tenant) in suspects {
        let Some(differences) = differences.remove(&invoice_id) else { continue };
        let (period, terms) = periods.remove(&invoice_id).ok_or_else(|| {
            Error::stored(format!("the invoice with id {invoice_id} has no terms"))
        })?;
        let billed = billed.remove(&invoice_id).unwrap_or_default();
        let closed = Closed { invoice_id, period, terms, billed, differences };
        found.closed.entry(tenant).or_default().push(closed);
    }
    Ok(found)
}

impl Closed {
    /// What the differences cost.
    pub(super) fn late(self) -> Result<Late, Error> {
        let Self { invoice_id, period, terms, billed, differences } = self;
        let now = to_usage(&with(&billed, &differences)?)?;
        let adjustment = invoice::adjust(period, &in_force(&terms), &to_usage(&billed)?, &now)?;
        Ok(Late { invoice_id, differences, adjustment })
    }
}

/// The invoices whose periods may have got usage since, and their tenants; oldest first. They are of
/// the quarter hours that are `noted`, and of those that the `unsettled` tenants' last invoices may have
/// missed.
async fn suspects(
    db: &mut PgConnection,
    noted: &[i64],
    unsettled: &[String],
) -> Result<Vec<(i64, String)>, Error> {
    let rows = sqlx::query!(
        "with since as (
           select tenant_id, quarter from usage_late where id = any($1)
           union
           select given.tenant_id, quarter
           from unnest($2::text[]) as given (tenant_id)
           cross join lateral (
             select period_end, usage_read_at from invoice
             where tenant_id = given.tenant_id and not rebilled
             order by period_start desc limit 1
           ) last
           join usage_rollup rollup
             on rollup.tenant_id = given.tenant_id
            and quarter >= usage_read_at - interval '20 minutes' and quarter < period_end
         )
         select id, tenant_id from invoice
         where not rebilled and exists (
           select from since where since.tenant_id = invoice.tenant_id
             and quarter >= period_start and quarter < period_end)
         order by period_start, id",
        noted,
        unsettled,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.tenant_id)).collect())
}

/// How far the rollup is from what was billed, per invoice that closed a period; nothing where it is
/// not.
async fn differences(
    db: &mut PgConnection,
    invoices: &[i64],
) -> Result<HashMap<i64, Vec<QuantityRow>>, Error> {
    let rows = sqlx::query_as!(
        SumRow,
        r#"with stretch as (
             select invoice.id as invoice_id, tenant_id, terms.starts_at,
                    coalesce(lead(terms.starts_at) over (partition by invoice.id order by terms.starts_at),
                             invoice.period_end) as ends_at
             from invoice join invoice_terms terms on terms.invoice_id = invoice.id
             where invoice.id = any($1)
           ), known as (
             select invoice_id, starts_at, meter, model, tokens, requests
             from stretch join usage_rollup rollup
               on rollup.tenant_id = stretch.tenant_id
              and rollup.quarter >= stretch.starts_at and rollup.quarter < stretch.ends_at
             union all
             select period_invoice_id, starts_at, meter, model, -tokens, -requests
             from invoice_quantity join invoice on invoice.id = invoice_id
             where period_invoice_id = any($1) and not rebilled
           )
           select invoice_id as "invoice_id!", starts_at as "starts_at!", meter as "meter!",
                  model as "model!", sum(tokens) as "tokens!", sum(requests) as "requests!"
           from known group by invoice_id, starts_at, meter, model
           having sum(tokens) <> 0 or sum(requests) <> 0
           order by invoice_id, starts_at, meter, model"#,
        invoices,
    )
    .fetch_all(db)
    .await?;
    Ok(by_invoice(rows))
}

/// What all invoices together have priced of the periods that these invoices closed.
async fn billed(
    db: &mut PgConnection,
    invoices: &[i64],
) -> Result<HashMap<i64, Vec<QuantityRow>>, Error> {
    let rows = sqlx::query_as!(
        SumRow,
        r#"select period_invoice_id as invoice_id, starts_at, meter, model,
                  sum(tokens) as "tokens!", sum(requests) as "requests!"
           from invoice_quantity join invoice on invoice.id = invoice_id
           where period_invoice_id = any($1) and not rebilled
           group by period_invoice_id, starts_at, meter, model"#,
        invoices,
    )
    .fetch_all(db)
    .await?;
    Ok(by_invoice(rows))
}

struct SumRow {
    invoice_id: i64,
    starts_at: jiff_sqlx::Timestamp,
    meter: String,
    model: String,
    tokens: Decimal,
    requests: Decimal,
}

fn by_invoice(rows: Vec<SumRow>) -> HashMap<i64, Vec<QuantityRow>> {
    let mut sums = HashMap::<i64, Vec<QuantityRow>>::new();
    for SumRow { invoice_id, starts_at, meter, model, tokens, requests } in rows {
        let starts_at = Quarter::containing(starts_at.to_jiff());
        let quantity = QuantityRow { starts_at, meter, model, tokens, requests };
        sums.entry(invoice_id).or_default().push(quantity);
    }
    sums
}

/// `billed` and the differences together, in as many rows as there are sums.
fn with(billed: &[QuantityRow], differences: &[QuantityRow]) -> Result<Vec<QuantityRow>, Error> {
    let mut sums = billed.to_vec();
    differences.iter().try_for_each(|difference| add(&mut sums, difference.clone()))?;
    Ok(sums)
}
