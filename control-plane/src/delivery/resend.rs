//! Sending an invoice again, because somebody asks for it.

use sqlx::{PgConnection, PgPool};
use thiserror::Error;

use super::outbox;
use crate::{invoice::read, problem::ApiError, provider::Kind};

/// Why an invoice is not sent again.
#[derive(Debug, Error)]
pub enum ResendError {
    /// It would change nothing, or nobody can; the text says why.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Invoice(#[from] crate::invoice::Error),
    #[error("Postgres: {0}")]
    Sql(#[from] sqlx::Error),
}

impl From<ResendError> for ApiError {
    fn from(error: ResendError) -> Self {
        match error {
            ResendError::Refused(detail) => Self::Conflict(detail),
            ResendError::Invoice(error) => error.into(),
            ResendError::Sql(error) => error.into(),
        }
    }
}

/// Queues an invoice that is to be paid: a delivery that has stopped goes on, one that is done at Stripe is
/// sent again from there, and an invoice without one goes to the provider that the tenant has now.
pub async fn resend(db: &PgPool, invoice: i64) -> Result<(), ResendError> {
    let found = read::get(db, invoice).await?;
    let found = found.ok_or_else(|| crate::invoice::Error::NoInvoice(invoice.to_string()))?;
    let name = found.number.unwrap_or_default();
    let mut tx = db.begin().await?;
    // Nobody makes it void or paid meanwhile; the invoice first, as everybody does who changes both.
    sqlx::query!("select from invoice where id = $1 for no key update", invoice)
        .execute(&mut *tx)
        .await?;
    if !outbox::retry(&mut *tx, invoice).await? && !send_again(&mut tx, invoice).await? {
        queue_or_refuse(&mut tx, invoice, &name).await?;
    }
    Ok(tx.commit().await?)
}

/// Queues an invoice that has no delivery; where that can't be, the error says why.
async fn queue_or_refuse(
    tx: &mut PgConnection,
    invoice: i64,
    name: &str,
) -> Result<(), ResendError> {
    let refused = |text: String| Err(ResendError::Refused(format!("{name} {text}")));
    let state = sqlx::query!(
        r#"select invoice.state, tenant.provider as "now: Kind",
                  delivery.provider as "provider?: Kind", delivery.state as "delivery?"
           from invoice join tenant on tenant.id = tenant_id
           left join delivery on delivery.invoice_id = invoice.id
           where invoice.id = $1"#,
        invoice,
    )
    .fetch_one(&mut *tx)
    .await?;
    match (state.state.as_str(), state.delivery.as_deref()) {
        ("paid" | "void", _) => refused(format!("is {}: nothing is to be sent", state.state)),
        (_, Some("open")) => refused("is on its way already".to_owned()),
        (_, Some(_)) => refused(format!(
            "is at {}, which sends its mail itself",
            state.provider.map_or("its provider", Kind::as_str)
        )),
        (_, None) if state.now == Kind::Manual => refused(
            "has nobody who sends it: the tenant's provider is manual; set one, and try again"
                .to_owned(),
        ),
        (_, None) => Ok(queue(tx, invoice).await?),
    }
}

/// Has Stripe send the mail of an invoice again that is there and not paid; false if it is not.
async fn send_again(tx: &mut PgConnection, invoice: i64) -> sqlx::Result<bool> {
    let queued = sqlx::query!(
        "update delivery
         set state = 'open', step = 'send', begun = false, key_generation = key_generation + 1, key_used_at = null,
             attempts = 0, next_attempt_at = now(), updated_at = now()
         where invoice_id = $1 and provider = 'stripe' and state = 'done'
           and step in ('send', 'credit') and payment not in ('paid', 'void')
           and exists (select from invoice where id = $1 and state in ('final', 'sent'))",
        invoice,
    );
    Ok(queued.execute(tx).await?.rows_affected() == 1)
}

async fn queue(tx: &mut PgConnection, invoice: i64) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into provider_customer (tenant_id, provider)
         select tenant.id, tenant.provider from tenant join invoice on tenant_id = tenant.id
         where invoice.id = $1 and tenant.provider <> 'manual'
         on conflict do nothing",
        invoice,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "insert into delivery (invoice_id, tenant_id, provider)
         select invoice.id, tenant.id, tenant.provider from tenant join invoice on tenant_id = tenant.id
         where invoice.id = $1 and tenant.provider <> 'manual' and invoice.state = 'final'
         on conflict do nothing",
        invoice,
    )
    .execute(tx)
    .await
    .map(drop)
}
