//! The buckets of a tenant: what is left, who holds it, and top-ups and cuts by hand.

use std::collections::{BTreeMap, HashMap};

use axum::{Json, extract::State, http::StatusCode};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_domain::{
    id::{LimitName, TenantId},
    limit::Unit,
    quantity::{Amount, Quantity},
};

use super::{
    input::Name,
    page::{Page, PageQuery},
    tenants,
};
use crate::{
    app::App,
    change,
    extract::{JsonBody, Path, Query},
    lease::{
        answer,
        claims::{Target, instant},
        inspect::Look,
        period,
        script::{self, Placed},
        tenants::Tenant,
    },
    problem::ApiError,
};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(adjustments, adjust))
}

/// What a tenant has left of one limit.
#[derive(Debug, Serialize, ToSchema)]
pub struct Bucket {
    pub limit: String,
    #[schema(value_type = String, examples("tokens", "requests"))]
    pub unit: Unit,
    /// `periodic` or `continuous`.
    pub kind: &'static str,
    pub capacity: u64,
    /// With what gateways hold unspent.
    pub remaining: u64,
    /// How far the bucket is below zero, by what gateways admitted in an outage or by cuts; it is
    /// paid first.
    pub owed: u64,
    /// What each gateway holds unspent, at most.
    pub held: BTreeMap<String, u64>,
    /// Top-ups less cuts, in this period.
    pub adjustment: i64,
    /// What Postgres has released to Redis in this period; null for a continuous limit.
    pub claimed: Option<i64>,
    pub period_start: Option<Timestamp>,
    pub period_end: Option<Timestamp>,
    /// Until the period ends, or a continuous bucket is full.
    pub reset_s: u64,
}

/// A top-up (positive) or cut (negative).
#[derive(Debug, Serialize, ToSchema)]
pub struct Adjustment {
    pub id: i64,
    pub amount: i64,
    pub reason: String,
    /// The period that it counts in; null for a continuous limit.
    pub period_start: Option<Timestamp>,
    pub created_at: Timestamp,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AdjustmentCreate {
    /// Tokens or requests to add, or to take away where negative. It counts in the current period. A
    /// continuous bucket is filled to its capacity at most.
    amount: i64,
    #[schema(value_type = String, min_length = 1, max_length = 200)]
    reason: Name,
}

/// The buckets of a tenant, one for each limit of its plan.
#[utoipa::path(
    get, path = "/tenants/{tenant}/buckets", tag = "buckets",
    params(("tenant" = TenantId, Path)), responses((status = 200, body = Page<Bucket>)),
)]
async fn list(
    State(app): State<App>,
    Path(id): Path<TenantId>,
) -> Result<Json<Page<Bucket>>, ApiError> {
    let tenant = app.leases.tenants.get(&id).await?.ok_or_else(|| tenants::unknown(&id))?;
    // At most as many as a plan has limits, so there is one page.
    Ok(Json(Page { items: buckets(&app, &tenant).await?, next: None }))
}

/// Tops a bucket up, or cuts it.
#[utoipa::path(
    post, path = "/tenants/{tenant}/buckets/{limit}/adjustments", tag = "buckets",
    params(("tenant" = TenantId, Path), ("limit" = LimitName, Path)),
    request_body = AdjustmentCreate,
    responses((status = 201, body = Bucket, description = "The bucket after it.")),
)]
async fn adjust(
    State(app): State<App>,
    Path((id, limit)): Path<(TenantId, LimitName)>,
    JsonBody(new): JsonBody<AdjustmentCreate>,
) -> Result<(StatusCode, Json<Bucket>), ApiError> {
    let max = script::signed(Quantity::MAX);
    if new.amount == 0 || !(-max..=max).contains(&new.amount) {
        return Err(ApiError::field("amount", "must be -(2^53 - 1) to 2^53 - 1, and not 0"));
    }
    app.leases.tenants.reload(&id).await;
    let tenant = app.leases.tenants.get(&id).await?.ok_or_else(|| tenants::unknown(&id))?;
    let look = app.leases.look(&tenant).await?;
    let placed = look
        .placed
        .iter()
        .find(|placed| placed.limit.name == limit)
        .ok_or_else(|| ApiError::NotFound { what: "limit", id: limit.to_string() })?;
    let before = one(buckets_of(&app, &tenant, &look).await?, &limit)?;
    store(&app, &id, placed, &new).await?;
    // It is stored, so it must not fail from here on: whoever tries again would adjust twice.
    let told = match placed.window {
        Some(_) => app.leases.adjusted(&tenant, &limit).await,
        None => app.leases.adjust_continuous(&tenant, &limit, new.amount).await,
    };
    let after = async {
        told?;
        // Gateways ask again once the bucket has it.
        let mut tx = app.db.begin().await?;
        change::announce_tenant(&mut tx, &id).await?;
        tx.commit().await?;
        one(buckets(&app, &tenant).await?, &limit)
    };
    let bucket = after.await.unwrap_or_else(|error| {
        tracing::error!(%error, tenant = %id, %limit, "an adjustment is stored, but Redis has not heard of it");
        before
    });
    Ok((StatusCode::CREATED, Json(bucket)))
}

/// Writes the adjustment down, and with it what may be claimed in this period.
async fn store(
    app: &App,
    tenant: &TenantId,
    placed: &Placed<'_>,
    new: &AdjustmentCreate,
) -> Result<(), ApiError> {
    let mut tx = app.db.begin().await?;
    let starts = placed.window.map(|window| instant(window.start_ms)).transpose()?;
    if let Some(window) = placed.window {
        // First, as it may lock the tenant, which the others only refer to.
        period::open(&mut tx, tenant, &placed.limit.name, window).await?;
    }
    sqlx::query!(
        "insert into bucket_adjustment (tenant_id, limit_name, period_start, amount, reason)
         values ($1, $2, $3, $4, $5)",
        tenant.as_str(),
        placed.limit.name.as_str(),
        starts as _,
        new.amount,
        new.reason.as_str(),
    )
    .execute(&mut *tx)
    .await?;
    if let (Some(window), Some(starts)) = (placed.window, starts) {
        let claim = sqlx::query!(
            "select claimed, adjustment from claim
             where tenant_id = $1 and limit_name = $2 and period_start = $3 for update",
            tenant.as_str(),
            placed.limit.name.as_str(),
            starts,
        )
        .fetch_one(&mut *tx)
        .await?;
        let unclaimed = script::signed(placed.limit.capacity)
            .saturating_add(claim.adjustment)
            .saturating_sub(claim.claimed);
        let target = Target { tenant: tenant.clone(), limit: placed.limit.clone(), window };
        let taken = take_for_cut(app, &target, new.amount, unclaimed).await?;
        let adjustment = sqlx::query_scalar!(
            "update claim set adjustment = adjustment + $4, claimed = claimed - $5
             where tenant_id = $1 and limit_name = $2 and period_start = $3
             returning adjustment",
            tenant.as_str(),
            placed.limit.name.as_str(),
            starts,
            new.amount,
            taken,
        )
        .fetch_one(&mut *tx)
        .await?;
        let total = script::signed(placed.limit.capacity).saturating_add(adjustment);
        if !(0..=script::signed(Quantity::MAX)).contains(&total) {
            return Err(ApiError::field(
                "amount",
                format!("would make {total} of the period's capacity; it must stay 0 to 2^53 - 1"),
            ));
        }
    }
    tx.commit().await?;
    Ok(())
}

/// What a cut takes beyond what Postgres has left must come out of Redis first: what gateways hold
/// they may have spent by now, and then more would have been admitted than the period allows.
/// Returns what was taken; none of a top-up.
async fn take_for_cut(
    app: &App,
    target: &Target,
    amount: i64,
    unclaimed: i64,
) -> Result<i64, ApiError> {
    let excess = amount.saturating_neg().saturating_sub(unclaimed.max(0));
    if excess <= 0 {
        return Ok(0);
    }
    let taken = app.leases.claims.tell(target, excess.saturating_neg(), 0, None).await?;
    if taken < excess {
        app.leases.claims.tell(target, taken, unclaimed.max(0), None).await?;
        let left = unclaimed.max(0).saturating_add(taken);
        return Err(ApiError::Conflict(format!(
            "only {left} of this period are neither spent nor held by a gateway; cut at most that"
        )));
    }
    Ok(taken)
}

/// The top-ups and cuts of one bucket, oldest first.
#[utoipa::path(
    get, path = "/tenants/{tenant}/buckets/{limit}/adjustments", tag = "buckets",
    params(("tenant" = TenantId, Path), ("limit" = LimitName, Path), PageQuery),
    responses((status = 200, body = Page<Adjustment>)),
)]
async fn adjustments(
    State(app): State<App>,
    Path((id, limit)): Path<(TenantId, LimitName)>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Adjustment>>, ApiError> {
    let after: Option<i64> = page.after()?;
    let mut db = app.db.acquire().await?;
    tenants::find(&mut db, &id).await?;
    let rows = sqlx::query!(
        "select id, amount, reason, period_start, created_at from bucket_adjustment
         where tenant_id = $1 and limit_name = $2 and id > $3 order by id limit $4",
        id.as_str(),
        limit.as_str(),
        after.unwrap_or(0),
        page.fetch(),
    )
    .fetch_all(&mut *db)
    .await?
    .into_iter()
    .map(|row| Adjustment {
        id: row.id,
        amount: row.amount,
        reason: row.reason,
        period_start: row.period_start.map(|starts| starts.to_jiff()),
        created_at: row.created_at.to_jiff(),
    })
    .collect();
    Ok(Json(Page::new(rows, &page, |row: &Adjustment| row.id)))
}

/// The buckets of `tenant`, in the order of its limits.
pub async fn buckets(app: &App, tenant: &Tenant) -> Result<Vec<Bucket>, ApiError> {
    let look = app.leases.look(tenant).await?;
    buckets_of(app, tenant, &look).await
}

fn one(buckets: Vec<Bucket>, limit: &LimitName) -> Result<Bucket, ApiError> {
    buckets
        .into_iter()
        .find(|bucket| bucket.limit == limit.as_str())
        .ok_or_else(|| ApiError::NotFound { what: "limit", id: limit.to_string() })
}

/// What Postgres knows of a limit in its period.
#[derive(Clone, Copy, Default)]
struct Stored {
    claimed: i64,
    adjustment: i64,
}

async fn buckets_of(app: &App, tenant: &Tenant, look: &Look<'_>) -> Result<Vec<Bucket>, ApiError> {
    let now = Timestamp::from_millisecond(look.now_ms).map_err(ApiError::internal)?;
    let claims: HashMap<(String, Timestamp), Stored> = sqlx::query!(
        "select limit_name, period_start, claimed, adjustment from claim
         where tenant_id = $1 and period_start <= $2 and period_end > $2",
        tenant.id.as_str(),
        now.to_sqlx() as _,
    )
    .fetch_all(&app.db)
    .await?
    .into_iter()
    .map(|row| {
        let stored = Stored { claimed: row.claimed, adjustment: row.adjustment };
        ((row.limit_name, row.period_start.to_jiff()), stored)
    })
    .collect();
    let started: Vec<String> = sqlx::query_scalar!(
        "select limit_name from bucket_start where tenant_id = $1",
        tenant.id.as_str(),
    )
    .fetch_all(&app.db)
    .await?;
    look.placed
        .iter()
        .zip(&look.state.buckets)
        .map(|(placed, found)| {
            let name = placed.limit.name.to_string();
            let period = |ms| Timestamp::from_millisecond(ms).map_err(ApiError::internal);
            let starts = placed.window.map(|window| period(window.start_ms)).transpose()?;
            let ends = placed.window.map(|window| period(window.end_ms)).transpose()?;
            let stored = starts
                .and_then(|starts| claims.get(&(name.clone(), starts)).copied())
                .unwrap_or_default();
            let found = complete(placed, *found, stored, started.contains(&name));
            let unit = placed.limit.unit;
            let status =
                answer::status(placed, &found, look.state.held, answer::Wait::None, look.now_ms);
            Ok(Bucket {
                limit: name,
                unit,
                kind: if placed.window.is_some() { "periodic" } else { "continuous" },
                capacity: placed.limit.capacity.get(),
                remaining: status.remaining.get(),
                owed: answer::owed(placed, &found).get(),
                held: held(&look.gateways, unit),
                adjustment: stored.adjustment,
                claimed: placed.window.map(|_| stored.claimed),
                period_start: starts,
                period_end: ends,
                reset_s: status.reset_s,
            })
        })
        .collect()
}

/// Puts in from Postgres what Redis does not know.
fn complete(
    placed: &Placed<'_>,
    mut found: script::Bucket,
    stored: Stored,
    started: bool,
) -> script::Bucket {
    let capacity = script::signed(placed.limit.capacity);
    // What Redis knows, it knows as of this look; a block may be on its way from Postgres.
    if placed.window.is_some() && !found.known {
        let left = capacity.saturating_add(stored.adjustment).saturating_sub(stored.claimed);
        found.unclaimed = Quantity::clamped(u64::try_from(left).unwrap_or(0));
    } else if !found.known && !started {
        found.level.level = capacity;
    }
    found.known = true;
    found
}

fn held(gateways: &[(String, Amount)], unit: Unit) -> BTreeMap<String, u64> {
    gateways
        .iter()
        .map(|(gateway, held)| (gateway.clone(), answer::of(*held, unit).get()))
        .filter(|(_, held)| *held > 0)
        .collect()
}
