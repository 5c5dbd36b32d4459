//! Carrying out what a provider says, once.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use metrics::counter;
use sqlx::PgPool;

use crate::{problem::ApiError, provider::Kind};

/// What happened to an invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Paid,
    /// A payment was tried and failed.
    Failed,
    Overdue,
    Void,
}

/// A webhook call that is known to come from the provider.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) provider: Kind,
    /// The provider's id of the event.
    pub(super) id: String,
    pub(super) at: Timestamp,
    /// What names the invoice in Weir.
    pub(super) reference: String,
    /// The provider's id of the invoice.
    pub(super) invoice: String,
    pub(super) change: Change,
}

/// Counts what has become of a call.
pub(super) fn count(provider: Kind, outcome: &'static str) {
    counter!("weir_webhook_calls_total", "provider" => provider.as_str(), "outcome" => outcome)
        .increment(1);
}

/// Carries `event` out, if it has not been and is about an invoice of this deployment.
pub(super) async fn apply(db: &PgPool, event: &Event) -> Result<(), ApiError> {
    let outcome = carry_out(db, event).await?;
    count(event.provider, outcome);
    Ok(())
}

async fn carry_out(db: &PgPool, event: &Event) -> Result<&'static str, ApiError> {
    let id = sqlx::query_scalar!(
        "select invoice_id from delivery where reference = $1",
        event.reference
    )
    .fetch_optional(db)
    .await?;
    let Some(id) = id else { return Ok("ignored") };
    let mut tx = db.begin().await?;
    let is_new = sqlx::query!(
        "insert into webhook_event (provider, event_id) values ($1, $2) on conflict do nothing",
        event.provider.as_str(),
        event.id,
    )
    .execute(&mut *tx)
    .await?;
    if is_new.rows_affected() == 0 {
        return Ok("repeat");
    }
    // The invoice first, as everybody does who changes both: else two could wait for each other.
    sqlx::query!("select id from invoice where id = $1 for update", id)
        .fetch_optional(&mut *tx)
        .await?;
    let (payment, state) = match event.change {
        Change::Paid => ("paid", Some("paid")),
        Change::Void => ("void", Some("void")),
        Change::Failed => ("failed", None),
        Change::Overdue => ("overdue", None),
    };
    // One that the provider has under another id is not this one: such as an invoice that was
    // rejected. Void before it is delivered is nobody's wish but ours; afterwards nothing more is to be
    // done there, whatever was.
    let applied = sqlx::query!(
        "update delivery
         set payment = $4, payment_at = $5, updated_at = now(),
             state = case when $4 = 'void' and step <> 'void' then 'done' else state end,
             step = case when $4 = 'void' and state <> 'done' then 'void' else step end,
             last_error = case when $4 = 'void' then null else last_error end
         where invoice_id = $1 and provider = $2 and provider_invoice_id = $3
           and payment in ('open', 'failed', 'overdue')
           and ($6 or payment_at is null or payment_at <= $5)
           and ($4 <> 'void'
                or exists (select from invoice where id = $1 and state not in ('grace', 'final')))",
        id,
        event.provider.as_str(),
        event.invoice,
        payment,
        event.at.to_sqlx() as _,
        state.is_some(),
    )
    .execute(&mut *tx)
    .await?;
    let Event { provider, change, at, .. } = event;
    if applied.rows_affected() == 0 {
        let under_way = sqlx::query_scalar!(
            "select true from delivery
             where invoice_id = $1 and provider = $2 and state = 'open' and provider_invoice_id is null",
            id,
            provider.as_str(),
        )
        .fetch_optional(&mut *tx)
        .await?;
        if under_way.is_some() {
            return Err(ApiError::Busy("this invoice has not been seen at the provider yet"));
        }
        tracing::info!(invoice = id, ?provider, ?change, %at, "a webhook call changed nothing");
        return Ok("ignored");
    }
    if let Some(state) = state {
        sqlx::query!(
            "update invoice set state = $2 where id = $1 and state in ('final', 'sent')",
            id,
            state,
        )
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    tracing::info!(invoice = id, ?provider, ?change, %at, "the provider says so");
    Ok("applied")
}
