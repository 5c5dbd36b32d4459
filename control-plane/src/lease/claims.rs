//! Claims: what Postgres releases to Redis of a periodic limit, block by block.
//!
//! A claim is committed before Redis is fed, and Redis is fed once at most: where the outcome is
//! not known, the block stays unspent in that period. Tokens may strand, and are never minted.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use moka::sync::Cache;
use sqlx::PgPool;
use weir_domain::{
    id::{LimitName, TenantId},
    limit::Window,
    quantity::Quantity,
};

use super::{
    POSTGRES_WITHIN, SLOW,
    demand::{AHEAD, Demand},
    link::Redis,
    period,
    script::{self, Call, Place, Placed, Released, Reply, Wish, signed},
};
use crate::problem::ApiError;

/// A claim that is not answered by then is given up, and its block unspent: Postgres may pause, but a
/// connection that is dead must not hold a bucket up for ever.
const CLAIM_WITHIN: Duration = Duration::from_secs(30);
/// The most buckets whose demand is known.
const CAPACITY: u64 = 200_000;

/// Claims blocks and feeds them to Redis.
#[derive(Clone)]
pub struct Claims {
    db: PgPool,
    redis: Arc<Redis>,
    lease_ttl_ms: u64,
    demands: Cache<(TenantId, LimitName), Arc<Demand>>,
}

/// A periodic bucket, to be fed.
#[derive(Debug, Clone)]
pub struct Target {
    pub tenant: TenantId,
    pub limit: weir_domain::limit::Limit,
    pub window: Window,
}

/// What a claim left in Postgres.
struct Claimed {
    block: Quantity,
    adjustment: i64,
    released: Released,
}

impl Claims {
    pub fn new(db: PgPool, redis: Arc<Redis>, lease_ttl_ms: u64) -> Self {
        let demands = Cache::builder().max_capacity(CAPACITY).time_to_idle(AHEAD * 60).build();
        Self { db, redis, lease_ttl_ms, demands }
    }

    pub fn demand(&self, tenant: &TenantId, limit: &LimitName) -> Arc<Demand> {
        self.demands.get_with((tenant.clone(), limit.clone()), Arc::default)
    }

    /// Feeds `target`, unless somebody has since `fed_before`. Fails where that takes too long; the
    /// block arrives all the same.
    pub async fn feed_in_time(
        &self,
        target: Target,
        wish: Wish,
        fed_before: u64,
    ) -> Result<(), ApiError> {
        let demand = self.demand(&target.tenant, &target.limit.name);
        let fed = tokio::time::timeout(POSTGRES_WITHIN, self.feed(target, wish, fed_before)).await;
        fed.unwrap_or_else(|_| {
            demand.note_slow(fed_before);
            Err(SLOW)
        })
    }

    /// A task of its own claims: whoever waits may go away, and a block that was claimed must still
    /// arrive.
    async fn feed(&self, target: Target, wish: Wish, fed_before: u64) -> Result<(), ApiError> {
        let demand = self.demand(&target.tenant, &target.limit.name);
        let gate = match Arc::clone(&demand.gate).try_lock_owned() {
            Ok(gate) => gate,
            Err(_) => {
                demand.note_missed(wish);
                Arc::clone(&demand.gate).lock_owned().await
            }
        };
        if demand.fed() != fed_before {
            return Ok(());
        }
        let claims = self.clone();
        tokio::spawn(async move {
            let _gate = gate;
            let wish = demand.with_missed(wish);
            claims.claim_and_feed(&target, &demand, wish, demand.ahead()).await
        })
        .await
        .map_err(ApiError::internal)?
    }

    /// Feeds `target` in the background, unless a block is on its way already.
    pub fn prefetch(&self, target: Target, demand: &Arc<Demand>) {
        if !demand.begin_prefetch() {
            return;
        }
        let (claims, demand) = (self.clone(), Arc::clone(demand));
        tokio::spawn(async move {
            let wish = Wish { least: Quantity::ZERO, welcome: Quantity::ZERO };
            let fed = demand.fed();
            if let Err(error) = claims.feed(target, wish, fed).await {
                tracing::warn!(%error, "cannot claim ahead of demand");
            }
            demand.end_prefetch();
        });
    }

    /// Reads again what Postgres has left of `target`, tells Redis, and takes back from Redis what
    /// is claimed beyond the capacity.
    pub async fn refresh(&self, target: Target) -> Result<(), ApiError> {
        let wish = Wish { least: Quantity::ZERO, welcome: Quantity::ZERO };
        let claims = self.clone();
        // In order with the blocks on their way, and without a new one.
        tokio::spawn(async move {
            let demand = claims.demand(&target.tenant, &target.limit.name);
            let _gate = demand.gate.lock().await;
            claims.claim_and_feed(&target, &demand, wish, Quantity::ZERO).await
        })
        .await
        .map_err(ApiError::internal)?
    }

    /// The caller holds the gate.
    async fn claim_and_feed(
        &self,
        target: &Target,
        demand: &Demand,
        wish: Wish,
        ahead: Quantity,
    ) -> Result<(), ApiError> {
        let outcome = self.claim_once(target, wish, ahead).await;
        demand.note_block(outcome.is_ok());
        outcome
    }

    async fn claim_once(
        &self,
        target: &Target,
        wish: Wish,
        ahead: Quantity,
    ) -> Result<(), ApiError> {
        let welcome = wish.welcome.max(ahead);
        let claim = tokio::time::timeout(CLAIM_WITHIN, self.claim(target, wish.least, welcome));
        let claimed = claim.await.map_err(|_| SLOW)??;
        let unclaimed = claimed.unclaimed(target.limit.capacity);
        if unclaimed < 0 {
            return self.take_back(target, unclaimed.saturating_neg()).await;
        }
        if !claimed.block.is_zero() {
            metrics::counter!("weir_claim_blocks_total").increment(1);
            metrics::counter!("weir_claim_tokens_total").increment(claimed.block.get());
        }
        let block = i64::try_from(claimed.block.get()).unwrap_or(0);
        self.tell(target, block, unclaimed, Some(claimed.released)).await.inspect_err(|_| {
            metrics::counter!("weir_claim_stranded_tokens_total").increment(claimed.block.get());
        })?;
        Ok(())
    }

    /// Claims `least`, and of what is left then up to `welcome`, but a quarter at most, so that
    /// blocks shrink near the end.
    async fn claim(
        &self,
        target: &Target,
        least: Quantity,
        welcome: Quantity,
    ) -> Result<Claimed, ApiError> {
        let (starts, ends) = (instant(target.window.start_ms)?, instant(target.window.end_ms)?);
        let update = async || {
            sqlx::query!(
                r#"update claim set
                   claimed = claimed + claim_block($5 + adjustment - claimed, $6, $7),
                   last_block = claim_block($5 + adjustment - claimed, $6, $7),
                   claimed_at = case when claim_block($5 + adjustment - claimed, $6, $7) > 0
                     then clock_timestamp() else claimed_at end,
                   claimed_before_at = case when claim_block($5 + adjustment - claimed, $6, $7) > 0
                     then claimed_at else claimed_before_at end
                 where tenant_id = $1 and limit_name = $2 and period_start = $3 and period_end = $4
                 returning last_block, claimed, adjustment,
                   case when last_block > 0 then claimed_before_at else claimed_at end
                     <= clock_timestamp() - interval '1 second' as "is_settled!""#,
                target.tenant.as_str(),
                target.limit.name.as_str(),
                starts,
                ends,
                signed(target.limit.capacity),
                signed(least),
                signed(welcome),
            )
            .fetch_optional(&self.db)
            .await
        };
        let row = match update().await? {
            Some(row) => row,
            None => {
                let mut tx = self.db.begin().await?;
                period::open(&mut tx, &target.tenant, &target.limit.name, target.window).await?;
                tx.commit().await?;
                update().await?.ok_or_else(|| ApiError::Busy("the limit changes at this moment"))?
            }
        };
        metrics::counter!("weir_claims_total").increment(1);
        Ok(Claimed {
            block: Quantity::clamped(u64::try_from(row.last_block).unwrap_or(0)),
            adjustment: row.adjustment,
            released: Released { claimed: row.claimed, is_settled: row.is_settled },
        })
    }

    /// Takes back what Redis still has of `excess`; first from Redis, then from the claim, so that
    /// a crash between the two strands tokens.
    async fn take_back(&self, target: &Target, excess: i64) -> Result<(), ApiError> {
        let taken = self.tell(target, excess.saturating_neg(), 0, None).await?;
        let row = sqlx::query!(
            "update claim set claimed = claimed - $4
             where tenant_id = $1 and limit_name = $2 and period_start = $3
             returning claimed, adjustment",
            target.tenant.as_str(),
            target.limit.name.as_str(),
            instant(target.window.start_ms)? as _,
            taken,
        )
        .fetch_one(&self.db)
        .await?;
        let left = Claimed {
            block: Quantity::ZERO,
            adjustment: row.adjustment,
            released: Released { claimed: row.claimed, is_settled: true },
        };
        self.tell(target, 0, left.unclaimed(target.limit.capacity).max(0), None).await?;
        Ok(())
    }

    /// Feeds `amount` to Redis once, or takes back up to `-amount` of what it still has, and notes
    /// there what Postgres has left. A block comes with what Postgres has `released`. Returns what
    /// was taken back.
    pub async fn tell(
        &self,
        target: &Target,
        amount: i64,
        unclaimed: i64,
        released: Option<Released>,
    ) -> Result<i64, ApiError> {
        let link = self.redis.link().await?;
        let limits = [Placed {
            limit: &target.limit,
            window: Some(target.window),
            start: script::Start::Undecided,
        }];
        let place = Place {
            tenant: &target.tenant,
            epoch: &link.epoch,
            lease_ttl_ms: self.lease_ttl_ms,
            home: "",
            limits: &limits,
        };
        let unclaimed = Quantity::clamped(u64::try_from(unclaimed).unwrap_or(0));
        let call = Call::feed(&place, amount, unclaimed, released);
        match script::run_one(&self.redis, &link, call).await? {
            (_, Reply::Fed { taken }) => Ok(taken),
            // The period has passed, and what was claimed in it is not needed any more.
            _ => Ok(0),
        }
    }
}

impl Claimed {
    /// What Postgres has left; negative where a cut came after the claims.
    fn unclaimed(&self, capacity: Quantity) -> i64 {
        signed(capacity).saturating_add(self.adjustment).saturating_sub(self.released.claimed)
    }
}

/// A time in ms as Postgres' timestamptz.
pub fn instant(ms: i64) -> Result<jiff_sqlx::Timestamp, ApiError> {
    Ok(Timestamp::from_millisecond(ms).map_err(ApiError::internal)?.to_sqlx())
}
