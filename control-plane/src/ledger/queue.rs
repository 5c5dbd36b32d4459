//! The queue in front of the ledger. A few tasks take what waits in it and commit it together, so
//! that many gateways share one commit and nobody waits for a timer.

use std::{sync::Arc, time::Duration};

use metrics::{counter, gauge, histogram};
use sqlx::PgPool;
use thiserror::Error;
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, timeout},
};

use super::{
    batch::{Content, Incoming},
    commit::{Outcome, commit},
};

/// The most batches that wait, and the most bytes that they have together.
const MAX_WAITING: usize = 4096;
const MAX_WAITING_BYTES: usize = 128 << 20;
/// What one transaction takes at most; a single batch may have more records.
const MAX_GROUP_BATCHES: usize = 256;
const MAX_GROUP_RECORDS: usize = 20_000;
/// How many transactions there are at once: while one waits for Postgres' disk, another one is made.
const COMMITTERS: usize = 2;
/// A transaction that takes longer has failed.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(15);

/// Stores usage batches; clones share one queue.
#[derive(Clone)]
pub struct Ledger {
    jobs: mpsc::Sender<Job>,
    bytes: Arc<Semaphore>,
}

/// Why it is not known to be stored; to be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    #[error("too many usage batches wait to be stored")]
    Full,
    #[error("the batch could not be stored at the moment")]
    Failed,
}

struct Job {
    batch: Incoming,
    answer: oneshot::Sender<Result<Outcome, Refused>>,
    /// Its share of [`MAX_WAITING_BYTES`], given back when it is dropped.
    _bytes: OwnedSemaphorePermit,
}

impl Ledger {
    /// Starts the tasks that commit. They end when all clones of this are gone.
    pub fn start(db: PgPool) -> Self {
        let (jobs, waiting) = mpsc::channel(MAX_WAITING);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..COMMITTERS {
            tokio::spawn(commit_groups(db.clone(), Arc::clone(&waiting)));
        }
        Self { jobs, bytes: Arc::new(Semaphore::new(MAX_WAITING_BYTES)) }
    }

    /// Stores `batch`, and returns after the commit.
    pub async fn store(&self, batch: Incoming) -> Result<Outcome, Refused> {
        let bytes = u32::try_from(batch.body.len()).map_err(|_| Refused::Full)?;
        let permit =
            Arc::clone(&self.bytes).try_acquire_many_owned(bytes).map_err(|_| Refused::Full)?;
        let (answer, answered) = oneshot::channel();
        let job = Job { batch, answer, _bytes: permit };
        self.jobs.try_send(job).map_err(|_| Refused::Full)?;
        gauge!("weir_usage_waiting_batches").increment(1);
        answered.await.unwrap_or(Err(Refused::Failed))
    }
}

async fn commit_groups(db: PgPool, waiting: Arc<Mutex<mpsc::Receiver<Job>>>) {
    while let Some(group) = next_group(&waiting).await {
        store_group(&db, group).await;
    }
}

/// What waits, as far as one transaction takes it; `None` once nothing more can come.
async fn next_group(waiting: &Mutex<mpsc::Receiver<Job>>) -> Option<Vec<Job>> {
    let mut waiting = waiting.lock().await;
    let first = waiting.recv().await?;
    let mut records = first.batch.records().len();
    let mut group = vec![first];
    while group.len() < MAX_GROUP_BATCHES && records < MAX_GROUP_RECORDS {
        let Ok(job) = waiting.try_recv() else { break };
        records += job.batch.records().len();
        group.push(job);
    }
    #[expect(clippy::cast_precision_loss, reason = "a few hundred at most")]
    gauge!("weir_usage_waiting_batches").decrement(group.len() as f64);
    Some(group)
}

/// Commits `group` together; if it can't be, each batch on its own, so that a batch that Postgres
/// refuses does no harm to others.
async fn store_group(db: &PgPool, mut group: Vec<Job>) {
    match commit_within_time(db, &group).await {
        Ok(outcomes) => {
            for (job, outcome) in group.into_iter().zip(outcomes) {
                answer(job, Ok(outcome));
            }
        }
        Err(Failure::Data(_)) => {
            group.sort_by(|a, b| {
                (a.batch.worker_key(), a.batch.sequence)
                    .cmp(&(b.batch.worker_key(), b.batch.sequence))
            });
            for job in group {
                store_alone(db, job).await;
            }
        }
        Err(failure) => {
            tracing::error!(batches = group.len(), "usage was not stored: {failure}");
            for job in group {
                answer(job, Err(Refused::Failed));
            }
        }
    }
}

async fn store_alone(db: &PgPool, mut job: Job) {
    let mut result = commit_within_time(db, std::slice::from_ref(&job)).await;
    if let Err(Failure::Data(reason)) = &result {
        job.batch.content = Content::Poison(reason.clone());
        result = commit_within_time(db, std::slice::from_ref(&job)).await;
    }
    match result.map(|outcomes| outcomes.into_iter().next()) {
        Ok(Some(outcome)) => answer(job, Ok(outcome)),
        Ok(None) => answer(job, Err(Refused::Failed)),
        Err(failure) => {
            let Incoming { gateway, worker, sequence, .. } = &job.batch;
            tracing::error!(gateway, worker, sequence, "usage was not stored: {failure}");
            answer(job, Err(Refused::Failed));
        }
    }
}

/// Why a transaction did not commit, as far as is known.
#[derive(Debug, Error)]
enum Failure {
    /// Postgres refuses something in the batches, and would again.
    #[error("Postgres refuses it: {0}")]
    Data(String),
    #[error(transparent)]
    Other(sqlx::Error),
    #[error("the transaction took longer than {COMMIT_TIMEOUT:?}")]
    Slow,
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        // SQLSTATE classes: data exception, integrity violation, program limit exceeded.
        let is_data = error
            .as_database_error()
            .and_then(|error| error.code())
            .is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.starts_with(class)));
        if is_data || matches!(error, sqlx::Error::Encode(_)) {
            Self::Data(error.to_string())
        } else {
            Self::Other(error)
        }
    }
}

async fn commit_within_time(db: &PgPool, group: &[Job]) -> Result<Vec<Outcome>, Failure> {
    let started = Instant::now();
    let batches: Vec<_> = group.iter().map(|job| &job.batch).collect();
    let mut connection = db.acquire().await?;
    let outcomes = match timeout(COMMIT_TIMEOUT, commit(&mut connection, &batches)).await {
        Ok(done) => done?,
        Err(_) => {
            // Given up in the middle of a statement, it is of no use to others.
            drop(connection.detach());
            return Err(Failure::Slow);
        }
    };
    #[expect(clippy::cast_precision_loss, reason = "a few hundred at most")]
    histogram!("weir_usage_commit_batches").record(group.len() as f64);
    histogram!("weir_usage_commit_seconds").record(started.elapsed());
    Ok(outcomes)
}

/// Counts what became of the batch, and tells whoever posted it.
fn answer(job: Job, result: Result<Outcome, Refused>) {
    let Job { batch, answer, .. } = job;
    let outcome = match &result {
        Ok(Outcome::Stored) => {
            let sum = |of: fn(&weir_domain::usage::UsageRecord) -> u64| {
                batch.records().iter().map(of).fold(0, u64::saturating_add)
            };
            counter!("weir_usage_records_total").increment(sum(|_| 1));
            counter!("weir_usage_tokens_total").increment(sum(|record| record.tokens.get()));
            counter!("weir_usage_requests_total").increment(sum(|record| record.requests.get()));
            "stored"
        }
        Ok(Outcome::Repeat) => "repeat",
        Ok(Outcome::Quarantined(reason)) => {
            let Incoming { gateway, worker, sequence, .. } = &batch;
            tracing::error!(
                gateway,
                worker,
                sequence,
                reason,
                "a usage batch can't be stored and is quarantined"
            );
            "quarantined"
        }
        Ok(Outcome::Gap { .. }) => "gap",
        Err(_) => "failed",
    };
    counter!("weir_usage_batches_total", "outcome" => outcome).increment(1);
    // Whoever posted it may be gone; it is stored all the same.
    let _ = answer.send(result);
}
