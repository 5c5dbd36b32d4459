//! `POST /v1/usage`: a service says what was used, or asks whether it may be used.

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_domain::{
    id::{Meter, TenantId},
    protocol::{LeaseAnswer, LimitStatus},
    quantity::{Amount, Quantity},
};

use super::{
    counted::{self, Outcome},
    seats::Taken,
    store::{self, Facts, Key, Usage},
    to_its_end,
};
use crate::{
    admin::tenants,
    app::App,
    auth,
    extract::JsonBody,
    problem::{ApiError, Problem},
};

const DOOR: &str = "usage";
const KEY_HEADER: &str = "idempotency-key";
const MAX_KEY_LEN: usize = 200;
/// The longest model name, in characters, as in what gateways count.
const MAX_MODEL_LEN: usize = 128;
/// A clock that is ahead of Postgres' by this much, in s, says now.
const CLOCKS_DIFFER_S: i64 = 60;

pub fn resources() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(report))
}

pub fn router(app: &App) -> Router<App> {
    let (router, _) = resources().split_for_parts();
    router.route_layer(middleware::from_fn_with_state(app.clone(), auth::require_usage))
}

/// What was used, or is about to be.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UsageReport {
    /// Names the report, so that a repeat counts once; or the header `Idempotency-Key` does. 1 to 200
    /// visible characters.
    #[serde(default, skip_serializing)]
    #[schema(min_length = 1, max_length = 200)]
    key: Option<String>,
    tenant: TenantId,
    /// `default`, or one that the tenant's plan has a price for.
    #[serde(default)]
    meter: Meter,
    /// Empty where no model is known.
    #[serde(default)]
    model: String,
    #[serde(default)]
    tokens: Quantity,
    #[serde(default)]
    requests: Quantity,
    /// When it was used, where that is not now. Not with `check`.
    #[serde(default)]
    time: Option<Timestamp>,
    /// Whether it may be refused: true for what is about to be used, which is taken from the tenant's
    /// limits first, all of it or nothing; false for what was used, which is recorded in any case, and
    /// owed to the limits.
    #[serde(default)]
    check: bool,
}

/// What is recorded. A repeat is answered the same.
#[derive(Debug, Serialize, ToSchema)]
struct Reported {
    tenant: TenantId,
    meter: Meter,
    model: String,
    tokens: Quantity,
    requests: Quantity,
    /// The minute in which it counts.
    minute: Timestamp,
    /// Where the tenant's limits stood afterwards; empty without `check`.
    limits: Vec<Standing>,
}

/// Where a limit stands.
#[derive(Debug, Serialize, ToSchema)]
struct Standing {
    name: String,
    /// `tokens` or `requests`.
    #[schema(value_type = String)]
    unit: weir_domain::limit::Unit,
    capacity: Quantity,
    remaining: Quantity,
    /// In this many seconds the period ends, or the bucket is full.
    reset_s: u64,
}

/// Records usage once, however often it is reported under the same key. With `check` the tokens are taken
/// from the tenant's limits first, and it is a 429 when they are not there. Needs a token of the role
/// `usage`.
#[utoipa::path(
    post, path = "/v1/usage", tag = "services", request_body = UsageReport,
    params(("Idempotency-Key" = Option<String>, Header, description = "Names the report, where `key` does not.")),
    responses(
        (status = 200, body = Reported),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "With `check`: the tenant is suspended or closed."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such tenant."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The key was used for something else."),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "With `check`: there are not that many tokens or requests. `Retry-After` says when there are, if ever; nothing was taken, and the same key may be used again."),
    ),
)]
async fn report(
    State(app): State<App>,
    headers: HeaderMap,
    JsonBody(report): JsonBody<UsageReport>,
) -> Result<Response, ApiError> {
    let key = key(&headers, &report)?;
    check(&report)?;
    to_its_end(async move { carry_out(&app, &report, &key).await }).await
}

async fn carry_out(app: &App, report: &UsageReport, key: &Key) -> Result<Response, ApiError> {
    let seat = app.seats.sit().await?;
    if let Some(answer) = counted::before(app, key).await? {
        return Ok(Json(answer).into_response());
    }
    let facts = store::facts(&app.db, &report.tenant).await?;
    check_meter(report, &facts)?;
    let usage = Usage {
        tenant: report.tenant.clone(),
        meter: report.meter.clone(),
        model: report.model.clone(),
        policy_version: 0,
        amount: Amount { tokens: report.tokens, requests: report.requests },
    };
    if !report.check {
        let minute = minute(report, &facts)?;
        let answer = answer(report, minute, &[]);
        let answer = counted::record(app, seat, &usage, key, minute, answer).await?;
        return Ok(Json(answer).into_response());
    }
    let told = |taken: &Taken| answer(report, taken.now_ms.div_euclid(60_000), &taken.limits);
    match counted::admit(app, seat, &usage, Some(key), told).await? {
        Outcome::Admitted(answer) | Outcome::Before(answer) => Ok(Json(answer).into_response()),
        Outcome::Refused(refused) => refusal(&report.tenant, &refused),
    }
}

/// The header, or the field.
fn key(headers: &HeaderMap, report: &UsageReport) -> Result<Key, ApiError> {
    let wrong = |detail: &str| Err(ApiError::field("key", detail));
    let header = headers.get(KEY_HEADER).map(HeaderValue::to_str).transpose();
    let Ok(header) = header else {
        return wrong("the header Idempotency-Key is not visible ASCII");
    };
    // A string of structured fields has quotes.
    let unquoted = |text: &'_ str| {
        let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        inner.unwrap_or(text).to_owned()
    };
    let key = match (header.map(unquoted), &report.key) {
        (Some(header), Some(field)) if header != *field => {
            return wrong("differs from the header Idempotency-Key; send one of them");
        }
        (Some(key), _) => key,
        (None, Some(key)) => key.clone(),
        (None, None) => {
            return wrong(
                "is missing; name the report, so that a repeat counts once, with this field or the header Idempotency-Key",
            );
        }
    };
    if key.is_empty() || key.len() > MAX_KEY_LEN || !key.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return wrong("must have 1 to 200 visible ASCII characters, and no spaces");
    }
    let asked = serde_json::to_vec(report).map_err(ApiError::internal)?;
    Ok(Key { door: DOOR, key, asked: Sha256::digest(asked).into() })
}

/// What can be told from the report alone.
fn check(report: &UsageReport) -> Result<(), ApiError> {
    let model = &report.model;
    if model.chars().count() > MAX_MODEL_LEN || model.chars().any(char::is_control) {
        return Err(ApiError::field("model", "at most 128 characters, and no control characters"));
    }
    if report.tokens.is_zero() && report.requests.is_zero() {
        return Err(ApiError::field("tokens", "tokens or requests must be more than 0"));
    }
    if report.check && report.time.is_some() {
        return Err(ApiError::field(
            "time",
            "what is checked is used now; leave `time` out, or report it with `check` false",
        ));
    }
    Ok(())
}

/// Usage on a meter that no price names would never be billed.
fn check_meter(report: &UsageReport, facts: &Facts) -> Result<(), ApiError> {
    let mut meters: Vec<_> = facts.terms.prices.iter().map(|price| price.meter.as_str()).collect();
    meters.push("default");
    if meters.contains(&report.meter.as_str()) {
        return Ok(());
    }
    meters.sort_unstable();
    meters.dedup();
    let detail = format!(
        "the plan of {} has no price for the meter {}; it has {}",
        report.tenant,
        report.meter,
        meters.join(", "),
    );
    Err(ApiError::field("meter", detail))
}

/// The minute since 1970 in which it counts.
fn minute(report: &UsageReport, facts: &Facts) -> Result<i64, ApiError> {
    let time = report.time.unwrap_or(facts.now);
    if time < facts.billed_from || time.as_second() > facts.now.as_second() + CLOCKS_DIFFER_S {
        let detail = format!(
            "{time} is not between {}, from when {} is billed, and now",
            facts.billed_from, report.tenant
        );
        return Err(ApiError::field("time", detail));
    }
    Ok(time.min(facts.now).as_second().div_euclid(60))
}

fn answer(report: &UsageReport, minute: i64, limits: &[LimitStatus]) -> Value {
    let reported = Reported {
        tenant: report.tenant.clone(),
        meter: report.meter.clone(),
        model: report.model.clone(),
        tokens: report.tokens,
        requests: report.requests,
        minute: Timestamp::from_second(minute.saturating_mul(60)).unwrap_or_default(),
        limits: limits.iter().map(standing).collect(),
    };
    json!(reported)
}

fn standing(limit: &LimitStatus) -> Standing {
    Standing {
        name: limit.name.to_string(),
        unit: limit.unit,
        capacity: limit.capacity,
        remaining: limit.remaining,
        reset_s: limit.reset_s,
    }
}

/// As clients of a gateway are told.
fn refusal(tenant: &TenantId, refused: &LeaseAnswer) -> Result<Response, ApiError> {
    match counted::shut_out(refused.state) {
        Some("unknown_tenant") => return Err(tenants::unknown(tenant)),
        Some(_) => {
            return Err(ApiError::Forbidden(format!(
                "{tenant} is suspended or closed, so nothing may be used; what was used already is reported with `check` false"
            )));
        }
        None => {}
    }
    let can_come = refused.retry_after_ms > 0;
    let (reason, detail) = if can_come {
        ("limit_exceeded", "Not that many tokens or requests are left; come back later.")
    } else {
        ("cost_exceeds_capacity", "This is more than a limit ever holds.")
    };
    let violated: Vec<_> = refused.limits.iter().filter(|limit| limit.violated).collect();
    let names: Vec<_> = violated.iter().map(|limit| limit.name.as_str()).collect();
    let problem = json!({
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Too Many Requests",
        "status": 429,
        "detail": detail,
        "reason": reason,
        "violated-policies": names,
        "limits": refused.limits.iter().map(standing).collect::<Vec<_>>(),
    });
    let mut response = (StatusCode::TOO_MANY_REQUESTS, Json(problem)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if can_come {
        let seconds = violated.iter().map(|limit| limit.reset_s).fold(1, u64::max);
        let seconds = seconds.max(refused.retry_after_ms.div_ceil(1000));
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    Ok(response)
}
