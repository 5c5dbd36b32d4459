//! Tenants: who is limited and billed, and on which plan.

use axum::{Json, extract::State, http::StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use sqlx::{PgConnection, types::Json as JsonColumn};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_domain::id::{PlanId, TenantId};

use super::{
    input::{Lines, Name, ZoneName},
    page::{Page, PageQuery},
    plans,
    tenant_provider::{TenantProvider, TenantProviderInput},
};
use crate::{
    app::App,
    change,
    database::on_constraint,
    extract::{JsonBody, Path, Query},
    plan_change,
    problem::ApiError,
    terms,
};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get, patch))
}

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct Tenant {
    #[schema(value_type = TenantId)]
    pub id: String,
    pub name: String,
    pub state: AccountState,
    #[schema(value_type = PlanId)]
    pub plan: String,
    /// The version of the plan whose limits hold now.
    pub plan_version: i32,
    /// An IANA name: the days and months of limits and billing periods are those of this zone.
    pub time_zone: String,
    /// Address and tax number, in lines: what invoices say under the name.
    pub billing_address: String,
    #[schema(value_type = TenantProvider)]
    pub provider: JsonColumn<TenantProvider>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// The end of its last billing period with fees; null unless it is closed.
    #[serde(serialize_with = "instant")]
    #[schema(value_type = Option<Timestamp>)]
    pub closed_at: Option<jiff_sqlx::Timestamp>,
}

/// Whether a tenant may use the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum AccountState {
    Active,
    Suspended,
    /// For good.
    Closed,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TenantCreate {
    id: TenantId,
    /// The id where it is not given.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200)]
    name: Option<Name>,
    plan: PlanId,
    /// An IANA name; UTC where it is not given.
    #[schema(value_type = Option<String>, examples("Europe/Zurich"))]
    time_zone: Option<ZoneName>,
    /// Address and tax number, in lines: what invoices say under the name.
    #[schema(value_type = Option<String>, examples("1 River Street\nZürich"))]
    billing_address: Option<Lines>,
    /// Who sends the invoices; `manual` where it is not given.
    provider: Option<TenantProviderInput>,
}

/// What shall change; what is not named stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TenantPatch {
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200)]
    name: Option<Name>,
    /// Its limits hold at once, its prices from the next quarter hour; a planned change of plan is
    /// withdrawn. To move with the next billing period, use `/tenants/{tenant}/plan-change`.
    plan: Option<PlanId>,
    /// Limits whose periods it moves go on in them: what the period before has released counts. Billing
    /// periods that have begun keep their ends; the next one ends in it.
    #[schema(value_type = Option<String>, examples("Europe/Zurich"))]
    time_zone: Option<ZoneName>,
    /// Invoices that are made from now on have it.
    #[schema(value_type = Option<String>)]
    billing_address: Option<Lines>,
    /// For the invoices that become final from now on.
    provider: Option<TenantProviderInput>,
}

/// All tenants.
#[utoipa::path(get, path = "/tenants", tag = "tenants", params(PageQuery), responses((status = 200, body = Page<Tenant>)))]
async fn list(
    State(app): State<App>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Tenant>>, ApiError> {
    let after: Option<TenantId> = page.after()?;
    let tenants = sqlx::query_as!(
        Tenant,
        r#"select id, name, state as "state: _", plan_id as plan,
             (select max(version) from plan_version where plan_id = tenant.plan_id) as "plan_version!",
             time_zone, billing_address,
             (select jsonb_build_object('kind', tenant.provider, 'customer', customer_id, 'name', customer.name, 'email', email)
              from (select) one left join provider_customer customer
                on customer.tenant_id = tenant.id and customer.provider = tenant.provider) as "provider!: _",
             created_at, updated_at, closed_at
           from tenant where $1::text is null or id > $1 order by id limit $2"#,
        after.as_ref().map(TenantId::as_str),
        page.fetch(),
    )
    .fetch_all(&app.db)
    .await?;
    Ok(Json(Page::new(tenants, &page, |tenant: &Tenant| tenant.id.clone())))
}

/// One tenant.
#[utoipa::path(get, path = "/tenants/{tenant}", tag = "tenants", params(("tenant" = TenantId, Path)), responses((status = 200, body = Tenant)))]
async fn get(State(app): State<App>, Path(id): Path<TenantId>) -> Result<Json<Tenant>, ApiError> {
    let mut db = app.db.acquire().await?;
    find(&mut db, &id).await.map(Json)
}

/// Makes a tenant. It is billed from the start of the current quarter hour.
#[utoipa::path(post, path = "/tenants", tag = "tenants", request_body = TenantCreate, responses((status = 201, body = Tenant), (status = 409, body = crate::problem::Problem, content_type = "application/problem+json", description = "There is a tenant with this id.")))]
async fn create(
    State(app): State<App>,
    JsonBody(new): JsonBody<TenantCreate>,
) -> Result<(StatusCode, Json<Tenant>), ApiError> {
    let TenantCreate { id, name, plan, time_zone, billing_address, provider } = new;
    if let Some(provider) = &provider {
        provider.check(&app.providers)?;
    }
    let time_zone = time_zone.unwrap_or_else(ZoneName::utc);
    let mut tx = app.db.begin().await?;
    hold_plans(&mut tx, &[plan.as_str()]).await?;
    let newest = newest_of(&mut tx, &plan).await?;
    sqlx::query!(
        "insert into tenant (id, name, plan_id, time_zone, billing_address)
         values ($1, coalesce($2, $1), $3, $4, coalesce($5, ''))",
        id.as_str(),
        name.as_ref().map(Name::as_str),
        plan.as_str(),
        time_zone.as_str(),
        billing_address.as_ref().map(Lines::as_str),
    )
    .execute(&mut *tx)
    .await
    .map_err(|error| {
        on_constraint(error, "tenant_pkey", || {
            ApiError::Conflict(format!("there is already a tenant {:?}", id.as_str()))
        })
    })?;
    if let Some(provider) = &provider {
        provider.store(&mut tx, &id).await?;
    }
    terms::start(&mut tx, &id, &plan, newest.version).await?;
    change::announce_tenant(&mut tx, &id).await?;
    let tenant = find(&mut tx, &id).await?;
    tx.commit().await?;
    tracing::info!(tenant = id.as_str(), plan = plan.as_str(), "a new tenant");
    Ok((StatusCode::CREATED, Json(tenant)))
}

/// Changes a tenant.
#[utoipa::path(patch, path = "/tenants/{tenant}", tag = "tenants", params(("tenant" = TenantId, Path)), request_body = TenantPatch, responses((status = 200, body = Tenant)))]
async fn patch(
    State(app): State<App>,
    Path(id): Path<TenantId>,
    JsonBody(patch): JsonBody<TenantPatch>,
) -> Result<Json<Tenant>, ApiError> {
    if let Some(provider) = &patch.provider {
        provider.check(&app.providers)?;
    }
    let mut tx = app.db.begin().await?;
    let before = lock(&mut tx, &id).await?;
    let plan = patch.plan.filter(|plan| plan.as_str() != before.plan);
    let zone = patch.time_zone.filter(|zone| zone.as_str() != before.time_zone);
    let name = patch.name.filter(|name| name.as_str() != before.name);
    let address =
        patch.billing_address.filter(|address| address.as_str() != before.billing_address);
    let unchanged = plan.is_none() && zone.is_none() && name.is_none() && address.is_none();
    if unchanged && patch.provider.is_none() {
        return Ok(Json(before));
    }
    if before.state == AccountState::Closed && (plan.is_some() || zone.is_some()) {
        return Err(ApiError::Conflict(format!(
            "{id} is closed: its plan and time zone stay as they are"
        )));
    }
    if let Some(provider) = &patch.provider {
        provider.store(&mut tx, &id).await?;
    }
    if let Some(plan) = &plan {
        move_to(&mut tx, &id, &before, plan).await?;
    }
    sqlx::query!(
        "update tenant set name = coalesce($2, name), plan_id = coalesce($3, plan_id),
           time_zone = coalesce($4, time_zone),
           billing_address = coalesce($5, billing_address), updated_at = now()
         where id = $1",
        id.as_str(),
        name.as_ref().map(Name::as_str),
        plan.as_ref().map(PlanId::as_str),
        zone.as_ref().map(ZoneName::as_str),
        address.as_ref().map(Lines::as_str),
    )
    .execute(&mut *tx)
    .await?;
    if plan.is_some() || zone.is_some() {
        change::announce_tenant(&mut tx, &id).await?;
    }
    let tenant = find(&mut tx, &id).await?;
    tx.commit().await?;
    tracing::info!(before = ?before, after = ?tenant, "a tenant was changed");
    Ok(Json(tenant))
}

/// The tenant moves to another plan.
async fn move_to(
    tx: &mut PgConnection,
    id: &TenantId,
    before: &Tenant,
    plan: &PlanId,
) -> Result<(), ApiError> {
    let version = joinable(tx, id, before, plan).await?;
    plan_change::withdraw(tx, id).await?;
    terms::change(tx, id, plan, version).await?;
    Ok(())
}

/// The newest version of a plan that the tenant can move to. Nobody changes it before the transaction
/// ends.
pub(super) async fn joinable(
    tx: &mut PgConnection,
    id: &TenantId,
    before: &Tenant,
    plan: &PlanId,
) -> Result<i32, ApiError> {
    hold_plans(tx, &[&before.plan, plan.as_str()]).await?;
    let left = newest_of(tx, &PlanId::new(&before.plan).map_err(ApiError::internal)?).await?;
    let joined = newest_of(tx, plan).await?;
    // An invoice is in one currency.
    let (currency, other) = (left.terms.currency, joined.terms.currency);
    if currency != other {
        return Err(ApiError::Conflict(format!(
            "{id} is billed in {currency}, but the plan {plan} is in {other}; choose a plan in {currency}"
        )));
    }
    Ok(joined.version)
}

/// Lets nobody make a new version of these plans before the transaction ends, so that the tenant
/// does not miss it. In the order of their ids, so that two who do so don't wait for each other.
async fn hold_plans(tx: &mut PgConnection, ids: &[&str]) -> Result<(), ApiError> {
    sqlx::query!("select id from plan where id = any($1::text[]) order by id for share", ids as _,)
        .fetch_all(tx)
        .await?;
    Ok(())
}

/// The newest version of a plan that the input names.
async fn newest_of(tx: &mut PgConnection, plan: &PlanId) -> Result<plans::Plan, ApiError> {
    plans::newest(tx, plan).await?.ok_or_else(|| {
        ApiError::field("plan", format!("there is no plan {:?}; make it first", plan.as_str()))
    })
}

fn instant<S: Serializer>(
    at: &Option<jiff_sqlx::Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    at.map(jiff_sqlx::Timestamp::to_jiff).serialize(serializer)
}

/// The tenant, which nobody else changes before the transaction ends.
pub(super) async fn lock(tx: &mut PgConnection, id: &TenantId) -> Result<Tenant, ApiError> {
    // Before any row: who waits for it holds none that others wait for.
    terms::begin(tx).await?;
    sqlx::query!("select id from tenant where id = $1 for no key update", id.as_str())
        .fetch_optional(&mut *tx)
        .await?;
    plan_change::apply(tx, id).await?;
    find(tx, id).await
}

/// The tenant `id`, or a 404.
pub async fn find(db: &mut PgConnection, id: &TenantId) -> Result<Tenant, ApiError> {
    sqlx::query_as!(
        Tenant,
        r#"select id, name, state as "state: _", plan_id as plan,
             (select max(version) from plan_version where plan_id = tenant.plan_id) as "plan_version!",
             time_zone, billing_address,
             (select jsonb_build_object('kind', tenant.provider, 'customer', customer_id, 'name', customer.name, 'email', email)
              from (select) one left join provider_customer customer
                on customer.tenant_id = tenant.id and customer.provider = tenant.provider) as "provider!: _",
             created_at, updated_at, closed_at
           from tenant where id = $1"#,
        id.as_str(),
    )
    .fetch_optional(db)
    .await?
    .ok_or_else(|| unknown(id))
}

/// The 404 of a tenant.
pub fn unknown(id: &TenantId) -> ApiError {
    ApiError::NotFound { what: "tenant", id: id.to_string() }
}
