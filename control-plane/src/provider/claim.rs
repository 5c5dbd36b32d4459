//! Who sends the invoices of a customer: one worker of one replica at a time.
//!
//! A claim holds for twice as long as a call may take, and is renewed before a call that it might not
//! outlast. A worker that is killed loses it by
//! letting it pass; a worker that lost it changes nothing more, since every write asks for its number.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::PgPool;

use super::{Kind, call::Failure};

/// What one worker may work on until it passes.
#[derive(Debug, Clone)]
pub struct Claim {
    pub db: PgPool,
    pub tenant: String,
    pub provider: Kind,
    pub number: i64,
    pub lasts: Duration,
    /// It holds for [`Claim::lasts`] from here at least.
    since: Arc<Mutex<Instant>>,
}

impl Claim {
    /// Claims customers of `provider` with deliveries that are due, at most `limit`.
    pub async fn take(
        db: &PgPool,
        provider: Kind,
        lasts: Duration,
        limit: i64,
    ) -> Result<Vec<Self>, sqlx::Error> {
        let since = Instant::now();
        // Several deliveries of one customer may be due; who is locked by another is skipped.
        let rows = sqlx::query!(
            r#"with due as (
                 select customer.tenant_id, customer.provider
                 from delivery join provider_customer customer using (tenant_id, provider)
                 where delivery.state = 'open' and delivery.next_attempt_at <= now()
                   and provider = $1 and customer.claimed_until <= now()
                 order by delivery.next_attempt_at limit $3
                 for update of customer skip locked)
               update provider_customer customer
               set claim = claim + 1, claimed_until = now() + make_interval(secs => $2)
               from (select distinct tenant_id, provider from due) due
               where customer.tenant_id = due.tenant_id and customer.provider = due.provider
               returning customer.tenant_id, claim"#,
            provider.as_str(),
            lasts.as_secs_f64(),
            limit,
        )
        .fetch_all(db)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| Self {
                db: db.clone(),
                tenant: row.tenant_id,
                provider,
                number: row.claim,
                lasts,
                since: Arc::new(Mutex::new(since)),
            })
            .collect())
    }

    /// Makes sure that it outlasts a call; an error where another worker has it.
    pub async fn outlast_call(&self) -> Result<(), Failure> {
        let now = Instant::now();
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        // A call takes half of it at most.
        if now.duration_since(since) < self.lasts / 4 {
            return Ok(());
        }
        let renewed = sqlx::query!(
            "update provider_customer set claimed_until = now() + make_interval(secs => $4)
             where tenant_id = $1 and provider = $2 and claim = $3",
            self.tenant,
            self.provider.as_str(),
            self.number,
            self.lasts.as_secs_f64(),
        )
        .execute(&self.db)
        .await?;
        if renewed.rows_affected() != 1 {
            return Err(Failure::Lost);
        }
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = now;
        Ok(())
    }

    /// Lets others have it at once.
    pub async fn release(&self) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "update provider_customer set claimed_until = now()
             where tenant_id = $1 and provider = $2 and claim = $3",
            self.tenant,
            self.provider.as_str(),
            self.number,
        )
        .execute(&self.db)
        .await
        .map(drop)
    }
}
