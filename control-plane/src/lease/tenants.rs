//! What a lease is decided on, cached: each tenant's state, limits and time zone.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::tz::TimeZone;
use moka::future::Cache;
use sha2::{Digest, Sha256};
use sqlx::{PgPool, types::Json};
use thiserror::Error;
use weir_domain::{
    id::TenantId,
    limit::{Limit, Refill, WindowError},
    plan::PlanTerms,
    protocol::TenantState,
};

use super::{
    POSTGRES_WITHIN, SLOW,
    script::{Placed, Start},
};
use crate::{edge::changes::Changes, problem::ApiError};

/// The most tenants kept, strangers among them.
const CAPACITY: u64 = 100_000;
/// How long an entry is good without word from [`Changes`] that nothing has changed.
const FRESH: Duration = Duration::from_secs(1);
/// How often an entry is read again that something changed under.
const READ_AGAIN: usize = 3;
/// How long an entry that nobody asks for is kept.
const IDLE: Duration = Duration::from_secs(600);

/// A tenant that leases are decided for.
#[derive(Debug)]
pub struct Tenant {
    pub id: TenantId,
    pub state: TenantState,
    pub plan: String,
    pub limits: Vec<Limit>,
    pub time_zone: TimeZone,
    /// Of the limits: leases drawn under others are replaced.
    limits_hash: [u8; 32],
}

impl Tenant {
    /// The limits, with their periods at `now_ms`.
    pub fn place(&self, now_ms: i64) -> Result<Vec<Placed<'_>>, WindowError> {
        self.limits
            .iter()
            .map(|limit| {
                let window = match limit.refill {
                    Refill::Continuous { .. } => None,
                    Refill::Periodic { period } => Some(period.window(now_ms, &self.time_zone)?),
                };
                Ok(Placed { limit, window, start: Start::Undecided })
            })
            .collect()
    }

    /// Names the terms of a lease: limits, periods and Redis epoch. The script adds a number of the
    /// lease to make the stamp.
    pub fn stamp_base(&self, placed: &[Placed<'_>], epoch: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(self.limits_hash);
        for window in placed.iter().filter_map(|placed| placed.window) {
            hash.update(window.start_ms.to_be_bytes());
        }
        hash.update(epoch);
        hash.finalize().iter().take(6).fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// Why a tenant can't be told.
#[derive(Debug, Clone, Error)]
#[error("{0}")]
pub struct LoadError(Arc<ApiError>);

impl LoadError {
    fn is_outage(&self) -> bool {
        matches!(*self.0, ApiError::Unavailable(..))
    }
}

impl From<Arc<LoadError>> for ApiError {
    fn from(error: Arc<LoadError>) -> Self {
        match &*error.0 {
            Self::Unavailable(what, _) => {
                Self::Unavailable(what, Box::new(LoadError::clone(&error)))
            }
            _ => Self::Internal(Box::new(LoadError::clone(&error))),
        }
    }
}

/// The tenants, by id.
#[derive(Clone)]
pub struct Tenants {
    db: PgPool,
    changes: Changes,
    cache: Cache<TenantId, Entry>,
    /// What was read last of tenants that exist, for when Postgres does not answer.
    last: Cache<TenantId, Entry>,
    stale_for: Duration,
    /// When Postgres last did not answer; `None` when it answered since.
    outage: Arc<Mutex<Option<Instant>>>,
}

#[derive(Clone)]
struct Entry {
    /// `None`: there is no such tenant.
    tenant: Option<Arc<Tenant>>,
    loaded_at: Instant,
    /// The latest revision that was known before it was loaded.
    revision: u64,
}

impl Tenants {
    /// While Postgres does not answer, what was read in the last `stale_for` holds.
    pub fn new(db: PgPool, changes: Changes, stale_for: Duration) -> Self {
        let cache = || Cache::builder().max_capacity(CAPACITY).time_to_idle(IDLE).build();
        Self { db, changes, cache: cache(), last: cache(), stale_for, outage: Arc::default() }
    }

    /// The tenant, at most [`FRESH`] old, or as of the latest change that is known to Postgres. While
    /// that does not answer, as it was last read.
    pub async fn get(&self, id: &TenantId) -> Result<Option<Arc<Tenant>>, ApiError> {
        if let Some(entry) = self.cache.get(id).await {
            if self.is_good(&entry) {
                return Ok(entry.tenant);
            }
            self.cache.invalidate(id).await;
        }
        let outage = *self.outage();
        if let Some(since) = outage {
            // One asks from time to time whether it is over, and nobody waits for that.
            if since.elapsed() >= FRESH {
                self.note_outage();
                let (tenants, id) = (self.clone(), id.clone());
                tokio::spawn(async move { tenants.load_in_time(&id).await });
            }
            return self.stale(id, SLOW).await;
        }
        match self.load_in_time(id).await {
            Ok(tenant) => Ok(tenant),
            Err(error) => {
                let is_outage = self.outage().is_some();
                if is_outage { self.stale(id, error).await } else { Err(error) }
            }
        }
    }

    /// Asks Postgres, and notes whether it answers.
    async fn load_in_time(&self, id: &TenantId) -> Result<Option<Arc<Tenant>>, ApiError> {
        let load = self.cache.try_get_with(id.clone(), self.load(id));
        match tokio::time::timeout(POSTGRES_WITHIN, load).await {
            Ok(Err(error)) if error.is_outage() => {
                self.note_outage();
                Err(error.into())
            }
            Err(_) => {
                self.note_outage();
                Err(SLOW)
            }
            Ok(answered) => {
                *self.outage() = None;
                Ok(answered?.tenant)
            }
        }
    }

    /// The tenant as it was last read, unless that is too long ago, or it has changed since.
    async fn stale(&self, id: &TenantId, error: ApiError) -> Result<Option<Arc<Tenant>>, ApiError> {
        let last = self.last.get(id).await;
        match last.filter(|last| last.loaded_at.elapsed() < self.stale_for) {
            Some(last) => Ok(last.tenant),
            None => Err(error),
        }
    }

    fn note_outage(&self) {
        if self.outage().replace(Instant::now()).is_none() {
            tracing::warn!("Postgres does not answer; tenants' terms hold as they were read last");
        }
    }

    fn outage(&self) -> MutexGuard<'_, Option<Instant>> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Any change makes older entries reload, not only that tenant's: an entry that was being
    /// loaded when its tenant changed is then not mistaken for a new one.
    fn is_good(&self, entry: &Entry) -> bool {
        entry.loaded_at.elapsed() < FRESH || self.changes.is_still(entry.revision)
    }

    /// Has a tenant be read again; what was read last still holds while Postgres does not answer.
    pub async fn reload(&self, id: &TenantId) {
        self.cache.invalidate(id).await;
    }

    /// Forgets all tenants: any may have changed.
    pub fn forget_all(&self) {
        self.cache.invalidate_all();
        self.last.invalidate_all();
    }

    /// Forgets a tenant that has changed.
    pub async fn forget(&self, id: &TenantId) {
        self.cache.invalidate(id).await;
        self.last.invalidate(id).await;
    }

    async fn load(&self, id: &TenantId) -> Result<Entry, LoadError> {
        let mut entry = self.read(id).await?;
        // What was read may lack a change of which gateways have heard by now.
        for _ in 0..READ_AGAIN {
            if self.changes.revision() == entry.revision {
                break;
            }
            entry = self.read(id).await?;
        }
        if entry.tenant.is_some() {
            self.last.insert(id.clone(), entry.clone()).await;
        }
        // A change that became known while this was read may have come too soon to forget it.
        if entry.tenant.is_none() || self.changes.revision() != entry.revision {
            self.last.invalidate(id).await;
        }
        Ok(entry)
    }

    async fn read(&self, id: &TenantId) -> Result<Entry, LoadError> {
        Ok(Entry {
            revision: self.changes.revision(),
            loaded_at: Instant::now(),
            tenant: self.query(id).await.map_err(|error| LoadError(Arc::new(error)))?,
        })
    }

    async fn query(&self, id: &TenantId) -> Result<Option<Arc<Tenant>>, ApiError> {
        let row = sqlx::query!(
            r#"select state, plan_id, time_zone, version.terms as "terms: Json<PlanTerms>"
               from tenant, lateral (
                 select terms from plan_version where plan_version.plan_id = tenant.plan_id
                 order by version desc limit 1
               ) version
               where id = $1"#,
            id.as_str(),
        )
        .fetch_optional(&self.db)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let limits = row.terms.0.limits;
        let bytes = serde_json::to_vec(&limits).map_err(ApiError::internal)?;
        Ok(Some(Arc::new(Tenant {
            id: id.clone(),
            state: match row.state.as_str() {
                "active" => TenantState::Active,
                _ => TenantState::Suspended,
            },
            time_zone: TimeZone::get(&row.time_zone).map_err(ApiError::internal)?,
            plan: row.plan_id,
            limits_hash: Sha256::digest(bytes).into(),
            limits,
        })))
    }
}
