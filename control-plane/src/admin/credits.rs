//! Credits of tenants: amounts that pay for invoices.

use axum::{Json, extract::State, http::StatusCode};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_domain::{
    currency::Currency,
    id::{CreditName, TenantId},
    invoice::grants::{self, GrantKind},
    money::Money,
};

use super::{
    input::Name,
    page::{Page, PageQuery},
    tenants,
};
use crate::{
    app::App,
    extract::{JsonBody, Path, Query},
    invoice::grants::StoredKind,
    problem::ApiError,
};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, grant)).routes(routes!(take_back))
}

/// An amount that a tenant has paid ahead or was given.
#[derive(Debug, Serialize, ToSchema)]
struct Credit {
    id: i64,
    #[schema(value_type = CreditName)]
    name: String,
    kind: GrantKind,
    /// What invoice lines say.
    description: String,
    currency: Currency,
    #[schema(value_type = String)]
    amount: Decimal,
    /// What no invoice has used, and was not taken back.
    #[schema(value_type = String)]
    left: Decimal,
    /// What was taken back.
    #[schema(value_type = String)]
    taken_back: Decimal,
    /// It counts for the invoices of periods that end by then; null if for all.
    expires_at: Option<Timestamp>,
    created_at: Timestamp,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreditGrant {
    /// Chosen by you, once per tenant: the same call with the same name again grants nothing more.
    name: CreditName,
    kind: GrantKind,
    /// That of the tenant's plan.
    currency: Currency,
    #[serde(with = "rust_decimal::serde::str")]
    #[schema(value_type = String, examples("25.00"))]
    amount: Decimal,
    /// It counts for the invoices of periods that end by then; for all without it.
    expires_at: Option<Timestamp>,
    /// What invoice lines say; "Promotional credit" or "Prepaid credit" without it.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200)]
    description: Option<Name>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreditTakeBack {
    /// Kept with it.
    #[schema(value_type = String, min_length = 1, max_length = 200)]
    reason: Name,
}

struct Row {
    id: i64,
    name: String,
    kind: StoredKind,
    description: String,
    currency: String,
    amount_minor: i64,
    left_minor: i64,
    taken_back_minor: i64,
    expires_at: Option<jiff_sqlx::Timestamp>,
    created_at: jiff_sqlx::Timestamp,
}

impl TryFrom<Row> for Credit {
    type Error = ApiError;

    fn try_from(row: Row) -> Result<Self, ApiError> {
        let currency = Currency::new(&row.currency).map_err(ApiError::internal)?;
        Ok(Self {
            id: row.id,
            name: row.name,
            kind: row.kind.into(),
            description: row.description,
            currency,
            amount: Money::new(row.amount_minor, currency).decimal(),
            left: Money::new(row.left_minor, currency).decimal(),
            taken_back: Money::new(row.taken_back_minor, currency).decimal(),
            expires_at: row.expires_at.map(|expires| expires.to_jiff()),
            created_at: row.created_at.to_jiff(),
        })
    }
}

/// The credits of a tenant, newest first, those that are used up with them.
#[utoipa::path(get, path = "/tenants/{tenant}/credits", tag = "invoices", params(("tenant" = TenantId, Path), PageQuery), responses((status = 200, body = Page<Credit>)))]
async fn list(
    State(app): State<App>,
    Path(tenant): Path<TenantId>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Credit>>, ApiError> {
    let after: Option<i64> = page.after()?;
    let mut db = app.db.acquire().await?;
    tenants::find(&mut db, &tenant).await?;
    let credits = read(&mut db, &tenant, None, after, page.fetch()).await?;
    Ok(Json(Page::new(credits, &page, |credit: &Credit| credit.id)))
}

/// Grants a tenant a credit. The next invoices use it up, as far as it goes.
///
/// It can't be changed; what no invoice has used can be taken back.
#[utoipa::path(
    post, path = "/tenants/{tenant}/credits", tag = "invoices", params(("tenant" = TenantId, Path)), request_body = CreditGrant,
    responses(
        (status = 201, body = Credit, description = "Granted."), (status = 200, body = Credit, description = "It was granted before."),
        (status = 409, body = crate::problem::Problem, content_type = "application/problem+json", description = "There is another credit with this name."),
    ),
)]
async fn grant(
    State(app): State<App>,
    Path(id): Path<TenantId>,
    JsonBody(new): JsonBody<CreditGrant>,
) -> Result<(StatusCode, Json<Credit>), ApiError> {
    let mut tx = app.db.begin().await?;
    let amount = grants::granted(new.amount, new.currency)
        .map_err(|error| ApiError::field("amount", error))?;
    check_currency(&mut tx, &id, new.currency).await?;
    let description = new.description.as_ref().map_or(
        match new.kind {
            GrantKind::Promotional => "Promotional credit",
            GrantKind::Prepaid => "Prepaid credit",
        },
        Name::as_str,
    );
    let made = sqlx::query!(
        "insert into credit (tenant_id, name, kind, description, currency, amount_minor, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7) on conflict (tenant_id, name) do nothing",
        id.as_str(),
        new.name.as_str(),
        StoredKind::from(new.kind) as _,
        description,
        new.currency.as_str(),
        amount.minor(),
        new.expires_at.map(ToSqlx::to_sqlx) as _,
    )
    .execute(&mut *tx)
    .await?;
    let credit = read(&mut tx, &id, Some(new.name.as_str()), None, 1).await?.pop();
    let credit = credit
        .ok_or_else(|| ApiError::NotFound { what: "credit", id: new.name.as_str().to_owned() })?;
    if made.rows_affected() == 1 {
        past(&mut tx, new.expires_at).await?;
        tx.commit().await?;
        tracing::info!(tenant = %id, credit = ?credit, "credit granted");
        return Ok((StatusCode::CREATED, Json(credit)));
    }
    let is_same = credit.kind == new.kind
        && credit.amount == amount.decimal()
        && credit.description == description
        && credit.expires_at == new.expires_at;
    if is_same {
        return Ok((StatusCode::OK, Json(credit)));
    }
    Err(ApiError::Conflict(format!(
        "{id} has another credit named {:?}; choose another name for this one",
        credit.name
    )))
}

/// Takes back what no invoice has used of a credit. What it paid stays paid; what comes back later with an
/// invoice that is void can be taken back then.
#[utoipa::path(
    post, path = "/tenants/{tenant}/credits/{name}/take-back", tag = "invoices",
    params(("tenant" = TenantId, Path), ("name" = CreditName, Path)), request_body = CreditTakeBack,
    responses(
        (status = 200, body = Credit, description = "It is taken back, now or since before."),
        (status = 409, body = crate::problem::Problem, content_type = "application/problem+json", description = "Invoices have used all of it."),
    ),
)]
async fn take_back(
    State(app): State<App>,
    Path((id, name)): Path<(TenantId, String)>,
    JsonBody(why): JsonBody<CreditTakeBack>,
) -> Result<Json<Credit>, ApiError> {
    let mut tx = app.db.begin().await?;
    // Who makes an invoice holds it, too.
    sqlx::query!("select id from tenant where id = $1 for no key update", id.as_str())
        .fetch_optional(&mut *tx)
        .await?
        .ok_or_else(|| tenants::unknown(&id))?;
    let unknown = || ApiError::NotFound { what: "credit", id: name.clone() };
    let before = read(&mut tx, &id, Some(&name), None, 1).await?.pop().ok_or_else(unknown)?;
    if before.left <= Decimal::ZERO {
        return match before.taken_back.is_zero() {
            false => Ok(Json(before)),
            true => Err(ApiError::Conflict(format!(
                "invoices have used all of the credit {name:?}; nothing is left to take back"
            ))),
        };
    }
    sqlx::query!(
        "insert into credit_reversal (credit_id, amount_minor, reason)
         select id, left_minor, $2 from credit_left where id = $1",
        before.id,
        why.reason.as_str(),
    )
    .execute(&mut *tx)
    .await?;
    let after = read(&mut tx, &id, Some(&name), None, 1).await?.pop().ok_or_else(unknown)?;
    tx.commit().await?;
    tracing::info!(tenant = %id, credit = ?after, reason = why.reason.as_str(), "credit taken back");
    Ok(Json(after))
}

/// An invoice is in one currency, and so is what pays for it. The tenant stays in it: its plan does,
/// and it only moves to others that are.
async fn check_currency(
    db: &mut PgConnection,
    id: &TenantId,
    currency: Currency,
) -> Result<(), ApiError> {
    let terms = sqlx::query_scalar!(
        r#"select terms->>'currency' as "currency!" from tenant join plan_version using (plan_id)
           where tenant.id = $1 order by version desc limit 1"#,
        id.as_str(),
    );
    let own = terms.fetch_optional(db).await?.ok_or_else(|| tenants::unknown(id))?;
    if own != currency.as_str() {
        return Err(ApiError::field("currency", format!("{id} is billed in {own}; use {own}")));
    }
    Ok(())
}

/// A credit that has expired is a mistake.
async fn past(db: &mut PgConnection, expires_at: Option<Timestamp>) -> Result<(), ApiError> {
    let now = sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(db).await?;
    match expires_at.filter(|expires| *expires <= now.to_jiff()) {
        None => Ok(()),
        Some(expires) => Err(ApiError::field(
            "expires_at",
            format!("{expires} is past; no period to come ends by then"),
        )),
    }
}

/// Those with this name, or with a smaller id; newest first.
async fn read(
    db: &mut PgConnection,
    tenant: &TenantId,
    name: Option<&str>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Credit>, ApiError> {
    let rows = sqlx::query_as!(
        Row,
        r#"select credit.id, name, kind as "kind: _", description, currency, amount_minor,
                  left_minor as "left_minor!",
                  coalesce((select sum(reversal.amount_minor) from credit_reversal reversal
                            where reversal.credit_id = credit.id), 0)::bigint as "taken_back_minor!",
                  expires_at as "expires_at: _", created_at as "created_at: _"
           from credit join credit_left using (id)
           where tenant_id = $1 and ($2::text is null or name = $2) and ($3::bigint is null or id < $3)
           order by id desc limit $4"#,
        tenant.as_str(),
        name,
        before,
        limit,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Credit::try_from).collect()
}
