//! The task in `weir serve` that works off what is due.

use std::{sync::Arc, time::Duration};

use metrics::{counter, gauge};
use sqlx::PgPool;
use tokio::{
    sync::{OnceCell, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    backoff, chargebee,
    outbox::{self, Delivery, Progress, Step},
    stripe,
};
use crate::provider::{
    Kind, Providers,
    bill::{self, Bill},
    call::{Failure, Refusal},
    chargebee::KEY_WINDOW as CHARGEBEE_KEY_WINDOW,
    claim::Claim,
    stripe::KEY_WINDOW as STRIPE_KEY_WINDOW,
};

/// How often it looks for what is due.
const POLL: Duration = Duration::from_millis(500);
/// How often it counts what there is.
const COUNT_EVERY: Duration = Duration::from_secs(10);
/// For how many customers of a provider it works at once.
const AT_ONCE: usize = 64;
/// It claims customers for so many at once, not one by one, unless it waits for longer than [`POLL`].
const CLAIM_AT_ONCE: usize = 8;
/// How long a step that is under way may take once the process has been told to stop.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Sends invoices.
pub struct Worker {
    db: PgPool,
    providers: Arc<Providers>,
    /// How long a claim lasts: longer than a call.
    claim_lasts: Duration,
    /// Its name never changes.
    deployment: OnceCell<String>,
    stopping: watch::Receiver<bool>,
}

impl Worker {
    pub fn new(
        db: PgPool,
        providers: Arc<Providers>,
        call_timeout: Duration,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self { db, providers, claim_lasts: call_timeout * 2, deployment: OnceCell::new(), stopping }
    }

    /// Works until it is told to stop. A step that is under way then is ended, if that takes no longer
    /// than [`STOP_WITHIN`]; otherwise another replica takes it over.
    pub async fn run(self) {
        let worker = Arc::new(self);
        let mut loops = JoinSet::new();
        // One that makes us wait must not hold up the other.
        for provider in worker.providers.kinds() {
            loops.spawn(Arc::clone(&worker).work_for(provider));
        }
        loops.spawn(Arc::clone(&worker).keep_house());
        while loops.join_next().await.is_some() {}
    }

    async fn work_for(self: Arc<Self>, provider: Kind) {
        let mut stopping = self.stopping.clone();
        let mut tasks = JoinSet::new();
        while !*stopping.borrow() {
            while tasks.try_join_next().is_some() {}
            let room = AT_ONCE.saturating_sub(tasks.len());
            let claimed = self.claim(provider, room).await;
            let may_be_more = claimed.len() >= room;
            for claim in claimed {
                let worker = Arc::clone(&self);
                tasks.spawn(async move { worker.serve(&claim).await });
            }
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => {}
                () = has_room(&mut tasks), if may_be_more => {}
                () = sleep(POLL) => {}
            }
        }
        let ended = async { while tasks.join_next().await.is_some() {} };
        if timeout(STOP_WITHIN, ended).await.is_err() {
            tracing::warn!(?provider, "calls were still under way; they are taken over");
        }
    }

    async fn claim(&self, provider: Kind, limit: usize) -> Vec<Claim> {
        let limit = i64::try_from(limit).unwrap_or(1);
        match Claim::take(&self.db, provider, self.claim_lasts, limit).await {
            Ok(claims) => claims,
            Err(error) => {
                tracing::warn!(%error, "no invoices are sent while Postgres does not answer");
                Vec::new()
            }
        }
    }

    /// Works off all that is due of one customer, and lets go of it.
    async fn serve(&self, claim: &Claim) {
        let done = async {
            while !*self.stopping.borrow() && self.next_step(claim).await? {}
            claim.release().await?;
            Ok::<(), Failure>(())
        };
        match done.await {
            Ok(()) => {}
            Err(Failure::Lost) => {
                tracing::warn!(
                    tenant = claim.tenant,
                    "another worker has taken over its deliveries"
                );
            }
            // The claim passes, and then the step is taken over.
            Err(error) => tracing::error!(tenant = claim.tenant, %error, "a delivery is held up"),
        }
    }

    /// Carries out the next step that is due; false if there is none.
    async fn next_step(&self, claim: &Claim) -> Result<bool, Failure> {
        let window = match claim.provider {
            Kind::Chargebee => CHARGEBEE_KEY_WINDOW,
            Kind::Stripe | Kind::Manual => STRIPE_KEY_WINDOW,
        };
        let Some(delivery) = outbox::begin(claim, window).await? else {
            return Ok(false);
        };
        let failure = match self.carry_out(claim, &delivery).await {
            Ok(progress) => {
                if progress.next.is_none() {
                    let Delivery { invoice_id, step, .. } = &delivery;
                    tracing::info!(
                        tenant = claim.tenant,
                        invoice = invoice_id,
                        step = step.as_str(),
                        "delivered"
                    );
                    count(claim, "done");
                }
                outbox::end(claim, &delivery, &progress).await?;
                return Ok(true);
            }
            Err(failure) => failure,
        };
        let text = failure.to_string();
        match failure {
            Failure::Lost | Failure::Sql(_) => return Err(failure),
            Failure::Refused(refusal) => {
                self.stop(claim, &delivery, &refusal.text).await?;
            }
            _ if delivery.attempts >= backoff::MAX_ATTEMPTS => {
                let text = format!("after {} attempts: {text}", delivery.attempts);
                self.stop(claim, &delivery, &text).await?;
            }
            Failure::Later { wait, .. } => put_off(claim, &delivery, &text, wait, false).await?,
            Failure::Unknown(_) => put_off(claim, &delivery, &text, None, false).await?,
            Failure::Burnt(_) => put_off(claim, &delivery, &text, None, true).await?,
        }
        Ok(true)
    }

    async fn carry_out(&self, claim: &Claim, delivery: &Delivery) -> Result<Progress, Failure> {
        let bill = Bill::read(&self.db, delivery.invoice_id).await?;
        if bill.is_void && delivery.step != Step::Void {
            // A call that makes it may be under way.
            let look = delivery.again && matches!(delivery.step, Step::Customer | Step::Create);
            return Ok(Progress { next: Some(Step::Void), look, ..Progress::default() });
        }
        if bill.total_minor == 0 && delivery.step != Step::Void {
            // Nobody needs an invoice of nothing.
            return Ok(Progress { paid: true, ..Progress::default() });
        }
        let (Providers { stripe, chargebee }, bill) = (self.providers.as_ref(), &bill);
        match (claim.provider, stripe, chargebee) {
            (Kind::Stripe, Some(stripe), _) => {
                let deployment =
                    self.deployment.get_or_try_init(|| bill::deployment(&self.db)).await?;
                stripe::Work { stripe, claim, delivery, bill, deployment }.carry_out().await
            }
            (Kind::Chargebee, _, Some(chargebee)) => {
                chargebee::Work { chargebee, claim, delivery, bill }.carry_out().await
            }
            _ => Err(Refusal::found("this provider is not configured")),
        }
    }

    async fn stop(&self, claim: &Claim, delivery: &Delivery, text: &str) -> Result<(), Failure> {
        let Delivery { invoice_id, step, .. } = delivery;
        let text = format!(
            "{text} — stopped at the step {}; when that is mended, POST /admin/v1/deliveries/{invoice_id}/retry",
            step.as_str()
        );
        tracing::error!(
            tenant = claim.tenant,
            invoice = invoice_id,
            step = step.as_str(),
            "{text}"
        );
        count(claim, "failed");
        outbox::stop(claim, delivery, &text).await?;
        Ok(())
    }

    /// Counts deliveries for the metrics, and forgets webhook calls that nobody repeats any more.
    async fn keep_house(self: Arc<Self>) {
        let mut stopping = self.stopping.clone();
        while !*stopping.borrow() {
            if let Err(error) = self.keep_house_once().await {
                tracing::warn!(%error, "deliveries could not be counted");
            }
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => {}
                () = sleep(COUNT_EVERY) => {}
            }
        }
    }

    async fn keep_house_once(&self) -> Result<(), sqlx::Error> {
        let counts = sqlx::query!(
            r#"select (select count(*) from delivery where state = 'open') as "open!",
                      (select count(*) from delivery where state = 'failed') as "failed!""#
        )
        .fetch_one(&self.db)
        .await?;
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        for (state, count) in [("open", counts.open as f64), ("failed", counts.failed as f64)] {
            gauge!("weir_deliveries", "state" => state).set(count);
        }
        sqlx::query!("delete from webhook_event where received_at < now() - interval '30 days'")
            .execute(&self.db)
            .await?;
        Ok(())
    }
}

/// Waits until some of the customers that are worked for have nothing more that is due.
async fn has_room(tasks: &mut JoinSet<()>) {
    while AT_ONCE.saturating_sub(tasks.len()) < CLAIM_AT_ONCE {
        tasks.join_next().await;
    }
}

fn count(claim: &Claim, outcome: &'static str) {
    counter!("weir_deliveries_total", "provider" => claim.provider.as_str(), "outcome" => outcome)
        .increment(1);
}

async fn put_off(
    claim: &Claim,
    delivery: &Delivery,
    text: &str,
    asked: Option<Duration>,
    burnt: bool,
) -> Result<(), sqlx::Error> {
    let wait = backoff::wait(delivery.attempts, asked);
    let Delivery { invoice_id, step, attempts, .. } = delivery;
    let (tenant, step) = (&claim.tenant, step.as_str());
    tracing::warn!(tenant, invoice = invoice_id, step, attempts, ?wait, "put off: {text}");
    counter!("weir_delivery_retries_total", "provider" => claim.provider.as_str()).increment(1);
    outbox::put_off(claim, delivery, text, wait, burnt).await
}

/// Nothing is there that is to be voided. Where a call was under way that makes it, and nobody knows what
/// became of it, it is looked for again: when the call has been over for as long as a claim lasts.
pub(super) fn nothing_to_void(claim: &Claim, delivery: &Delivery) -> Result<Progress, Failure> {
    let wait = claim.lasts.saturating_sub(delivery.key_age);
    if delivery.again && !wait.is_zero() {
        let text = "the invoice became void while it was being made; nothing is there yet, which is looked at again";
        return Err(Failure::Later { text: text.to_owned(), wait: Some(wait) });
    }
    Ok(Progress::default())
}

/// The provider's total is not ours: somebody must look at it.
pub(super) fn mismatch(
    claim: &Claim,
    delivery: &Delivery,
    (theirs, their_currency): (i64, &str),
    (ours, currency): (i64, &str),
    remedy: &str,
) -> Failure {
    counter!("weir_delivery_mismatches_total", "provider" => claim.provider.as_str()).increment(1);
    Refusal::found(format!(
        "the provider's total of the invoice with id {} is {theirs} {}, ours is {ours} {currency} (in minor units): {remedy}",
        delivery.invoice_id,
        their_currency.to_uppercase(),
    ))
}
