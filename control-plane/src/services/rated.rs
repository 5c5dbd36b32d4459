//! What a request costs, by the policy that is active for callers of the data API.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use tokio::task;
use utoipa::ToSchema;
use weir_domain::{
    id::{Meter, TenantId},
    limit::Unit,
    quantity::Quantity,
};
use weir_policy::{
    Buckets, Input, Place, Policy, Time,
    contract::{Decision, Field},
};

use super::opa_input::Asked;
use crate::{
    app::App,
    lease::answer::{self, Wait},
    problem::ApiError,
    rating::{self, Door},
};

/// The policy that was active last, compiled.
#[derive(Default)]
pub struct Compiled(Mutex<Option<Arc<Active>>>);

struct Active {
    name: PolicyName,
    policy: Policy,
}

/// A text of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PolicyName {
    pub id: String,
    pub version: u32,
}

/// What is said of a request before any token is taken.
pub struct Rated {
    pub verdict: Verdict,
    /// Who said it; `None` without a policy.
    pub policy: Option<PolicyName>,
}

pub enum Verdict {
    Costs(Quantity, Meter),
    /// Why, as a code and in the policy's words.
    Denied(&'static str, Option<String>),
}

impl Compiled {
    fn last(&self) -> MutexGuard<'_, Option<Arc<Active>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The active policy at this moment.
    async fn active(&self, app: &App) -> Result<Option<Arc<Active>>, ApiError> {
        let last = self.last().clone();
        let known = last.as_ref().map(|last| last.name.version);
        let Some(active) = rating::active(&app.db, Door::DataApi, known).await? else {
            return Ok(None);
        };
        if let Some(last) = last.filter(|last| last.name.version == active.version) {
            return Ok(Some(last));
        }
        let name = PolicyName { id: active.id, version: active.version };
        let policy = rating::compile(active.source, Place::Everywhere).await?;
        let policy = policy.map_err(ApiError::internal)?;
        let active = Arc::new(Active { name, policy });
        *self.last() = Some(Arc::clone(&active));
        Ok(Some(active))
    }
}

/// Rates a request of `tenant`, by one version of the active policy; it costs 1 without one. A policy that
/// fails denies.
pub async fn rate(app: &App, asked: &Asked, tenant: &TenantId) -> Result<Rated, ApiError> {
    let Some(active) = app.compiled.active(app).await? else {
        let verdict = Verdict::Costs(Quantity::ONE, Meter::default());
        return Ok(Rated { verdict, policy: None });
    };
    let policy = Some(active.name.clone());
    let Some((input, buckets)) = read(app, asked, tenant, &active.policy).await? else {
        return Ok(Rated { verdict: Verdict::Denied("unknown_tenant", None), policy });
    };
    let asking = Arc::clone(&active);
    // It may take a while, within its budget.
    let said =
        task::spawn_blocking(move || asking.policy.decide_knowing(&input, buckets.as_ref())).await;
    let verdict = match said.map_err(ApiError::internal)? {
        Ok(Decision { allow: true, cost, meter, .. }) => Verdict::Costs(cost, meter),
        Ok(Decision { reason, .. }) => Verdict::Denied("denied_by_policy", reason),
        Err(failure) => {
            let PolicyName { id, version } = &active.name;
            tracing::warn!(policy = id, version, %tenant, "the policy fails, which denies: {failure}");
            metrics::counter!("weir_policy_failures_total", "policy" => id.clone()).increment(1);
            Verdict::Denied("policy_failed", None)
        }
    };
    Ok(Rated { verdict, policy })
}

/// What `policy` reads; `None` without such a tenant.
async fn read(
    app: &App,
    asked: &Asked,
    tenant: &TenantId,
    policy: &Policy,
) -> Result<Option<(Input<'static>, Option<Buckets>)>, ApiError> {
    let plan = if policy.reads().contains(&Field::Plan) {
        let plan = sqlx::query_scalar!("select plan_id from tenant where id = $1", tenant.as_str());
        let Some(plan) = plan.fetch_optional(&app.db).await? else { return Ok(None) };
        Some(plan)
    } else {
        None
    };
    let buckets = if policy.reads_buckets() {
        let Some(buckets) = buckets(app, tenant).await? else { return Ok(None) };
        Some(buckets)
    } else {
        None
    };
    let path = asked.path.as_deref().and_then(|path| path.split('?').next());
    let headers = asked.headers.iter();
    let input = Input {
        tenant: tenant.to_string().into(),
        plan: plan.map(Cow::Owned),
        method: asked.method.as_deref().unwrap_or_default().to_ascii_uppercase().into(),
        path: path.unwrap_or_default().to_owned().into(),
        model: asked.model.clone().map(Cow::Owned),
        prompt_tokens: asked.prompt_tokens,
        max_output_tokens: asked.max_output_tokens,
        headers: headers
            .map(|(name, value)| (name.to_ascii_lowercase().into(), value.clone().into()))
            .collect::<BTreeMap<_, _>>(),
        time: Some(Time::of_minute(app.redis.now_ms().div_euclid(60_000))),
    };
    Ok(Some((input, buckets)))
}

/// What the tenant has left, of the tightest limit of each unit.
async fn buckets(app: &App, tenant: &TenantId) -> Result<Option<Buckets>, ApiError> {
    let Some(tenant) = app.leases.tenants.get(tenant).await? else { return Ok(None) };
    let look = app.leases.look(&tenant).await?;
    let mut left = Buckets::default();
    for (placed, bucket) in look.placed.iter().zip(&look.state.buckets) {
        let status = answer::status(placed, bucket, look.state.held, Wait::None, look.now_ms);
        let part = match status.unit {
            Unit::Tokens => &mut left.tokens,
            Unit::Requests => &mut left.requests,
        };
        *part = Some(part.map_or(status.remaining, |least| least.min(status.remaining)));
    }
    Ok(Some(left))
}
