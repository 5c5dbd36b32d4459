//! What invoices have billed of each quarter hour, where the rollup can't tell it later: of a quarter hour to
//! which usage may still come without being noted in `usage_late`, and of earlier periods.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use weir_domain::billing_period::Quarter;

use super::{
    Error,
    draft::{Draft, Input},
    period::to_sql,
};

/// Usage of a quarter hour that starts earlier than so long before it is written is noted (the trigger
/// `usage_rollup_late`).
const NOTED_AFTER: SignedDuration = SignedDuration::from_mins(20);

/// What an invoice bills of a quarter hour, of one meter and model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QuarterRow {
    /// The invoice of the period in which it lies; `None` for the one that bills it.
    pub(super) period_invoice: Option<i64>,
    pub(super) quarter: Quarter,
    pub(super) meter: String,
    pub(super) model: String,
    pub(super) tokens: i64,
    pub(super) requests: i64,
}

/// The usage of the inputs' own periods to which more may come unnoted after `read_at`, by tenant. In a run
/// that is a grace time after the ends of periods there is none, and nothing is read.
pub(super) async fn open(
    db: &mut PgConnection,
    inputs: &[Input],
    read_at: Timestamp,
) -> Result<HashMap<String, Vec<QuarterRow>>, Error> {
    let from = read_at.checked_sub(NOTED_AFTER).unwrap_or(read_at);
    let open = inputs.iter().map(|input| &input.due).filter(|due| due.period.end().start() > from);
    let (mut tenants, mut starts, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for due in open {
        tenants.push(due.tenant.as_str());
        starts.push(to_sql(due.period.start()));
        ends.push(to_sql(due.period.end()));
    }
    let mut found = HashMap::<String, Vec<QuarterRow>>::new();
    if tenants.is_empty() {
        return Ok(found);
    }
    let rows = sqlx::query!(
        "select rollup.tenant_id, quarter, meter, model, tokens, requests
         from unnest($1::text[], $2::timestamptz[], $3::timestamptz[])
                as open (tenant_id, starts_at, ends_at)
         join usage_rollup rollup on rollup.tenant_id = open.tenant_id
         where quarter >= starts_at and quarter < ends_at and quarter >= $4",
        &tenants as _,
        &starts as _,
        &ends as _,
        from.to_sqlx() as _,
    )
    .fetch_all(db)
    .await?;
    for row in rows {
        found.entry(row.tenant_id).or_default().push(QuarterRow {
            period_invoice: None,
            quarter: Quarter::containing(row.quarter.to_jiff()),
            meter: row.meter,
            model: row.model,
            tokens: row.tokens,
            requests: row.requests,
        });
    }
    Ok(found)
}

/// What came to such quarter hours of the periods that these invoices have closed, and no invoice has billed
/// yet; by tenant.
pub(super) async fn came_unnoted(
    db: &mut PgConnection,
    invoices: &[i64],
) -> Result<HashMap<String, Vec<QuarterRow>>, Error> {
    let rows = sqlx::query!(
        r#"with closed as (
             select id, tenant_id, usage_read_at - interval '20 minutes' as open_from, period_start, period_end
             from invoice
             where id = any($1) and usage_read_at - interval '20 minutes' < period_end
           ), known as (
             select id, tenant_id, quarter, meter, model, tokens, requests
             from closed join usage_rollup using (tenant_id)
             where quarter >= period_start and quarter < period_end and quarter >= open_from
             union all
             select closed.id, closed.tenant_id, quarter, meter, model, -tokens, -requests
             from closed join invoice_quarter on period_invoice_id = closed.id and quarter >= open_from
             join invoice on invoice.id = invoice_id and not rebilled
           )
           select id as "id!", tenant_id as "tenant_id!", quarter as "quarter!", meter as "meter!",
                  model as "model!", sum(tokens)::bigint as "tokens!", sum(requests)::bigint as "requests!"
           from known group by id, tenant_id, quarter, meter, model
           having sum(tokens) <> 0 or sum(requests) <> 0"#,
        invoices,
    )
    .fetch_all(db)
    .await?;
    let mut came = HashMap::<String, Vec<QuarterRow>>::new();
    for row in rows {
        came.entry(row.tenant_id).or_default().push(QuarterRow {
            period_invoice: Some(row.id),
            quarter: Quarter::containing(row.quarter.to_jiff()),
            meter: row.meter,
            model: row.model,
            tokens: row.tokens,
            requests: row.requests,
        });
    }
    Ok(came)
}

/// Writes what these invoices, with their ids, bill of quarter hours: what was read for them, and what the
/// notes say that they settle. Then the notes go.
pub(super) async fn store(tx: &mut PgConnection, drafts: &[(i64, &Draft)]) -> Result<(), Error> {
    insert(tx, drafts).await?;
    let (mut ids, mut notes) = (Vec::new(), Vec::new());
    for (id, draft) in drafts {
        ids.extend(draft.late_notes.iter().map(|_| *id));
        notes.extend(&draft.late_notes);
    }
    if notes.is_empty() {
        return Ok(());
    }
    // Notes of the invoices' own periods say nothing that the rollup does not.
    sqlx::query!(
        "insert into invoice_quarter
           (invoice_id, period_invoice_id, quarter, meter, model, tokens, requests)
         select given.invoice_id, closed.id, quarter, meter, model, sum(tokens), sum(requests)
         from unnest($1::bigint[], $2::bigint[]) as given (invoice_id, note_id)
         join usage_late note on note.id = note_id and meter is not null
         join invoice closed on closed.tenant_id = note.tenant_id and not rebilled
          and quarter >= period_start and quarter < period_end
          and quarter < usage_read_at - interval '20 minutes'
         group by given.invoice_id, closed.id, quarter, meter, model
         having sum(tokens) <> 0 or sum(requests) <> 0",
        &ids,
        &notes,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!("delete from usage_late where id = any($1)", &notes).execute(tx).await?;
    Ok(())
}

async fn insert(tx: &mut PgConnection, drafts: &[(i64, &Draft)]) -> Result<(), Error> {
    let (mut ids, mut periods, mut quarters) = (Vec::new(), Vec::new(), Vec::new());
    let (mut meters, mut models) = (Vec::new(), Vec::new());
    let (mut tokens, mut requests) = (Vec::new(), Vec::new());
    for (id, row) in
        drafts.iter().flat_map(|(id, draft)| draft.quarters.iter().map(move |it| (*id, it)))
    {
        ids.push(id);
        periods.push(row.period_invoice.unwrap_or(id));
        quarters.push(to_sql(row.quarter));
        meters.push(row.meter.as_str());
        models.push(row.model.as_str());
        tokens.push(row.tokens);
        requests.push(row.requests);
    }
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into invoice_quarter
           (invoice_id, period_invoice_id, quarter, meter, model, tokens, requests)
         select * from unnest($1::bigint[], $2::bigint[], $3::timestamptz[], $4::text[], $5::text[],
                              $6::bigint[], $7::bigint[])",
        &ids,
        &periods,
        &quarters as _,
        &meters as _,
        &models as _,
        &tokens,
        &requests,
    )
    .execute(tx)
    .await?;
    Ok(())
}
