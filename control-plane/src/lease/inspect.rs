//! Looking at buckets, and changing one by hand.

use weir_domain::{id::LimitName, quantity::Amount};

use super::{
    Leases, MAX_ROUNDS,
    script::{self, Call, Place, Placed, Reply, State},
    start, target,
    tenants::Tenant,
};
use crate::problem::ApiError;

/// A tenant's buckets at one moment.
pub struct Look<'a> {
    pub now_ms: i64,
    /// The limits with their periods, in the order of `state.buckets`.
    pub placed: Vec<Placed<'a>>,
    pub state: State,
    /// What each gateway holds at most.
    pub gateways: Vec<(String, Amount)>,
}

impl Leases {
    /// Reads all buckets of `tenant`, and changes none.
    pub async fn look<'a>(&self, tenant: &'a Tenant) -> Result<Look<'a>, ApiError> {
        let mut now_ms = self.redis.now_ms();
        for _ in 0..MAX_ROUNDS {
            let placed = tenant.place(now_ms).map_err(ApiError::internal)?;
            let (at_ms, reply) = self.run(tenant, "", &placed, Call::look).await?;
            now_ms = at_ms;
            if let Reply::Look { state, gateways } = reply {
                return Ok(Look { now_ms, placed, state, gateways });
            }
        }
        Err(too_many_rounds())
    }

    /// After an adjustment in Postgres: lets Redis know what it may claim, or takes back from it.
    pub async fn adjusted(&self, tenant: &Tenant, limit: &LimitName) -> Result<(), ApiError> {
        let placed = tenant.place(self.redis.now_ms()).map_err(ApiError::internal)?;
        let placed = placed.iter().find(|placed| placed.limit.name == *limit);
        match placed.and_then(|placed| target(tenant, placed)) {
            Some(target) => self.claims.refresh(target).await,
            None => Ok(()),
        }
    }

    /// Tops a continuous bucket up, to what nobody holds of its capacity at most, or takes from it.
    pub async fn adjust_continuous(
        &self,
        tenant: &Tenant,
        limit: &LimitName,
        amount: i64,
    ) -> Result<(), ApiError> {
        let mut placed = tenant.place(self.redis.now_ms()).map_err(ApiError::internal)?;
        placed.retain(|placed| placed.limit.name == *limit);
        let mut decided_for = String::new();
        for _ in 0..MAX_ROUNDS {
            let call = |place: &Place<'_>| Call::adjust(place, amount);
            match self.run(tenant, &decided_for, &placed, call).await?.1 {
                Reply::Start { home } => {
                    start::decide(&self.db, &tenant.id, &home, &mut placed).await?;
                    decided_for = home;
                }
                Reply::Adjusted(_) => return Ok(()),
                _ => break,
            }
        }
        Err(too_many_rounds())
    }

    async fn run(
        &self,
        tenant: &Tenant,
        home: &str,
        limits: &[Placed<'_>],
        call: impl Fn(&Place<'_>) -> Call,
    ) -> Result<(i64, Reply), ApiError> {
        let link = self.redis.link().await?;
        let place = Place {
            tenant: &tenant.id,
            epoch: &link.epoch,
            lease_ttl_ms: self.lease_ttl_ms,
            home,
            limits,
        };
        Ok(script::run_one(&self.redis, &link, call(&place)).await?)
    }
}

pub(super) fn too_many_rounds() -> ApiError {
    ApiError::Busy("the tenant's buckets change too fast to be decided on")
}
