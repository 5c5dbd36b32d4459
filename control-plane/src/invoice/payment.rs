//! Payments that no provider tells of.

use sqlx::PgPool;

use super::Error;

/// Notes that an invoice is paid which no provider has. One that is paid already stays as it is.
pub async fn mark_paid(db: &PgPool, invoice: i64) -> Result<(), Error> {
    let paid = sqlx::query!(
        "update invoice set state = 'paid'
         where id = $1 and state in ('final', 'sent')
           and not exists (select from delivery where invoice_id = $1)",
        invoice,
    );
    if paid.execute(db).await?.rows_affected() == 1 {
        return Ok(());
    }
    let found = sqlx::query!("select number, state from invoice where id = $1", invoice)
        .fetch_optional(db)
        .await?
        .ok_or_else(|| Error::NoInvoice(invoice.to_string()))?;
    let name = found.number.unwrap_or_else(|| format!("the invoice with id {invoice}"));
    match found.state.as_str() {
        "paid" => Ok(()),
        "void" => Err(Error::Refused(format!("{name} is void: nothing is to be paid"))),
        _ => Err(Error::Refused(format!(
            "{name} is delivered by a provider, which says when it is paid; note the payment there"
        ))),
    }
}
