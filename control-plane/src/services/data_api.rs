//! `POST /v1/data/openclaw/rate_limit/…`: OPA's data API, for callers that were made for it. What they are
//! allowed is debited and recorded first.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{OriginalUri, Request, State},
    http::Method,
    middleware::{self, Next},
    response::Response,
    routing::{MethodRouter, post},
};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_domain::{
    id::{Meter, TenantId},
    limit::Unit,
    protocol::{LeaseAnswer, LimitStatus},
    quantity::{Amount, Quantity},
};

use super::{
    counted::{self, Outcome},
    opa_input::Asked,
    rated::{self, PolicyName, Rated, Verdict},
    store::{Key, Usage},
    to_its_end,
};
use crate::{
    app::App,
    auth::{self, Role},
    opa::answer::{ErrorAnswer, OpaError},
    problem::ApiError,
};

pub fn resources() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(allow)).routes(routes!(decision))
}

pub fn router(app: &App) -> Router<App> {
    let (router, _) = resources().split_for_parts();
    // All other documents.
    let undefined: fn() -> MethodRouter<App> = || post(async || Json(json!({})));
    router
        .route("/v1/data", undefined())
        .route("/v1/data/{*path}", undefined())
        .method_not_allowed_fallback(wrong_method)
        .route_layer(middleware::from_fn_with_state(app.clone(), require_usage))
}

async fn require_usage(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, OpaError> {
    auth::check(&app, Role::Usage, request.headers()).await?;
    Ok(next.run(request).await)
}

async fn wrong_method(method: Method, OriginalUri(uri): OriginalUri) -> OpaError {
    ApiError::MethodNotAllowed { method, path: uri.path().to_owned() }.into()
}

/// The body of a call.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what is read piece by piece")]
struct Call {
    input: Asked,
}

/// The answer to a call.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what is put together piece by piece")]
struct Allowed {
    result: bool,
}

/// The answer to a call, with what was decided.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what is put together piece by piece")]
struct Decided {
    result: Decision,
}

/// What was decided, and done.
#[derive(Debug, Serialize, ToSchema)]
struct Decision {
    allow: bool,
    /// The tokens that were taken; where they were not there, those that would have been.
    cost: Quantity,
    meter: Meter,
    /// What is left of the limit that has the least left, in tokens where one counts them; null without limits.
    remaining: Option<Quantity>,
    /// When that limit is reset or full, in s.
    reset_s: Option<u64>,
    /// Where it is refused: when it may be allowed, in s; null where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_s: Option<u64>,
    /// Where it is refused: `limit_exceeded`, `cost_exceeds_capacity`, `denied_by_policy`, `policy_failed`,
    /// `suspended` or `unknown_tenant`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Why, in the words of the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// The policy that said the cost, or denied it; null without one.
    policy: Option<PolicyName>,
}

/// Whether the tenant may send a request, as OPA would say it: true when its tokens are taken and
/// recorded. Needs a token of the role `usage`.
#[utoipa::path(
    post, path = "/v1/data/openclaw/rate_limit/allow", tag = "services", request_body = Call,
    responses(
        (status = 200, body = Allowed),
        (status = 400, body = ErrorAnswer), (status = 401, body = ErrorAnswer), (status = "default", body = ErrorAnswer),
    ),
)]
async fn allow(State(app): State<App>, body: Bytes) -> Result<Json<Value>, OpaError> {
    answer(&app, &body, |decision| decision.get("allow").cloned().unwrap_or(Value::Bool(false)))
        .await
}

/// As `allow`, with the cost, and what is left. It takes the tokens too; with the same `request_id` as a call
/// of `allow` it tells of that one instead.
#[utoipa::path(
    post, path = "/v1/data/openclaw/rate_limit/decision", tag = "services", request_body = Call,
    responses(
        (status = 200, body = Decided),
        (status = 400, body = ErrorAnswer), (status = 401, body = ErrorAnswer), (status = "default", body = ErrorAnswer),
    ),
)]
async fn decision(State(app): State<App>, body: Bytes) -> Result<Json<Value>, OpaError> {
    answer(&app, &body, Value::clone).await
}

async fn answer(
    app: &App,
    body: &[u8],
    told: impl FnOnce(&Value) -> Value,
) -> Result<Json<Value>, OpaError> {
    let Some(asked) = Asked::read(body)? else {
        let warning = json!({ "code": "api_usage_warning", "message": "'input' key missing from the request" });
        let result = told(&json!(refusal("unknown_tenant", None)));
        return Ok(Json(json!({ "result": result, "warning": warning })));
    };
    let Some(tenant) = asked.tenant() else {
        return Ok(Json(json!({ "result": told(&json!(refusal("unknown_tenant", None))) })));
    };
    let key = asked.key(&tenant)?;
    let app = app.clone();
    let decided =
        to_its_end(async move { decide(&app, &asked, tenant, key.as_ref()).await }).await?;
    Ok(Json(json!({ "result": told(&decided) })))
}

async fn decide(
    app: &App,
    asked: &Asked,
    tenant: TenantId,
    key: Option<&Key>,
) -> Result<Value, ApiError> {
    let seat = app.seats.sit().await?;
    if let Some(key) = key
        && let Some(before) = counted::before(app, key).await?
    {
        return Ok(before);
    }
    let Rated { verdict, policy } = rated::rate(app, asked, &tenant).await?;
    let (cost, meter) = match verdict {
        Verdict::Costs(cost, meter) => (cost, meter),
        Verdict::Denied(reason, detail) => {
            return Ok(json!(Decision { detail, ..refusal(reason, policy) }));
        }
    };
    let usage = Usage {
        tenant,
        meter,
        model: ledger_model(asked),
        policy_version: policy.as_ref().map_or(0, |policy| policy.version),
        amount: Amount::request(cost),
    };
    let told = |limits: &[LimitStatus]| {
        let least = least(limits);
        Decision {
            allow: true,
            cost,
            meter: usage.meter.clone(),
            remaining: least.map(|limit| limit.remaining),
            reset_s: least.map(|limit| limit.reset_s),
            retry_after_s: None,
            reason: None,
            detail: None,
            policy: policy.clone(),
        }
    };
    let admitted = counted::admit(app, seat, &usage, key, |taken| json!(told(&taken.limits)));
    Ok(match admitted.await? {
        Outcome::Admitted(decision) | Outcome::Before(decision) => decision,
        Outcome::Refused(refused) => json!(match counted::shut_out(refused.state) {
            Some(reason) => refusal(reason, policy.clone()),
            None => exceeded(told(&refused.limits), &refused),
        }),
    })
}

/// A model whose name cannot be stored counts as `other`, as from gateways.
fn ledger_model(asked: &Asked) -> String {
    let model = asked.model.as_deref().unwrap_or_default();
    let is_name = model.chars().count() <= 128 && !model.chars().any(char::is_control);
    if is_name { model.to_owned() } else { "other".to_owned() }
}

/// The limit to look at: of those in tokens, where there are any.
fn least(limits: &[LimitStatus]) -> Option<&LimitStatus> {
    limits.iter().min_by_key(|limit| (limit.unit != Unit::Tokens, limit.remaining))
}

/// Of a tenant that may use nothing.
fn refusal(reason: &'static str, policy: Option<PolicyName>) -> Decision {
    Decision {
        allow: false,
        cost: Quantity::ZERO,
        meter: Meter::default(),
        remaining: None,
        reset_s: None,
        retry_after_s: None,
        reason: Some(reason),
        detail: None,
        policy,
    }
}

fn exceeded(decision: Decision, refused: &LeaseAnswer) -> Decision {
    let can_come = refused.retry_after_ms > 0;
    Decision {
        allow: false,
        retry_after_s: can_come.then(|| refused.retry_after_ms.div_ceil(1000)),
        reason: Some(if can_come { "limit_exceeded" } else { "cost_exceeds_capacity" }),
        ..decision
    }
}
