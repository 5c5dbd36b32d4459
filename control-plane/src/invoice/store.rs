//! Writing an invoice, and giving it a number.

use sqlx::{PgConnection, types::Json};
use weir_domain::{
    id::TenantId,
    invoice::{Line, Subject},
    price::ModelPattern,
};

use super::{
    Error, InvoiceState,
    draft::{Draft, Terms},
    grants,
    period::to_sql,
    rule::StoredRule,
    usage::QuantityRow,
};

/// Stores `draft` as a final invoice and returns its id. The caller holds the tenant's row.
pub(super) async fn store(
    tx: &mut PgConnection,
    tenant: &TenantId,
    draft: &Draft,
) -> Result<i64, Error> {
    let number = next_number(tx).await?;
    let id = insert_invoice(tx, tenant, draft, &number).await?;
    for terms in &draft.terms {
        insert_terms(tx, id, terms).await?;
    }
    for quantity in &draft.quantities {
        insert_quantity(tx, id, id, quantity).await?;
    }
    for late in &draft.late {
        for difference in &late.differences {
            insert_quantity(tx, id, late.invoice_id, difference).await?;
        }
    }
    for (position, line) in (1..).zip(&draft.invoice.lines) {
        insert_line(tx, id, position, line, draft).await?;
    }
    grants::use_up(tx, [(id, &draft.invoice)].into_iter()).await?;
    Ok(id)
}

/// The number after the last one. Others wait for theirs until this transaction ends, and get this
/// one where it fails: so there are no gaps.
async fn next_number(tx: &mut PgConnection) -> Result<String, Error> {
    let number = sqlx::query_scalar!("update invoice_number set last = last + 1 returning last")
        .fetch_one(tx)
        .await?;
    Ok(format!("INV-{number:06}"))
}

async fn insert_invoice(
    tx: &mut PgConnection,
    tenant: &TenantId,
    draft: &Draft,
    number: &str,
) -> Result<i64, Error> {
    let invoice = &draft.invoice;
    let currency = invoice.total.currency();
    let id = sqlx::query_scalar!(
        r#"insert into invoice (number, tenant_id, state, currency, period_start, period_end, time_zone, total_minor)
           select $2, id, $3, $4, $5, $6, time_zone, $7 from tenant where id = $1
           returning id"#,
        tenant.as_str(),
        number,
        InvoiceState::Final as _,
        currency.as_str(),
        to_sql(invoice.period.start()) as _,
        to_sql(invoice.period.end()) as _,
        invoice.total.minor(),
    )
    .fetch_one(tx)
    .await?;
    Ok(id)
}

async fn insert_terms(tx: &mut PgConnection, invoice_id: i64, terms: &Terms) -> Result<(), Error> {
    sqlx::query!(
        "insert into invoice_terms (invoice_id, starts_at, plan_id, plan_version) values ($1, $2, $3, $4)",
        invoice_id,
        to_sql(terms.starts_at) as _,
        terms.plan_id,
        terms.plan_version,
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn insert_quantity(
    tx: &mut PgConnection,
    invoice_id: i64,
    period_invoice_id: i64,
    quantity: &QuantityRow,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into invoice_quantity
           (invoice_id, period_invoice_id, starts_at, meter, model, tokens, requests)
         values ($1, $2, $3, $4, $5, $6, $7)",
        invoice_id,
        period_invoice_id,
        to_sql(quantity.starts_at) as _,
        quantity.meter,
        quantity.model,
        quantity.tokens,
        quantity.requests,
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn insert_line(
    tx: &mut PgConnection,
    invoice_id: i64,
    position: i32,
    line: &Line,
    draft: &Draft,
) -> Result<(), Error> {
    let name = line.subject.name();
    let amount_minor = line.amount.minor();
    match &line.subject {
        Subject::Price { price, quantity, share } => {
            let counts = price.charge.unit().is_some();
            sqlx::query!(
                "insert into invoice_line
                   (invoice_id, position, name, charge, share_quarters, share_of, meter, model, quantity, amount_minor)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                invoice_id,
                position,
                name,
                Json(&price.charge) as _,
                i32::try_from(share.quarters).map_err(Error::stored)?,
                i32::try_from(share.of).map_err(Error::stored)?,
                counts.then_some(price.meter.as_str()),
                price.model.as_ref().map(ModelPattern::as_str),
                counts.then_some(rust_decimal::Decimal::from(*quantity)),
                amount_minor,
            )
            .execute(tx)
            .await?;
        }
        Subject::Rule(rule) => {
            sqlx::query!(
                "insert into invoice_line (invoice_id, position, name, rule, amount_minor)
                 values ($1, $2, $3, $4, $5)",
                invoice_id,
                position,
                name,
                Json(StoredRule::of(rule)) as _,
                amount_minor,
            )
            .execute(tx)
            .await?;
        }
        Subject::Adjustment { period } => {
            sqlx::query!(
                "insert into invoice_line (invoice_id, position, name, adjusts_invoice_id, amount_minor)
                 values ($1, $2, $3, $4, $5)",
                invoice_id,
                position,
                name,
                draft.invoice_of(*period),
                amount_minor,
            )
            .execute(tx)
            .await?;
        }
    }
    Ok(())
}
