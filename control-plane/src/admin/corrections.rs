//! Corrections of usage: what a ledger that was wrong, or that missed something, must have on top.
//!
//! A correction is added to the sums per quarter hour, and so comes on an invoice like all usage: that
//! of its period, or as an adjustment line of the next one where its period is closed. It is kept
//! beside what gateways counted, which stays as it is.

use std::collections::{BTreeMap, HashMap};

use axum::{Json, extract::State, http::StatusCode};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_domain::{
    id::{self, Meter, TenantId},
    quantity::Quantity,
};

use super::{
    input::Name,
    page::{Page, PageQuery},
    tenants,
};
use crate::{
    app::App,
    database::on_constraint,
    extract::{JsonBody, Path, Query},
    problem::ApiError,
};

const QUARTER_S: i64 = 900;
/// The most entries of a correction: its rows are locked until it is stored.
const MAX_ENTRIES: usize = 1_000;
/// The longest model name, in characters, as in what gateways count.
const MAX_MODEL_LEN: usize = 128;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, put))
}

/// Usage that was added or taken away afterwards.
#[derive(Debug, Serialize, ToSchema)]
struct Correction {
    #[serde(skip)]
    id: i64,
    #[schema(value_type = TenantId)]
    tenant: String,
    /// Unique among the tenant's.
    name: String,
    reason: String,
    entries: Vec<Entry>,
    created_at: Timestamp,
}

/// What is added to the usage of a quarter hour, meter and model; negative to take away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// The start of the quarter hour.
    quarter: Timestamp,
    #[serde(default)]
    meter: Meter,
    /// Empty where no model is known.
    #[serde(default)]
    model: String,
    #[serde(default)]
    tokens: i64,
    #[serde(default)]
    requests: i64,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CorrectionWrite {
    /// Why, and what was wrong.
    #[schema(value_type = String, min_length = 1, max_length = 200)]
    reason: Name,
    #[schema(min_items = 1, max_items = 1_000)]
    entries: Vec<Entry>,
}

/// The corrections of a tenant's usage, newest first.
#[utoipa::path(
    get, path = "/tenants/{tenant}/usage-corrections", tag = "usage",
    params(("tenant" = TenantId, Path), PageQuery), responses((status = 200, body = Page<Correction>)),
)]
async fn list(
    State(app): State<App>,
    Path(tenant): Path<TenantId>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Correction>>, ApiError> {
    let mut db = app.db.acquire().await?;
    tenants::find(&mut db, &tenant).await?;
    let found = read(&mut db, &tenant, None, page.after()?, page.fetch()).await?;
    Ok(Json(Page::new(found, &page, |correction| correction.id)))
}

/// One correction.
#[utoipa::path(
    get, path = "/tenants/{tenant}/usage-corrections/{name}", tag = "usage",
    params(("tenant" = TenantId, Path), ("name" = String, Path)),
    responses((status = 200, body = Correction)),
)]
async fn get(
    State(app): State<App>,
    Path((tenant, name)): Path<(TenantId, String)>,
) -> Result<Json<Correction>, ApiError> {
    let mut db = app.db.acquire().await?;
    tenants::find(&mut db, &tenant).await?;
    one(&mut db, &tenant, &name)
        .await?
        .map(Json)
        .ok_or(ApiError::NotFound { what: "correction", id: name })
}

/// Adds usage to the ledger or takes it away, once: the same call again changes nothing. A correction
/// is never changed or deleted; another one may correct it.
#[utoipa::path(
    put, path = "/tenants/{tenant}/usage-corrections/{name}", tag = "usage",
    params(("tenant" = TenantId, Path), ("name" = String, Path)), request_body = CorrectionWrite,
    responses(
        (status = 201, body = Correction),
        (status = 200, body = Correction, description = "It was stored before; nothing has changed."),
        (status = 409, body = crate::problem::Problem, content_type = "application/problem+json", description = "There is another correction with this name, or more would be taken away than was used."),
    ),
)]
async fn put(
    State(app): State<App>,
    Path((tenant, name)): Path<(TenantId, String)>,
    JsonBody(new): JsonBody<CorrectionWrite>,
) -> Result<(StatusCode, Json<Correction>), ApiError> {
    id::check(&name).map_err(|error| ApiError::field("name", error))?;
    check(&new.entries)?;
    let mut tx = app.db.begin().await?;
    check_times(&mut tx, &tenant, &new.entries).await?;
    let is_new = insert(&mut tx, &tenant, &name, &new).await?;
    if is_new {
        add_to_rollup(&mut tx, &tenant, &new.entries).await?;
    }
    let stored = one(&mut tx, &tenant, &name)
        .await?
        .ok_or(ApiError::NotFound { what: "correction", id: name })?;
    tx.commit().await?;
    if is_new {
        tracing::info!(%tenant, correction = stored.name, reason = stored.reason, "usage was corrected");
        return Ok((StatusCode::CREATED, Json(stored)));
    }
    if stored.reason != new.reason.as_str() || stored.entries != new.entries {
        return Err(ApiError::Conflict(format!(
            "{tenant} has another correction named {:?}; corrections are not changed, so use a new name",
            stored.name
        )));
    }
    Ok((StatusCode::OK, Json(stored)))
}

/// Whether each entry can be a row of the ledger.
fn check(entries: &[Entry]) -> Result<(), ApiError> {
    if !(1..=MAX_ENTRIES).contains(&entries.len()) {
        let detail = format!("send 1 to {MAX_ENTRIES} of them, not {}", entries.len());
        return Err(ApiError::field("entries", detail));
    }
    for (index, entry) in entries.iter().enumerate() {
        let wrong = |field: &str, detail: &str| {
            Err(ApiError::field(format!("entries[{index}].{field}"), detail))
        };
        let quarter = entry.quarter;
        if quarter.as_second() % QUARTER_S != 0 || quarter.subsec_nanosecond() != 0 {
            return wrong("quarter", "it must be on a quarter hour, such as 2026-01-31T10:15:00Z");
        }
        let model = &entry.model;
        if model.chars().count() > MAX_MODEL_LEN || model.chars().any(char::is_control) {
            return wrong("model", "at most 128 characters, and no control characters");
        }
        for (field, amount) in [("tokens", entry.tokens), ("requests", entry.requests)] {
            if amount.unsigned_abs() > Quantity::MAX.get() {
                return wrong(field, "must be -(2^53 - 1) to 2^53 - 1");
            }
        }
        if entry.tokens == 0 && entry.requests == 0 {
            return wrong("tokens", "tokens or requests must differ from 0");
        }
    }
    Ok(())
}

/// Usage is billed from the tenant's first quarter hour on, and none lies in the future. What was stored with
/// an earlier time, which nobody is billed for, may be taken away, to be added where it is billed.
async fn check_times(
    tx: &mut PgConnection,
    tenant: &TenantId,
    entries: &[Entry],
) -> Result<(), ApiError> {
    let billed = sqlx::query!(
        r#"select to_timestamp(floor(extract(epoch from created_at) / 900) * 900) as "from!",
                  now() as "now!"
           from tenant where id = $1"#,
        tenant.as_str(),
    )
    .fetch_optional(tx)
    .await?
    .ok_or_else(|| tenants::unknown(tenant))?;
    let (from, now) = (billed.from.to_jiff(), billed.now.to_jiff());
    for (index, entry) in entries.iter().enumerate() {
        let takes_away = entry.tokens <= 0 && entry.requests <= 0;
        if (entry.quarter < from && !takes_away) || entry.quarter > now {
            let detail = format!(
                "{} is not between {from}, from when {tenant} is billed, and now",
                entry.quarter
            );
            return Err(ApiError::field(format!("entries[{index}].quarter"), detail));
        }
    }
    Ok(())
}

/// Whether it was not there yet. One that is being stored is waited for.
async fn insert(
    tx: &mut PgConnection,
    tenant: &TenantId,
    name: &str,
    new: &CorrectionWrite,
) -> Result<bool, ApiError> {
    let inserted = sqlx::query_scalar!(
        "insert into usage_correction (tenant_id, name, reason) values ($1, $2, $3)
         on conflict do nothing returning id",
        tenant.as_str(),
        name,
        new.reason.as_str(),
    );
    let Some(id) = inserted.fetch_optional(&mut *tx).await? else { return Ok(false) };
    let quarters: Vec<_> = new.entries.iter().map(|entry| entry.quarter.to_sqlx()).collect();
    let meters: Vec<_> = new.entries.iter().map(|entry| entry.meter.to_string()).collect();
    let models: Vec<_> = new.entries.iter().map(|entry| entry.model.clone()).collect();
    let tokens: Vec<_> = new.entries.iter().map(|entry| entry.tokens).collect();
    let requests: Vec<_> = new.entries.iter().map(|entry| entry.requests).collect();
    sqlx::query!(
        "insert into usage_correction_entry
           (correction_id, position, quarter, meter, model, tokens, requests)
         select $1, position, quarter, meter, model, tokens, requests
         from unnest($2::timestamptz[], $3::text[], $4::text[], $5::bigint[], $6::bigint[])
              with ordinality as given (quarter, meter, model, tokens, requests, position)",
        id,
        &quarters as _,
        &meters,
        &models,
        &tokens,
        &requests,
    )
    .execute(tx)
    .await?;
    Ok(true)
}

/// Adds the entries to the sums, none of which may become negative or too large. Rows are locked in the
/// order of their keys, as by those who store batches.
async fn add_to_rollup(
    tx: &mut PgConnection,
    tenant: &TenantId,
    entries: &[Entry],
) -> Result<(), ApiError> {
    let mut sums = BTreeMap::<_, (i64, i64)>::new();
    for entry in entries {
        let sum =
            sums.entry((entry.quarter, entry.meter.as_str(), entry.model.as_str())).or_default();
        // A thousand times 2^53 at most.
        sum.0 = sum.0.saturating_add(entry.tokens);
        sum.1 = sum.1.saturating_add(entry.requests);
    }
    let quarters: Vec<_> = sums.keys().map(|key| key.0.to_sqlx()).collect();
    let meters: Vec<_> = sums.keys().map(|key| key.1.to_owned()).collect();
    let models: Vec<_> = sums.keys().map(|key| key.2.to_owned()).collect();
    let (tokens, requests): (Vec<_>, Vec<_>) = sums.into_values().unzip();
    let too_large = |error| {
        let detail = "a sum of usage would be larger than 2^53 - 1".to_owned();
        match &error {
            sqlx::Error::Database(cause)
                if cause.constraint() == Some("usage_rollup_requests_check") =>
            {
                ApiError::Conflict(detail)
            }
            _ => on_constraint(error, "usage_rollup_tokens_check", || ApiError::Conflict(detail)),
        }
    };
    let rows = sqlx::query!(
        "insert into usage_rollup (tenant_id, quarter, meter, model, tokens, requests)
         select $1, * from unnest($2::timestamptz[], $3::text[], $4::text[], $5::bigint[], $6::bigint[])
         on conflict (tenant_id, quarter, meter, model) do update
         set tokens = usage_rollup.tokens + excluded.tokens,
             requests = usage_rollup.requests + excluded.requests
         returning quarter, meter, model, tokens, requests",
        tenant.as_str(),
        &quarters as _,
        &meters,
        &models,
        &tokens,
        &requests,
    )
    .fetch_all(tx)
    .await
    .map_err(too_large)?;
    match rows.into_iter().find(|row| row.tokens < 0 || row.requests < 0) {
        None => Ok(()),
        Some(row) => Err(ApiError::Conflict(format!(
            "more would be taken away than was used: {} tokens and {} requests would be left of meter {:?}, model {:?}, in the quarter hour from {}",
            row.tokens,
            row.requests,
            row.meter,
            row.model,
            row.quarter.to_jiff()
        ))),
    }
}

async fn one(
    db: &mut PgConnection,
    tenant: &TenantId,
    name: &str,
) -> Result<Option<Correction>, ApiError> {
    Ok(read(db, tenant, Some(name), None, 1).await?.pop())
}

/// Those with this name, or all, newest first, with ids below `before`.
async fn read(
    db: &mut PgConnection,
    tenant: &TenantId,
    name: Option<&str>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Correction>, ApiError> {
    let rows = sqlx::query!(
        "select id, name, reason, created_at from usage_correction
         where tenant_id = $1 and ($2::text is null or name = $2) and ($3::bigint is null or id < $3)
         order by id desc limit $4",
        tenant.as_str(),
        name,
        before,
        limit,
    )
    .fetch_all(&mut *db)
    .await?;
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let entries = sqlx::query!(
        "select correction_id, quarter, meter, model, tokens, requests from usage_correction_entry
         where correction_id = any($1) order by correction_id, position",
        &ids,
    )
    .fetch_all(db)
    .await?;
    let mut per_correction = HashMap::<i64, Vec<Entry>>::new();
    for row in entries {
        let entry = Entry {
            quarter: row.quarter.to_jiff(),
            meter: Meter::new(row.meter).map_err(ApiError::internal)?,
            model: row.model,
            tokens: row.tokens,
            requests: row.requests,
        };
        per_correction.entry(row.correction_id).or_default().push(entry);
    }
    let corrections = rows.into_iter().map(|row| Correction {
        id: row.id,
        tenant: tenant.to_string(),
        name: row.name,
        reason: row.reason,
        entries: per_correction.remove(&row.id).unwrap_or_default(),
        created_at: row.created_at.to_jiff(),
    });
    Ok(corrections.collect())
}
