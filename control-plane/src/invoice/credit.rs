//! Credit notes: what is taken off an invoice, and voiding one.
//!
//! Postgres makes the credit note of an invoice that becomes void, whoever voids it (`migrations/`).

use jiff::Timestamp;
use rust_decimal::{Decimal, prelude::ToPrimitive};
use serde::Serialize;
use sqlx::{PgConnection, PgPool};
use utoipa::ToSchema;
use weir_domain::{currency::Currency, id::TenantId, money::Money};

use super::{Error, InvoiceState};

/// What was taken off an invoice.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CreditNote {
    pub id: i64,
    /// Numbers of a deployment have no gaps.
    pub number: String,
    pub tenant: String,
    /// The invoice's id.
    pub invoice: i64,
    pub invoice_number: Option<String>,
    pub currency: Currency,
    /// With all digits of the currency's minor unit. Negative where an invoice that is void was.
    #[schema(value_type = String)]
    pub amount: Decimal,
    pub reason: String,
    pub created_at: Timestamp,
}

/// Which credit notes are asked for; newest first.
#[derive(Debug, Clone, Default)]
pub struct Filter<'a> {
    pub tenant: Option<&'a TenantId>,
    pub invoice: Option<i64>,
    /// Only those with a smaller id.
    pub before: Option<i64>,
    /// Only this one.
    pub id: Option<i64>,
}

/// What becomes of the usage that a void invoice billed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// It is not charged again.
    Forgiven,
    /// The invoice's period is open again, and the next run bills it, with all that the invoice billed
    /// for earlier periods.
    Rebilled,
}

/// An invoice whose row is held.
struct Held {
    tenant: String,
    state: InvoiceState,
    rebilled: bool,
    name: String,
    /// What no credit note has taken off.
    left: Money,
}

/// Voids an invoice: a credit note takes off what is left of it. One that is void already stays as it is.
/// Only the tenant's last one can be billed again: periods follow each other.
pub async fn void(db: &PgPool, invoice: i64, reason: &str, usage: Usage) -> Result<(), Error> {
    let mut tx = db.begin().await?;
    // Before the invoice, as by those who make one.
    sqlx::query!(
        "select id from tenant where id = (select tenant_id from invoice where id = $1)
         for no key update",
        invoice,
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Held { tenant, state, rebilled, name, .. } = hold(&mut tx, invoice).await?;
    let rebill = usage == Usage::Rebilled;
    match state {
        InvoiceState::Void if rebill == rebilled => return Ok(()),
        InvoiceState::Void => {
            let is = if rebilled { "and billed again" } else { "and its usage is forgiven" };
            return Err(Error::Refused(format!("{name} is void already, {is}")));
        }
        InvoiceState::Paid => {
            return Err(Error::Refused(format!(
                "{name} is paid, so it can't be void; make a credit note for what you give back"
            )));
        }
        InvoiceState::Draft
        | InvoiceState::Grace
        | InvoiceState::Final
        | InvoiceState::Sent
        | InvoiceState::Overdue => {}
    }
    if rebill {
        reopen(&mut tx, invoice, &tenant, &name).await?;
    }
    sqlx::query!(
        "update invoice set state = $2, void_reason = $3, rebilled = $4 where id = $1",
        invoice,
        InvoiceState::Void as _,
        reason,
        rebill,
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

/// Makes sure that no period follows that of the invoice, and has the next run look again at what it
/// billed for earlier ones.
async fn reopen(
    tx: &mut PgConnection,
    invoice: i64,
    tenant: &str,
    name: &str,
) -> Result<(), Error> {
    let last = sqlx::query!(
        "select id, number from invoice where tenant_id = $1 and not rebilled
         order by period_start desc limit 1",
        tenant,
    )
    .fetch_one(&mut *tx)
    .await?;
    if last.id != invoice {
        return Err(Error::Refused(format!(
            "{name} is not the last invoice of {tenant}, so it can't be billed again; void {} first, to be billed again",
            last.number.unwrap_or_else(|| format!("the invoice with id {}", last.id))
        )));
    }
    sqlx::query!(
        "insert into usage_late (tenant_id, quarter, meter, model, tokens, requests)
         select $2, quarter, meter, model, tokens, requests from invoice_quarter
         where invoice_id = $1 and period_invoice_id <> $1
         union all
         select distinct $2, starts_at, null, null, null::bigint, null::bigint from invoice_quantity
         where invoice_id = $1 and period_invoice_id <> $1
           -- Of an earlier version, which kept no quarter hours.
           and not exists (select from invoice_quarter kept
                           where kept.invoice_id = $1
                             and kept.period_invoice_id = invoice_quantity.period_invoice_id)",
        invoice,
        tenant,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Takes `amount` off an invoice, at most what is left of it. Returns the credit note's id.
pub async fn credit(
    db: &PgPool,
    invoice: i64,
    amount: Decimal,
    reason: &str,
) -> Result<i64, Error> {
    let mut tx = db.begin().await?;
    let Held { state, name, left, .. } = hold(&mut tx, invoice).await?;
    if state == InvoiceState::Void {
        return Err(Error::Refused(format!("{name} is void: nothing of it is left to credit")));
    }
    let currency = left.currency();
    let minor = minor_units(amount, currency).ok_or_else(|| {
        Error::Amount(format!(
            "it must be more than 0, in {currency} with at most {} decimals",
            currency.minor_digits()
        ))
    })?;
    if minor > left.minor() {
        return Err(Error::Refused(format!(
            "{} {currency} of {name} is left; credit that at most",
            left.decimal()
        )));
    }
    let id = sqlx::query_scalar!(
        r#"select add_credit_note($1, $2, $3) as "id!""#,
        invoice,
        minor,
        reason,
    )
    .fetch_one(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(id)
}

/// The id of the invoice with this number.
pub async fn numbered(db: &PgPool, number: &str) -> Result<i64, Error> {
    sqlx::query_scalar!("select id from invoice where number = $1", number)
        .fetch_optional(db)
        .await?
        .ok_or_else(|| Error::NoInvoice(number.to_owned()))
}

/// The invoice, which nobody else credits, voids or moves on before the transaction ends.
async fn hold(tx: &mut PgConnection, invoice: i64) -> Result<Held, Error> {
    // A statement of its own: what was credited while this waited must be seen.
    sqlx::query!("select id from invoice where id = $1 for no key update", invoice)
        .fetch_optional(&mut *tx)
        .await?
        .ok_or_else(|| Error::NoInvoice(invoice.to_string()))?;
    let row = sqlx::query!(
        r#"select tenant_id, state as "state: InvoiceState", rebilled, number, currency,
                  (total_minor - (select coalesce(sum(amount_minor), 0) from credit_note
                                  where invoice_id = invoice.id))::bigint as "left_minor!"
           from invoice where id = $1"#,
        invoice,
    )
    .fetch_one(tx)
    .await?;
    let currency = Currency::new(&row.currency).map_err(Error::stored)?;
    Ok(Held {
        tenant: row.tenant_id,
        state: row.state,
        rebilled: row.rebilled,
        name: row.number.unwrap_or_else(|| format!("the invoice with id {invoice}")),
        left: Money::new(row.left_minor, currency),
    })
}

/// `None` unless it is a whole number of minor units above 0.
fn minor_units(amount: Decimal, currency: Currency) -> Option<i64> {
    let scale = Decimal::from(10_u64.checked_pow(currency.minor_digits())?);
    let minor = amount.checked_mul(scale)?;
    if minor.fract().is_zero() { minor.to_i64().filter(|minor| *minor > 0) } else { None }
}

/// The credit note with this id.
pub async fn get(db: &PgPool, id: i64) -> Result<Option<CreditNote>, Error> {
    let filter = Filter { id: Some(id), ..Filter::default() };
    Ok(list(db, &filter, 1).await?.pop())
}

/// Credit notes, newest first, at most `limit` of them.
pub async fn list(db: &PgPool, filter: &Filter<'_>, limit: i64) -> Result<Vec<CreditNote>, Error> {
    let rows = sqlx::query!(
        r#"select note.id, note.number, tenant_id, invoice_id, invoice.number as invoice_number,
                  currency, amount_minor, reason, note.created_at
           from credit_note note join invoice on invoice.id = invoice_id
           where ($1::text is null or tenant_id = $1) and ($2::bigint is null or invoice_id = $2)
             and ($3::bigint is null or note.id < $3) and ($4::bigint is null or note.id = $4)
           order by note.id desc limit $5"#,
        filter.tenant.map(TenantId::as_str),
        filter.invoice,
        filter.before,
        filter.id,
        limit,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            let currency = Currency::new(&row.currency).map_err(Error::stored)?;
            Ok(CreditNote {
                id: row.id,
                number: row.number,
                tenant: row.tenant_id,
                invoice: row.invoice_id,
                invoice_number: row.invoice_number,
                currency,
                amount: Money::new(row.amount_minor, currency).decimal(),
                reason: row.reason,
                created_at: row.created_at.to_jiff(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_a_whole_number_of_minor_units() {
        let minor = |amount: &str, currency| {
            minor_units(amount.parse().unwrap(), Currency::new(currency).unwrap())
        };
        assert_eq!(minor("0.10", "USD"), Some(10));
        assert_eq!(minor("0.100", "USD"), Some(10));
        assert_eq!(minor("5", "JPY"), Some(5));
        assert_eq!(minor("0.001", "KWD"), Some(1));
        for (amount, currency) in [
            ("0", "USD"),
            ("-1", "USD"),
            ("0.001", "USD"),
            ("0.5", "JPY"),
            ("92233720368547758.08", "USD"),
            ("79228162514264337593543950335", "USD"),
        ] {
            assert_eq!(minor(amount, currency), None, "{amount} {currency}");
        }
    }
}
