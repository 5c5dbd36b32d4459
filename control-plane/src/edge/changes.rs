//! What this replica knows of changes: the latest revision, as Postgres tells it.
//!
//! Postgres notifies when a change commits. A look each second replaces notifications that a broken
//! connection swallows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{PgPool, postgres::PgListener};
use tokio::sync::{Notify, watch};
use weir_domain::id::TenantId;

use crate::{change::CHANNEL, lease::tenants::Tenants};

/// How often Postgres is asked without being notified.
const LOOK: Duration = Duration::from_secs(1);
/// How long a look may take: a connection may be dead without saying so.
const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// How long a look is good for: one that is due may take a while.
const GOOD_FOR: Duration = Duration::from_millis(1_500);

/// The latest revision; cloning it is cheap.
#[derive(Clone)]
pub struct Changes {
    revision: watch::Receiver<u64>,
    /// The same, when what was known of changed tenants is forgotten.
    heard: watch::Receiver<u64>,
    looked: Arc<Looked>,
}

struct Looked {
    since: Instant,
    /// When Postgres was last asked, in ms after `since`.
    at_ms: AtomicU64,
}

/// Keeps [`Changes`] up to date while it runs.
pub struct Watcher {
    db: PgPool,
    revision: watch::Sender<u64>,
    heard: watch::Sender<u64>,
    looked: Arc<Looked>,
}

/// What has changed after a revision.
#[derive(Debug)]
pub struct Since {
    pub revision: u64,
    /// The changed tenants, or `None` where they are not known any more.
    pub tenants: Option<Vec<TenantId>>,
}

impl Changes {
    pub fn new(db: PgPool) -> (Self, Watcher) {
        let (sender, revision) = watch::channel(0);
        let (hears, heard) = watch::channel(0);
        let looked = Arc::new(Looked { since: Instant::now(), at_ms: AtomicU64::new(0) });
        let changes = Self { revision, heard, looked: Arc::clone(&looked) };
        (changes, Watcher { db, revision: sender, heard: hears, looked })
    }

    /// The latest revision that is known; 0 before the first look.
    pub fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// Whether `revision` is the latest, by a look not long ago.
    pub fn is_still(&self, revision: u64) -> bool {
        let looked = Duration::from_millis(self.looked.at_ms.load(Ordering::Acquire));
        revision != 0
            && self.revision() == revision
            && self.looked.since.elapsed().saturating_sub(looked) < GOOD_FOR
    }

    /// Returns when a revision after `revision` is known, and holds.
    pub async fn newer_than(&mut self, revision: u64) {
        if self.heard.wait_for(|current| *current > revision).await.is_err() {
            // The watcher has ended, so the process is about to.
            std::future::pending().await
        }
    }
}

/// Reads what changed after `after`.
pub async fn since(db: &PgPool, after: u64) -> Result<Since, sqlx::Error> {
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    // One statement, so that revision and changes are of one moment.
    let rows = sqlx::query!(
        r#"select config_revision.revision, config_change.revision as "change?", tenant_id
           from config_revision left join config_change
             on config_change.revision > $1 and config_change.revision <= config_revision.revision
           order by config_change.revision"#,
        after,
    )
    .fetch_all(db)
    .await?;
    let revision = rows.first().map_or(0, |row| row.revision);
    let known = rows.iter().filter(|row| row.change.is_some()).count();
    // Revisions have no gaps: where one is missing, it has been deleted.
    let complete = i64::try_from(known) == Ok(revision.saturating_sub(after));
    // A change without a tenant is one of the policy, which is looked up by whoever asks for it.
    let mut tenants: Vec<TenantId> =
        rows.into_iter().filter_map(|row| TenantId::new(row.tenant_id?).ok()).collect();
    tenants.sort_unstable();
    tenants.dedup();
    Ok(Since {
        revision: u64::try_from(revision).unwrap_or(0),
        tenants: complete.then_some(tenants),
    })
}

impl Watcher {
    /// Follows Postgres until `stopping`; `tenants` forgets those that changed.
    pub async fn run(self, mut stopping: watch::Receiver<bool>, tenants: &Tenants) {
        let notified = Notify::new();
        let look = async {
            loop {
                let looked_at = self.looked.since.elapsed();
                let known = *self.revision.borrow();
                match tokio::time::timeout(LOOK_WITHIN, since(&self.db, known)).await {
                    Ok(Ok(since)) => self.publish(since, looked_at, tenants).await,
                    Ok(Err(error)) => tracing::warn!(%error, "cannot look for changes"),
                    Err(_) => tracing::warn!("cannot look for changes: Postgres does not answer"),
                }
                let _ = tokio::time::timeout(LOOK, notified.notified()).await;
            }
        };
        tokio::select! {
            () = look => {}
            () = listen(&self.db, &notified) => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }

    async fn publish(&self, since: Since, looked_at: Duration, tenants: &Tenants) {
        // First the revision: what is loaded from here on has the change.
        self.revision.send_if_modified(|revision| {
            let modified = *revision != since.revision;
            *revision = since.revision;
            modified
        });
        let at_ms = u64::try_from(looked_at.as_millis()).unwrap_or(u64::MAX);
        self.looked.at_ms.store(at_ms, Ordering::Release);
        match since.tenants {
            None => tenants.forget_all(),
            Some(changed) => {
                for tenant in changed {
                    tenants.forget(&tenant).await;
                }
            }
        }
        self.heard.send_replace(since.revision);
    }
}

async fn listen(db: &PgPool, notified: &Notify) {
    loop {
        match PgListener::connect_with(db).await {
            Ok(mut listener) => {
                if let Err(error) = listen_on(&mut listener, notified).await {
                    tracing::warn!(%error, "lost the connection that tells of changes");
                }
            }
            Err(error) => tracing::warn!(%error, "cannot listen for changes"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn listen_on(listener: &mut PgListener, notified: &Notify) -> Result<(), sqlx::Error> {
    listener.listen(CHANNEL).await?;
    loop {
        // What came before was not heard.
        notified.notify_one();
        listener.recv().await?;
    }
}
