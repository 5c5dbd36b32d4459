//! Dry runs: what a policy would say.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use tokio::task;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_domain::id::{PlanId, PolicyId};
use weir_policy::{Buckets, Decision, Input, Place, Policy};

use super::policies::refused;
use crate::{
    app::App,
    extract::{JsonBody, Path},
    problem::ApiError,
    rating,
};

/// The most inputs of a run.
const MAX_INPUTS: usize = 1_000;
/// How long a run may take.
const WITHIN: Duration = Duration::from_secs(5);

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(dry_run))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DryRun {
    /// A text that is to be tried; without it, what the policy has.
    source: Option<String>,
    /// An earlier version of the policy.
    version: Option<i32>,
    /// Requests, as `policy/contract.schema.json` describes them. 1,000 at most.
    #[schema(value_type = Vec<Object>)]
    #[serde(default)]
    inputs: Vec<Input<'static>>,
    /// Adds what tenants used in the last day, a row for each tenant and model, the most requests
    /// first. The ledger does not know more of a request than that: tenant, plan and model.
    #[serde(default)]
    recent: bool,
    /// What the tenants have left, for a policy that reads `data.buckets`.
    #[schema(value_type = Option<Object>)]
    buckets: Option<Buckets>,
}

/// What a policy would say.
#[derive(Debug, Serialize, ToSchema)]
struct Rehearsal {
    /// The version that was tried; null for a text that is not stored.
    #[schema(required)]
    version: Option<i32>,
    /// One for each input, in their order.
    outcomes: Vec<Outcome>,
}

/// What it says of one input.
#[derive(Debug, Serialize, ToSchema)]
struct Outcome {
    /// As `policy/contract.schema.json` describes it.
    #[schema(value_type = Object)]
    input: Input<'static>,
    /// How many requests of the last day this stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<i64>,
    /// As `policy/contract.schema.json` describes it.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Decision>,
    /// Why there is no decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

/// What a policy, or a text that may become one, would say of requests. Nothing is changed.
#[utoipa::path(
    post, path = "/policies/{policy}/dry-run", tag = "policies", params(("policy" = PolicyId, Path)),
    request_body = DryRun, responses((status = 200, body = Rehearsal)),
)]
async fn dry_run(
    State(app): State<App>,
    Path(id): Path<PolicyId>,
    JsonBody(run): JsonBody<DryRun>,
) -> Result<Json<Rehearsal>, ApiError> {
    if run.inputs.len() > MAX_INPUTS {
        let inputs = run.inputs.len();
        let detail = format!("there are {inputs} inputs, at most {MAX_INPUTS} are allowed");
        return Err(ApiError::field("inputs", detail));
    }
    let (version, source, field) = match (run.source, run.version) {
        (Some(_), Some(_)) => {
            return Err(ApiError::field("version", "give either a source or a version"));
        }
        (Some(source), None) => (None, source, "source"),
        (None, version) => {
            let mut db = app.db.acquire().await?;
            let text = rating::find(&mut db, &id, version).await?;
            let text = text.ok_or_else(|| rating::unknown(&id))?;
            (Some(text.version), text.source, "version")
        }
    };
    let policy = rating::compile(source, Place::Everywhere)
        .await?
        .map_err(|error| refused(field)(error.into()))?;
    let mut inputs: Vec<_> = run.inputs.into_iter().map(|input| (input, None)).collect();
    if run.recent {
        inputs.extend(recent(&app).await?);
    }
    let buckets = run.buckets;
    let outcomes = task::spawn_blocking(move || rehearse(&policy, inputs, buckets.as_ref()))
        .await
        .map_err(ApiError::internal)??;
    Ok(Json(Rehearsal { version, outcomes }))
}

fn rehearse(
    policy: &Policy,
    inputs: Vec<(Input<'static>, Option<i64>)>,
    buckets: Option<&Buckets>,
) -> Result<Vec<Outcome>, ApiError> {
    let started = Instant::now();
    let mut outcomes = Vec::new();
    for (input, requests) in inputs {
        if started.elapsed() > WITHIN {
            let detail = "the policy takes too long for so many inputs; send fewer";
            return Err(ApiError::field("inputs", detail));
        }
        let (decision, failure) = match policy.decide_knowing(&input, buckets) {
            Ok(decision) => (Some(decision), None),
            Err(failure) => (None, Some(failure.to_string())),
        };
        outcomes.push(Outcome { input, requests, decision, failure });
    }
    Ok(outcomes)
}

/// What the ledger knows of the requests of the last day.
async fn recent(app: &App) -> Result<Vec<(Input<'static>, Option<i64>)>, ApiError> {
    let rows = sqlx::query!(
        r#"select tenant.id as tenant, plan_id, model, sum(requests)::bigint as "requests!"
           from usage_rollup join tenant on tenant.id = tenant_id
           where quarter > now() - interval '1 day'
           group by tenant.id, plan_id, model
           order by sum(requests) desc, tenant.id, model limit $1"#,
        i64::try_from(MAX_INPUTS).unwrap_or(i64::MAX),
    )
    .fetch_all(&app.db)
    .await?;
    let inputs = rows.into_iter().map(|row| {
        let input = Input {
            tenant: row.tenant.into(),
            plan: PlanId::new(row.plan_id).ok().map(|plan| Cow::Owned(plan.into())),
            model: Some(row.model).filter(|model| !model.is_empty()).map(Cow::Owned),
            ..Input::default()
        };
        (input, Some(row.requests))
    });
    Ok(inputs.collect())
}
