//! Writing invoices, and giving them numbers. Each table is written once for all of them.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use rust_decimal::Decimal;
use sqlx::{PgConnection, types::Json};
use weir_domain::{
    invoice::{Line, Subject},
    price::{Charge, ModelPattern},
};

use super::{
    Error, InvoiceState, draft::Draft, grants, period::to_sql, quarters, rule::StoredRule,
    usage::QuantityRow,
};

/// Stores `drafts` as final invoices and returns their ids, in their order. The caller holds the
/// tenants' rows, and nobody has closed the periods. `read_at` is the read point of their usage.
pub(super) async fn store(
    tx: &mut PgConnection,
    drafts: &[Draft],
    read_at: Timestamp,
) -> Result<Vec<i64>, Error> {
    if drafts.is_empty() {
        return Ok(Vec::new());
    }
    let ids = new_ids(tx, drafts.len()).await?;
    let drafts: Vec<(i64, &Draft)> = ids.iter().copied().zip(drafts).collect();
    insert_terms(tx, &drafts).await?;
    insert_quantities(tx, &drafts).await?;
    insert_lines(tx, &drafts).await?;
    grants::use_up(tx, drafts.iter().map(|(id, draft)| (*id, &draft.invoice))).await?;
    quarters::store(tx, &drafts).await?;
    // Last, because others wait for their numbers until this transaction ends.
    insert_invoices(tx, &drafts, read_at).await?;
    Ok(ids)
}

async fn new_ids(tx: &mut PgConnection, count: usize) -> Result<Vec<i64>, Error> {
    let ids = sqlx::query_scalar!(
        r#"select nextval(pg_get_serial_sequence('invoice', 'id')) as "id!"
           from generate_series(1, $1::bigint)"#,
        i64::try_from(count).map_err(Error::stored)?,
    );
    Ok(ids.fetch_all(tx).await?)
}

/// The numbers after the last one. Others wait for theirs until this transaction ends, and get these
/// where it fails: so there are no gaps.
async fn next_numbers(tx: &mut PgConnection, count: usize) -> Result<Vec<String>, Error> {
    let count = i64::try_from(count).map_err(Error::stored)?;
    let last =
        sqlx::query_scalar!("update invoice_number set last = last + $1 returning last", count)
            .fetch_one(tx)
            .await?;
    let first = last.saturating_sub(count).saturating_add(1);
    Ok((first..=last).map(|number| format!("INV-{number:06}")).collect())
}

async fn insert_invoices(
    tx: &mut PgConnection,
    drafts: &[(i64, &Draft)],
    read_at: Timestamp,
) -> Result<(), Error> {
    let numbers = next_numbers(tx, drafts.len()).await?;
    let (mut ids, mut tenants, mut zones) = (Vec::new(), Vec::new(), Vec::new());
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    let (mut currencies, mut totals) = (Vec::new(), Vec::new());
    for (id, draft) in drafts {
        ids.push(*id);
        tenants.push(draft.due.tenant.as_str());
        zones.push(draft.due.time_zone.name.as_str());
        starts.push(to_sql(draft.due.period.start()));
        ends.push(to_sql(draft.due.period.end()));
        currencies.push(draft.invoice.total.currency().to_string());
        totals.push(draft.invoice.total.minor());
    }
    sqlx::query!(
        "insert into invoice (id, number, tenant_id, state, currency, period_start, period_end, time_zone,
                              total_minor, usage_read_at, seller, note, due_at, buyer)
         overriding system value
         select given.id, number, tenant_id, $9, currency, period_start, period_end, given.time_zone,
                total_minor, $10, seller, note, now() + make_interval(days => payment_days),
                invoice_buyer(tenant.name, billing_address)
         from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::timestamptz[],
                     $6::timestamptz[], $7::text[], $8::bigint[])
              as given (id, number, tenant_id, currency, period_start, period_end, time_zone, total_minor)
         join tenant on tenant.id = tenant_id
         cross join invoice_settings",
        &ids,
        &numbers,
        &tenants as _,
        &currencies,
        &starts as _,
        &ends as _,
        &zones as _,
        &totals,
        InvoiceState::Final as _,
        read_at.to_sqlx() as _,
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn insert_terms(tx: &mut PgConnection, drafts: &[(i64, &Draft)]) -> Result<(), Error> {
    let (mut ids, mut starts) = (Vec::new(), Vec::new());
    let (mut plans, mut versions) = (Vec::new(), Vec::new());
    for (id, draft) in drafts {
        for terms in &draft.terms {
            ids.push(*id);
            starts.push(to_sql(terms.starts_at));
            plans.push(terms.plan_id.as_str());
            versions.push(terms.plan_version);
        }
    }
    sqlx::query!(
        "insert into invoice_terms (invoice_id, starts_at, plan_id, plan_version)
         select * from unnest($1::bigint[], $2::timestamptz[], $3::text[], $4::integer[])",
        &ids,
        &starts as _,
        &plans as _,
        &versions,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The quantities of the invoices' own periods, and what came late for earlier ones.
async fn insert_quantities(tx: &mut PgConnection, drafts: &[(i64, &Draft)]) -> Result<(), Error> {
    let (mut ids, mut periods, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    let (mut meters, mut models) = (Vec::new(), Vec::new());
    let (mut tokens, mut requests) = (Vec::new(), Vec::new());
    for (id, draft) in drafts {
        let own = draft.quantities.iter().map(|quantity| (*id, quantity));
        let late = draft.late.iter().flat_map(|late| {
            late.differences.iter().map(|difference| (late.invoice_id, difference))
        });
        for (period, quantity) in own.chain(late) {
            let QuantityRow { starts_at, meter, model, .. } = quantity;
            ids.push(*id);
            periods.push(period);
            starts.push(to_sql(*starts_at));
            meters.push(meter.as_str());
            models.push(model.as_str());
            tokens.push(quantity.tokens);
            requests.push(quantity.requests);
        }
    }
    sqlx::query!(
        "insert into invoice_quantity
           (invoice_id, period_invoice_id, starts_at, meter, model, tokens, requests)
         select * from unnest($1::bigint[], $2::bigint[], $3::timestamptz[], $4::text[], $5::text[],
                              $6::numeric[], $7::numeric[])",
        &ids,
        &periods,
        &starts as _,
        &meters as _,
        &models as _,
        &tokens,
        &requests,
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn insert_lines(tx: &mut PgConnection, drafts: &[(i64, &Draft)]) -> Result<(), Error> {
    let mut columns = LineColumns::default();
    for (id, draft) in drafts {
        for (position, line) in (1..).zip(&draft.invoice.lines) {
            columns.push(*id, position, line, draft)?;
        }
    }
    sqlx::query!(
        "insert into invoice_line (invoice_id, position, name, charge, share_quarters, share_of, meter,
                                   model, quantity, rule, adjusts_invoice_id, amount_minor)
         select * from unnest($1::bigint[], $2::integer[], $3::text[], $4::jsonb[], $5::integer[],
                              $6::integer[], $7::text[], $8::text[], $9::numeric[], $10::jsonb[],
                              $11::bigint[], $12::bigint[])",
        &columns.ids,
        &columns.positions,
        &columns.names,
        &columns.charges as _,
        &columns.share_quarters as _,
        &columns.share_ofs as _,
        &columns.meters as _,
        &columns.models as _,
        &columns.quantities as _,
        &columns.rules as _,
        &columns.adjusts as _,
        &columns.amounts,
    )
    .execute(tx)
    .await?;
    Ok(())
}

#[derive(Default)]
struct LineColumns<'a> {
    ids: Vec<i64>,
    positions: Vec<i32>,
    names: Vec<String>,
    charges: Vec<Option<Json<&'a Charge>>>,
    share_quarters: Vec<Option<i32>>,
    share_ofs: Vec<Option<i32>>,
    meters: Vec<Option<&'a str>>,
    models: Vec<Option<&'a str>>,
    quantities: Vec<Option<Decimal>>,
    rules: Vec<Option<Json<StoredRule>>>,
    adjusts: Vec<Option<i64>>,
    amounts: Vec<i64>,
}

impl<'a> LineColumns<'a> {
    fn push(&mut self, id: i64, position: i32, line: &'a Line, draft: &Draft) -> Result<(), Error> {
        self.ids.push(id);
        self.positions.push(position);
        self.names.push(line.subject.name(&draft.due.time_zone.zone));
        self.amounts.push(line.amount.minor());
        let (mut charge, mut share, mut adjusts) = (None, None, None);
        let (mut meter, mut model, mut quantity, mut rule) = (None, None, None, None);
        match &line.subject {
            Subject::Price { price, quantity: counted, share: part } => {
                charge = Some(Json(&price.charge));
                share = Some(part);
                model = price.model.as_ref().map(ModelPattern::as_str);
                if price.charge.unit().is_some() {
                    meter = Some(price.meter.as_str());
                    quantity = Some(Decimal::from(*counted));
                }
            }
            Subject::Rule(of) => rule = Some(Json(StoredRule::of(of))),
            Subject::Adjustment { period } => adjusts = draft.invoice_of(*period),
        }
        let count = |quarters: u32| i32::try_from(quarters).map_err(Error::stored);
        self.charges.push(charge);
        self.share_quarters.push(share.map(|share| count(share.quarters)).transpose()?);
        self.share_ofs.push(share.map(|share| count(share.of)).transpose()?);
        self.meters.push(meter);
        self.models.push(model);
        self.quantities.push(quantity);
        self.rules.push(rule);
        self.adjusts.push(adjusts);
        Ok(())
    }
}
