//! Leases: what gateways may spend, debited from the buckets beforehand.
//!
//! | module | subject |
//! |---|---|
//! | [`script`] | the Lua script that keeps the buckets in Redis |
//! | [`clock`] | the clock that limits follow |
//! | [`link`] | the connection to Redis, and which process is at its other end |
//! | [`tenants`] | what a lease is decided on, cached |
//! | [`claims`] | what Postgres releases to Redis of periodic limits |
//! | [`demand`] | how much is taken from them, and how claims go |
//! | [`period`] | what a period inherits when a change moves it |
//! | [`start`] | how continuous buckets start |
//! | [`inspect`] | looking at buckets, and changing one by hand |
//! | [`answer`] | what the gateway is told |

pub mod answer;
pub mod claims;
pub mod clock;
pub mod demand;
pub mod inspect;
pub mod link;
pub mod period;
pub mod script;
pub mod start;
pub mod tenants;

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use sqlx::PgPool;
use weir_domain::{
    limit::Refill,
    protocol::{LeaseAnswer, LeaseAsk, LeaseRequest, TenantState},
    quantity::{Amount, Quantity},
};

use self::{
    claims::{Claims, Target},
    link::{Link, Redis, RedisDown},
    script::{Call, Decided, Place, Placed, Reply, Wish},
    tenants::{Tenant, Tenants},
};
use crate::problem::ApiError;

/// How often the script is run for one ask: new period, start, claim, and a few more claims where
/// others were faster.
const MAX_ROUNDS: usize = 8;

/// How long one ask may wait for Postgres; well below the `timeout_ms` of gateways.
pub const POSTGRES_WITHIN: Duration = Duration::from_millis(500);

/// Decides on leases; cloning it is cheap.
#[derive(Clone)]
pub struct Leases {
    db: PgPool,
    redis: Arc<Redis>,
    pub tenants: Tenants,
    pub claims: Claims,
    lease_ttl_ms: u64,
}

/// One ask on its way through the rounds.
struct Round<'a> {
    tenant: &'a Tenant,
    ask: &'a LeaseAsk,
    caller: (&'a str, &'a str),
    placed: Vec<Placed<'a>>,
    home: String,
    /// For each limit, how many blocks had arrived when the script was run.
    fed: Vec<u64>,
    /// What must be fed before the need can be met, for each limit.
    wishes: Vec<Option<Wish>>,
    /// Why nothing can be claimed, where that has failed.
    unclaimable: Option<ApiError>,
    /// Whether it was waited for.
    has_waited: bool,
}

impl Leases {
    pub fn new(db: PgPool, redis: Arc<Redis>, tenants: Tenants, lease_ttl_ms: u64) -> Self {
        let claims = Claims::new(db.clone(), Arc::clone(&redis), lease_ttl_ms);
        Self { db, redis, tenants, claims, lease_ttl_ms }
    }

    pub fn lease_ttl_ms(&self) -> u64 {
        self.lease_ttl_ms
    }

    /// Answers all asks of `request`, in their order. Fails as a whole only when Redis or Postgres
    /// does not answer, or when none can be decided.
    pub async fn answer(&self, request: &LeaseRequest) -> Result<Vec<LeaseAnswer>, ApiError> {
        let link = self.redis.link().await?;
        let caller = (request.gateway.as_str(), request.worker.as_str());
        let tenants =
            join_all(request.leases.iter().map(|ask| self.tenants.get(&ask.tenant))).await;
        let mut failed: Vec<Option<ApiError>> = Vec::new();
        let tenants: Vec<_> = tenants
            .into_iter()
            .map(|loaded| {
                let (tenant, error) =
                    loaded.map_or_else(|error| (None, Some(error)), |it| (it, None));
                failed.push(error);
                tenant
            })
            .collect();
        let asks: Vec<LeaseAsk> =
            request.leases.iter().zip(&tenants).map(|(ask, tenant)| allowed(ask, tenant)).collect();
        let mut rounds = Vec::new();
        for ((ask, tenant), failed) in asks.iter().zip(&tenants).zip(&mut failed) {
            let round = tenant.as_deref().map(|tenant| self.round(tenant, ask, caller)).transpose();
            rounds.push(round.unwrap_or_else(|error| {
                *failed = Some(error);
                None
            }));
        }
        let calls: Vec<Call> =
            rounds.iter_mut().flatten().map(|round| self.call(round, &link)).collect();
        let first = script::run(&self.redis, &link, &calls).await?;
        let mut first = first.into_iter();
        let answers = join_all(request.leases.iter().zip(rounds).zip(failed).map(
            |((ask, round), failed)| {
                let reply = if round.is_some() { first.next() } else { None };
                async move {
                    match failed {
                        Some(error) => Err(error),
                        None => self.settle(ask, round, reply).await,
                    }
                }
            },
        ));
        collect(&request.leases, answers.await, self.redis.now_ms())
    }

    fn round<'a>(
        &self,
        tenant: &'a Tenant,
        ask: &'a LeaseAsk,
        caller: (&'a str, &'a str),
    ) -> Result<Round<'a>, ApiError> {
        let placed = tenant.place(self.redis.now_ms()).map_err(ApiError::internal)?;
        Ok(Round {
            tenant,
            ask,
            caller,
            placed,
            home: String::new(),
            fed: Vec::new(),
            wishes: Vec::new(),
            unclaimable: None,
            has_waited: false,
        })
    }

    fn call(&self, round: &mut Round<'_>, link: &Link) -> Call {
        round.fed = round
            .placed
            .iter()
            .map(|placed| match placed.limit.refill {
                Refill::Periodic { .. } => {
                    self.claims.demand(&round.tenant.id, &placed.limit.name).fed()
                }
                Refill::Continuous { .. } => 0,
            })
            .collect();
        let base = round.tenant.stamp_base(&round.placed, &link.epoch);
        let place = Place {
            tenant: &round.tenant.id,
            epoch: &link.epoch,
            lease_ttl_ms: self.lease_ttl_ms,
            home: &round.home,
            limits: &round.placed,
        };
        Call::ask(&place, &base, round.caller, round.ask, round.unclaimable.is_none())
    }

    /// Goes on from the first reply until the ask is decided.
    async fn settle(
        &self,
        ask: &LeaseAsk,
        round: Option<Round<'_>>,
        reply: Option<Result<(i64, Reply), redis::RedisError>>,
    ) -> Result<LeaseAnswer, ApiError> {
        let (Some(mut round), Some(reply)) = (round, reply) else {
            count("unknown");
            return Ok(answer::without_lease(ask, TenantState::Unknown, self.redis.now_ms()));
        };
        let (mut now_ms, mut reply) = reply.map_err(RedisDown::from)?;
        for _ in 1..MAX_ROUNDS {
            match reply {
                Reply::Decided(decided) => return Ok(self.decided(&round, &decided, now_ms)),
                Reply::Period => {
                    round.placed = round.tenant.place(now_ms).map_err(ApiError::internal)?;
                }
                Reply::Start { home } => {
                    let decided =
                        start::decide(&self.db, &round.tenant.id, &home, &mut round.placed);
                    in_time(decided).await?;
                    round.home = home;
                }
                Reply::Claim(wishes) => {
                    round.wishes = wishes;
                    // Without Postgres there is still what was claimed ahead.
                    let has_waited = !self.fail_lately(&round);
                    round.unclaimable =
                        if has_waited { self.feed(&round).await.err() } else { Some(SLOW) };
                    round.has_waited = has_waited;
                }
                Reply::Unfed if round.unclaimable.is_none() => return Err(ON_ITS_WAY),
                Reply::Unfed if !round.has_waited => {
                    self.feed(&round).await?;
                    round.unclaimable = None;
                }
                Reply::Unfed => break,
                Reply::Doubt | Reply::Fed { .. } | Reply::Adjusted(_) | Reply::Look { .. } => break,
            }
            let link = self.redis.link().await?;
            let call = self.call(&mut round, &link);
            (now_ms, reply) = script::run_one(&self.redis, &link, call).await?;
        }
        if let Reply::Decided(decided) = reply {
            return Ok(self.decided(&round, &decided, now_ms));
        }
        Err(round.unclaimable.unwrap_or_else(inspect::too_many_rounds))
    }

    /// What must be fed, and is to be waited for.
    fn targets(&self, round: &Round<'_>) -> impl Iterator<Item = (Target, Wish, u64)> {
        let wishes = round.placed.iter().zip(&round.wishes).zip(&round.fed);
        wishes.filter_map(|((placed, wish), fed)| {
            Some((target(round.tenant, placed)?, (*wish)?, *fed))
        })
    }

    /// Whether the latest claim for one of them has failed. Then it is tried again in the background.
    fn fail_lately(&self, round: &Round<'_>) -> bool {
        self.targets(round).fold(false, |any, (target, ..)| {
            let demand = self.claims.demand(&target.tenant, &target.limit.name);
            let fails = demand.is_failing();
            if fails {
                self.claims.prefetch(target, &demand);
            }
            any || fails
        })
    }

    async fn feed(&self, round: &Round<'_>) -> Result<(), ApiError> {
        let feeds = self
            .targets(round)
            .map(|(target, wish, fed)| self.claims.feed_in_time(target, wish, fed));
        join_all(feeds).await.into_iter().collect()
    }

    fn decided(&self, round: &Round<'_>, decided: &Decided, now_ms: i64) -> LeaseAnswer {
        if round.tenant.state != TenantState::Active {
            count("suspended");
            return answer::without_lease(round.ask, round.tenant.state, now_ms);
        }
        count(decided.outcome.as_str());
        if decided.outcome == script::Outcome::Granted {
            self.look_ahead(round, decided);
        }
        LeaseAnswer {
            plan: round.tenant.plan.clone(),
            ..answer::decided(round.ask, &round.placed, decided, now_ms, self.lease_ttl_ms)
        }
    }

    /// Notes demand, and has the next block fetched before this one is used up.
    fn look_ahead(&self, round: &Round<'_>, decided: &Decided) {
        for (placed, bucket) in round.placed.iter().zip(&decided.state.buckets) {
            let Some(target) = target(round.tenant, placed) else { continue };
            let unit = placed.limit.unit;
            let granted = answer::of(decided.granted, unit);
            let refunded = answer::of(round.ask.refund, unit);
            let demand = self.claims.demand(&round.tenant.id, &placed.limit.name);
            demand.note(granted, refunded);
            let half = script::signed(demand.ahead()) / 2;
            if bucket.level.level < half && bucket.unclaimed > Quantity::ZERO {
                self.claims.prefetch(target, &demand);
            }
        }
    }
}

/// Where Postgres is slow for one tenant, the others in the same call must not wait past the
/// gateway's deadline. A block that is on its way arrives all the same.
async fn in_time<T>(decided: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    tokio::time::timeout(POSTGRES_WITHIN, decided).await.map_err(|_| SLOW)?
}

/// Postgres has not answered within [`POSTGRES_WITHIN`].
const SLOW: ApiError = ApiError::Busy("Postgres takes too long at the moment");

/// Refused, the tenant would have to wait for what is there in a moment.
const ON_ITS_WAY: ApiError =
    ApiError::Busy("a block that another replica has claimed is on its way");

/// What a tenant may ask for: one that is suspended can only give back.
fn allowed(ask: &LeaseAsk, tenant: &Option<Arc<Tenant>>) -> LeaseAsk {
    let mut ask = ask.clone();
    if tenant.as_ref().is_some_and(|tenant| tenant.state != TenantState::Active) {
        (ask.need, ask.want) = (Amount::ZERO, Amount::ZERO);
    }
    ask
}

/// The bucket to feed; `None` for a continuous one.
fn target(tenant: &Tenant, placed: &Placed<'_>) -> Option<Target> {
    Some(Target { tenant: tenant.id.clone(), limit: placed.limit.clone(), window: placed.window? })
}

/// One ask that fails must not fail the others: it is left undecided, unless all are.
fn collect(
    asks: &[LeaseAsk],
    answers: Vec<Result<LeaseAnswer, ApiError>>,
    now_ms: i64,
) -> Result<Vec<LeaseAnswer>, ApiError> {
    let all_failed = !answers.is_empty() && answers.iter().all(Result::is_err);
    asks.iter()
        .zip(answers)
        .map(|(ask, answer)| match answer {
            Err(error) if !all_failed => {
                count("failed");
                let error: &dyn std::error::Error = &error;
                tracing::error!(tenant = %ask.tenant, error, "cannot decide on a lease");
                Ok(answer::undecided(ask, now_ms))
            }
            other => other,
        })
        .collect()
}

fn count(outcome: &'static str) {
    metrics::counter!("weir_lease_items_total", "outcome" => outcome).increment(1);
}
