//! Plans and their versions.

use axum::{Json, extract::State, http::StatusCode};
use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, types::Json as SqlJson};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_domain::{
    billing_period::Cadence, currency::Currency, id::PlanId, limit::Limit, plan::PlanTerms,
    price::Price,
};

use super::{
    input::Name,
    page::{Page, PageQuery},
};
use crate::{
    app::App,
    change,
    extract::{JsonBody, Path, Query},
    problem::ApiError,
    terms,
};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, put)).routes(routes!(versions))
}

/// A plan at one of its versions.
#[derive(Debug, Serialize, ToSchema)]
pub struct Plan {
    #[schema(value_type = PlanId)]
    pub id: String,
    pub name: String,
    /// 1 for the first, then one more with each change.
    pub version: i32,
    #[serde(flatten)]
    pub terms: PlanTerms,
    /// When this version was made.
    pub created_at: Timestamp,
}

/// What a plan shall be from now on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PlanWrite {
    /// Without it the name stays; a new plan is named like its id.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200)]
    name: Option<Name>,
    /// Stays the same while tenants are on the plan.
    currency: Currency,
    /// All of them hold. Without limits, everything is admitted and counted.
    #[serde(default)]
    limits: Vec<Limit>,
    /// Each makes an invoice line.
    #[serde(default)]
    prices: Vec<Price>,
    /// This much less than what all prices charge, in percent; a line of its own.
    #[serde(default, with = "rust_decimal::serde::str_option")]
    #[schema(value_type = Option<String>)]
    discount_percent: Option<Decimal>,
    /// The least that a whole period costs, after discounts; what is missing is a line of its own.
    #[serde(default, with = "rust_decimal::serde::str_option")]
    #[schema(value_type = Option<String>)]
    minimum: Option<Decimal>,
    /// How long billing periods are; they begin at midnight of the tenant's zone. A change counts from
    /// each tenant's next period.
    #[serde(default)]
    billing_period: Cadence,
}

impl PlanWrite {
    fn terms(self) -> PlanTerms {
        let Self { name: _, currency, limits, prices, discount_percent, minimum, billing_period } =
            self;
        PlanTerms { currency, limits, prices, discount_percent, minimum, billing_period }
    }
}

struct Row {
    id: String,
    name: String,
    version: i32,
    terms: SqlJson<PlanTerms>,
    created_at: Timestamp,
}

impl From<Row> for Plan {
    fn from(row: Row) -> Self {
        let Row { id, name, version, terms: SqlJson(terms), created_at } = row;
        Self { id, name, version, terms, created_at }
    }
}

/// All plans, each at its newest version.
#[utoipa::path(get, path = "/plans", tag = "plans", params(PageQuery), responses((status = 200, body = Page<Plan>)))]
async fn list(
    State(app): State<App>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Plan>>, ApiError> {
    let after: Option<PlanId> = page.after()?;
    let rows = sqlx::query_as!(
        Row,
        r#"select plan.id, plan.name, newest.version, newest.terms as "terms: _", newest.created_at
           from plan join lateral (
             select * from plan_version where plan_id = plan.id order by version desc limit 1
           ) newest on true
           where $1::text is null or plan.id > $1
           order by plan.id limit $2"#,
        after.as_ref().map(PlanId::as_str),
        page.fetch(),
    )
    .fetch_all(&app.db)
    .await?;
    let plans = rows.into_iter().map(Plan::from).collect();
    Ok(Json(Page::new(plans, &page, |plan: &Plan| plan.id.clone())))
}

/// A plan at its newest version.
#[utoipa::path(get, path = "/plans/{plan}", tag = "plans", params(("plan" = PlanId, Path)), responses((status = 200, body = Plan)))]
async fn get(State(app): State<App>, Path(id): Path<PlanId>) -> Result<Json<Plan>, ApiError> {
    let mut db = app.db.acquire().await?;
    newest(&mut db, &id).await?.map(Json).ok_or_else(|| unknown(&id))
}

/// Makes a plan, or a new version of it where it differs from the newest.
///
/// Limits change at once for all tenants on the plan, prices from the next quarter hour.
#[utoipa::path(
    put, path = "/plans/{plan}", tag = "plans", params(("plan" = PlanId, Path)), request_body = PlanWrite,
    responses((status = 201, body = Plan, description = "Made."), (status = 200, body = Plan, description = "Changed, or as it was.")),
)]
async fn put(
    State(app): State<App>,
    Path(id): Path<PlanId>,
    JsonBody(write): JsonBody<PlanWrite>,
) -> Result<(StatusCode, Json<Plan>), ApiError> {
    let name = write.name.clone();
    let terms = write.terms();
    terms.check().map_err(|error| ApiError::field(error.field, error.cause))?;
    let name = name.as_ref().map(Name::as_str);
    let mut tx = app.db.begin().await?;
    sqlx::query!(
        "insert into plan (id, name) values ($1, coalesce($2, $1)) on conflict (id) do nothing",
        id.as_str(),
        name,
    )
    .execute(&mut *tx)
    .await?;
    lock(&mut tx, &id).await?;
    sqlx::query!("update plan set name = coalesce($2, name) where id = $1", id.as_str(), name)
        .execute(&mut *tx)
        .await?;
    let before = newest(&mut tx, &id).await?;
    let status = if before.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    let plan = store(&mut tx, &id, before, terms).await?;
    tx.commit().await?;
    Ok((status, Json(plan)))
}

/// All versions of a plan, the newest first.
#[utoipa::path(
    get, path = "/plans/{plan}/versions", tag = "plans",
    params(("plan" = PlanId, Path), PageQuery), responses((status = 200, body = Page<Plan>)),
)]
async fn versions(
    State(app): State<App>,
    Path(id): Path<PlanId>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Plan>>, ApiError> {
    let after: Option<i32> = page.after()?;
    let rows = sqlx::query_as!(
        Row,
        r#"select plan.id, plan.name, version, terms as "terms: _", plan_version.created_at
           from plan join plan_version on plan_id = plan.id
           where plan.id = $1 and ($2::integer is null or version < $2)
           order by version desc limit $3"#,
        id.as_str(),
        after,
        page.fetch(),
    )
    .fetch_all(&app.db)
    .await?;
    if rows.is_empty() && after.is_none() {
        return Err(unknown(&id));
    }
    let plans = rows.into_iter().map(Plan::from).collect();
    Ok(Json(Page::new(plans, &page, |plan: &Plan| plan.version)))
}

pub(super) fn unknown(id: &PlanId) -> ApiError {
    ApiError::NotFound { what: "plan", id: id.to_string() }
}

/// Lets no other transaction change the plan, or put a tenant on it, before this one ends.
pub(super) async fn lock(tx: &mut PgConnection, id: &PlanId) -> Result<(), ApiError> {
    terms::begin(tx).await?;
    sqlx::query!("select id from plan where id = $1 for no key update", id.as_str())
        .fetch_optional(tx)
        .await?
        .map(|_| ())
        .ok_or_else(|| unknown(id))
}

/// The plan at its newest version.
pub(super) async fn newest(
    db: &mut PgConnection,
    id: &PlanId,
) -> Result<Option<Plan>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select plan.id, plan.name, version, terms as "terms: _", plan_version.created_at
           from plan join plan_version on plan_id = plan.id
           where plan.id = $1 order by version desc limit 1"#,
        id.as_str(),
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(Plan::from))
}

/// Stores `terms` as a new version, unless they are those of `before`, the newest one. The plan is
/// locked.
pub(super) async fn store(
    tx: &mut PgConnection,
    id: &PlanId,
    before: Option<Plan>,
    terms: PlanTerms,
) -> Result<Plan, ApiError> {
    let mut version = 1;
    if let Some(before) = before {
        if before.terms.currency != terms.currency {
            keep_currency(tx, id, before.terms.currency).await?;
        }
        version = before.version + 1;
        if before.terms == terms {
            return Ok(before);
        }
    }
    sqlx::query!(
        "insert into plan_version (plan_id, version, terms) values ($1, $2, $3)",
        id.as_str(),
        version,
        SqlJson(&terms) as _,
    )
    .execute(&mut *tx)
    .await?;
    terms::change_all(tx, id, version).await?;
    change::announce_plan(tx, id).await?;
    tracing::info!(plan = id.as_str(), version, "a new plan version");
    newest(tx, id).await?.ok_or_else(|| unknown(id))
}

/// An invoice is in one currency, so a plan that tenants are on keeps its own.
async fn keep_currency(
    tx: &mut PgConnection,
    id: &PlanId,
    currency: Currency,
) -> Result<(), ApiError> {
    let tenant = sqlx::query_scalar!(
        r#"select id as "id!" from tenant where plan_id = $1
               union all select tenant_id from plan_change where plan_id = $1 limit 1"#,
        id.as_str(),
    )
    .fetch_optional(tx)
    .await?;
    match tenant {
        None => Ok(()),
        Some(_) => Err(ApiError::Conflict(format!(
            "tenants are billed in {currency} on this plan, so its currency can't change; make another plan"
        ))),
    }
}
