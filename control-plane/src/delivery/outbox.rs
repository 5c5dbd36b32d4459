//! The rows of the outbox. All writes ask whether the claim still holds.

use std::time::Duration;

use sqlx::{PgConnection, PgExecutor};

use crate::provider::{call::Failure, claim::Claim};

/// What is to be done at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Step {
    /// Make the customer, if nobody has.
    Customer,
    /// Make the invoice: a draft at Stripe, the whole at Chargebee.
    Create,
    /// Add what lines are missing (Stripe).
    Lines,
    /// Compare the provider's total with ours.
    Compare,
    /// Make the draft an invoice (Stripe).
    Finalize,
    /// Have it sent to the customer (Stripe).
    Send,
    /// Void what has another total than ours (Chargebee).
    Reject,
    /// Void what is void in Weir.
    Void,
    /// Take off what credit notes take off in Weir.
    Credit,
}

impl Step {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Create => "create",
            Self::Lines => "lines",
            Self::Compare => "compare",
            Self::Finalize => "finalize",
            Self::Send => "send",
            Self::Reject => "reject",
            Self::Void => "void",
            Self::Credit => "credit",
        }
    }
}

/// A delivery whose step has been begun.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub invoice_id: i64,
    pub step: Step,
    /// Whether it had been begun before, so that it may have been carried out.
    pub again: bool,
    pub key_generation: i32,
    /// How often it has been begun, this time too.
    pub attempts: i32,
    pub provider_invoice_id: Option<String>,
    /// Since when the present keys have been used.
    pub key_age: Duration,
    pub customer_id: Option<String>,
    pub customer_name: Option<String>,
    pub customer_email: Option<String>,
}

/// What a step has led to.
#[derive(Debug, Default)]
pub struct Progress {
    /// What comes next; nothing when the delivery is done.
    pub next: Option<Step>,
    /// Whether what comes next may have been carried out already.
    pub look: bool,
    pub customer_id: Option<String>,
    pub provider_invoice_id: Option<String>,
    pub provider_number: Option<String>,
    /// Whether there is nothing to be paid any more.
    pub paid: bool,
    /// Credit notes that are at the provider: our id and the provider's.
    pub credited: Vec<(i64, String)>,
}

/// Begins the next step that is due of the claim's customer, oldest invoice first. `None` if there is
/// none. After `window` the provider may have forgotten a key, so there will be another.
pub async fn begin(claim: &Claim, window: Duration) -> Result<Option<Delivery>, Failure> {
    let row = sqlx::query!(
        r#"with due as (
             select invoice_id, begun,
                    coalesce(key_used_at < now() - make_interval(secs => $4), false) as passed
             from delivery
             where tenant_id = $1 and provider = $2 and state = 'open' and next_attempt_at <= now()
               and exists (select from provider_customer customer
                           where customer.tenant_id = $1 and customer.provider = $2 and claim = $3)
             order by invoice_id limit 1
             for update)
           update delivery
           set begun = true, attempts = attempts + 1,
               key_generation = key_generation + case when due.passed then 1 else 0 end,
               key_used_at = case when due.passed then now() else coalesce(key_used_at, now()) end,
               updated_at = now()
           from due, provider_customer customer
           where delivery.invoice_id = due.invoice_id
             and customer.tenant_id = $1 and customer.provider = $2
           returning delivery.invoice_id, step as "step: Step", due.begun as again, key_generation,
                     attempts, provider_invoice_id,
                     extract(epoch from now() - key_used_at)::float8 as "key_age_s!",
                     customer.customer_id, customer.name, customer.email"#,
        claim.tenant,
        claim.provider.as_str(),
        claim.number,
        window.as_secs_f64(),
    )
    .fetch_optional(&claim.db)
    .await?;
    Ok(row.map(|row| Delivery {
        invoice_id: row.invoice_id,
        step: row.step,
        again: row.again,
        key_generation: row.key_generation,
        attempts: row.attempts,
        provider_invoice_id: row.provider_invoice_id,
        key_age: Duration::try_from_secs_f64(row.key_age_s).unwrap_or_default(),
        customer_id: row.customer_id,
        customer_name: row.name,
        customer_email: row.email,
    }))
}

/// Ends a step. Nothing happens where the invoice has become void meanwhile: that comes next.
pub async fn end(claim: &Claim, delivery: &Delivery, progress: &Progress) -> Result<(), Failure> {
    let mut tx = claim.db.begin().await?;
    let holds = sqlx::query_scalar!(
        "update provider_customer set customer_id = coalesce($4, customer_id)
         where tenant_id = $1 and provider = $2 and claim = $3 returning true",
        claim.tenant,
        claim.provider.as_str(),
        claim.number,
        progress.customer_id,
    )
    .fetch_optional(&mut *tx)
    .await?;
    if holds.is_none() {
        return Err(Failure::Lost);
    }
    // Before the delivery, as whoever makes an invoice void does: else the two could wait for each other.
    if progress.next.is_none() && delivery.step != Step::Void {
        sqlx::query!(
            "update invoice set state = case when $2 then 'paid' else 'sent' end
             where id = $1 and (state = 'final' or ($2 and state = 'sent'))",
            delivery.invoice_id,
            progress.paid,
        )
        .execute(&mut *tx)
        .await?;
    }
    let next = match progress.next {
        None if delivery.step != Step::Void => credits(&mut tx, delivery, progress).await?,
        next => next,
    };
    sqlx::query!(
        "update delivery
         set state = case when $3::text is null then 'done' else 'open' end,
             step = coalesce($3, step), begun = $4, attempts = 0, key_used_at = null, last_error = null,
             next_attempt_at = now(), provider_invoice_id = coalesce($5, provider_invoice_id),
             provider_number = coalesce($6, provider_number),
             payment = case when $7 and payment <> 'void' then 'paid' else payment end,
             updated_at = now()
         where invoice_id = $1 and step = $2 and state = 'open'",
        delivery.invoice_id,
        delivery.step.as_str(),
        next.map(Step::as_str),
        progress.look,
        progress.provider_invoice_id,
        progress.provider_number,
        progress.paid,
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

/// Notes the credit notes that are at the provider. Others that it has yet to get come next.
async fn credits(
    tx: &mut PgConnection,
    delivery: &Delivery,
    progress: &Progress,
) -> Result<Option<Step>, sqlx::Error> {
    // A statement of its own: who makes a credit note at this moment holds the row, or waits for it.
    sqlx::query!("select from delivery where invoice_id = $1 for update", delivery.invoice_id)
        .execute(&mut *tx)
        .await?;
    if !progress.credited.is_empty() {
        let (ids, theirs): (Vec<i64>, Vec<String>) = progress.credited.iter().cloned().unzip();
        sqlx::query!(
            "insert into credit_note_delivery (credit_note_id, provider_credit_note_id)
             select * from unnest($1::bigint[], $2::text[]) on conflict do nothing",
            &ids,
            &theirs,
        )
        .execute(&mut *tx)
        .await?;
    }
    let more = sqlx::query_scalar!(
        r#"select exists (select from credit_note_due where invoice_id = $1) as "more!""#,
        delivery.invoice_id,
    )
    .fetch_one(tx)
    .await?;
    Ok(more.then_some(Step::Credit))
}

/// The step comes again after `wait`, with a new key where the old one is `burnt`.
pub async fn put_off(
    claim: &Claim,
    delivery: &Delivery,
    text: &str,
    wait: Duration,
    burnt: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update delivery
         set next_attempt_at = now() + make_interval(secs => $3), last_error = $4,
             key_generation = key_generation + case when $5 then 1 else 0 end,
             key_used_at = case when $5 then null else key_used_at end, updated_at = now()
         where invoice_id = $1 and step = $2 and state = 'open'
           and exists (select from provider_customer customer
                       where customer.tenant_id = $6 and customer.provider = $7 and claim = $8)",
        delivery.invoice_id,
        delivery.step.as_str(),
        wait.as_secs_f64(),
        text,
        burnt,
        claim.tenant,
        claim.provider.as_str(),
        claim.number,
    )
    .execute(&claim.db)
    .await
    .map(drop)
}

/// The delivery stops, until an operator has it tried again.
pub async fn stop(claim: &Claim, delivery: &Delivery, text: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update delivery
         set state = 'failed', last_error = $3, key_generation = key_generation + 1,
             key_used_at = null, updated_at = now()
         where invoice_id = $1 and step = $2 and state = 'open'
           and exists (select from provider_customer customer
                       where customer.tenant_id = $4 and customer.provider = $5 and claim = $6)",
        delivery.invoice_id,
        delivery.step.as_str(),
        text,
        claim.tenant,
        claim.provider.as_str(),
        claim.number,
    )
    .execute(&claim.db)
    .await
    .map(drop)
}

/// Has a delivery that stopped tried again; false if it had not stopped. What makes an invoice begins
/// from the start: what is at the provider already is found there.
pub async fn retry(db: impl PgExecutor<'_>, invoice_id: i64) -> Result<bool, sqlx::Error> {
    let retried = sqlx::query!(
        "update delivery
         set state = 'open', step = case when step in ('void', 'credit') then step else 'customer' end, begun = true,
             attempts = 0, next_attempt_at = now(), updated_at = now()
         where invoice_id = $1 and state = 'failed'",
        invoice_id,
    )
    .execute(db)
    .await?;
    Ok(retried.rows_affected() == 1)
}
