//! The ledger's side: a report under its key, its record, and the sums per quarter hour, in one
//! statement, which is stored whole or not at all.

use jiff::Timestamp;
use serde_json::Value;
use sqlx::{PgConnection, PgPool, types::Json};
use weir_domain::{
    id::{Meter, TenantId},
    plan::PlanTerms,
    quantity::Amount,
};

use crate::{admin::tenants, database::on_constraint, problem::ApiError};

/// What was used, or is about to be.
#[derive(Debug, Clone)]
pub struct Usage {
    pub tenant: TenantId,
    pub meter: Meter,
    /// Empty where no model is known.
    pub model: String,
    /// 0 without a policy.
    pub policy_version: u32,
    pub amount: Amount,
}

/// What a caller calls a report, so that a repeat is known.
#[derive(Debug, Clone)]
pub struct Key {
    /// `usage` or `data_api`.
    pub door: &'static str,
    pub key: String,
    /// The SHA-256 of what was asked.
    pub asked: [u8; 32],
}

/// A report that is to be stored.
pub struct Entry<'a> {
    pub usage: &'a Usage,
    /// Minutes since 1970.
    pub minute: i64,
    pub key: Option<&'a Key>,
    /// Gateway, worker, and call: no two reports have the same.
    pub name: (&'a str, &'a str, u64),
    pub answer: &'a Value,
    pub paid: bool,
}

/// A report that is stored.
#[derive(Debug)]
pub struct Stored {
    pub answer: Value,
    pub paid: bool,
}

/// What is stored under the key of a report; an error where it is something else.
pub async fn find(db: &mut PgConnection, key: &Key) -> Result<Option<Stored>, ApiError> {
    // One that is being paid is waited for.
    let row = sqlx::query!(
        "select asked, answer, paid from usage_report where door = $1 and key = $2 for update",
        key.door,
        key.key,
    )
    .fetch_optional(db)
    .await?;
    match row {
        Some(row) if row.asked != key.asked => Err(ApiError::Conflict(format!(
            "{:?} was used before for something else; use a new key for a new report, and repeat one unchanged",
            key.key
        ))),
        row => Ok(row.map(|row| Stored { answer: row.answer, paid: row.paid })),
    }
}

/// The buckets have paid for it.
pub async fn set_paid(db: &mut PgConnection, key: &Key) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update usage_report set paid = true where door = $1 and key = $2",
        key.door,
        key.key,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Whether it is stored now; not so where its key was there before.
pub async fn add(db: &PgPool, entry: &Entry<'_>) -> Result<bool, sqlx::Error> {
    let Entry { usage, minute, key, name: (gateway, worker, call), answer, paid } = *entry;
    let stored = sqlx::query_scalar!(
        r#"with report as (
             insert into usage_report (door, key, asked, gateway, worker, sequence, answer, paid)
             select $1::text, $2::text, $3::bytea, $4::text, $5::text, $6::bigint, $7::jsonb, $8::boolean
             where $2 is not null
             on conflict do nothing returning 1
           ), fresh as (
             select 1 where $2 is null or exists (select 1 from report)
           ), record as (
             insert into usage_record (gateway, worker, sequence, position, tenant_id, minute, meter,
                                       model, policy_version, tokens, requests)
             select $4, $5, $6, 0, $9::text, to_timestamp($10::bigint * 60), $11::text, $12::text,
                    $13::integer, $14::bigint, $15::bigint
             from fresh
           ), rollup as (
             insert into usage_rollup (tenant_id, quarter, meter, model, tokens, requests)
             select $9, to_timestamp($16::bigint * 900), $11, $12, $14, $15 from fresh
             on conflict (tenant_id, quarter, meter, model) do update
             set tokens = usage_rollup.tokens + excluded.tokens,
                 requests = usage_rollup.requests + excluded.requests
           )
           select exists (select 1 from fresh) as "stored!""#,
        key.map(|key| key.door) as _,
        key.map(|key| &*key.key) as _,
        key.map(|key| &key.asked[..]) as _,
        gateway,
        worker,
        i64::try_from(call).unwrap_or(i64::MAX),
        answer,
        paid,
        usage.tenant.as_str(),
        minute,
        usage.meter.as_str(),
        usage.model,
        i32::try_from(usage.policy_version).unwrap_or(i32::MAX),
        usage.amount.tokens.get().cast_signed(),
        usage.amount.requests.get().cast_signed(),
        minute.div_euclid(15),
    )
    .fetch_one(db)
    .await?;
    Ok(stored)
}

/// Whether it is certain that nothing was stored. After a lost connection it is not.
pub fn is_undone(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => true,
        // Class 08 and 57P: the connection or the server went, at whatever moment.
        sqlx::Error::Database(cause) => {
            !cause.code().is_some_and(|code| code.starts_with("08") || code.starts_with("57P"))
        }
        _ => false,
    }
}

/// A sum of usage has an upper bound, as everything.
pub fn too_large(error: sqlx::Error) -> ApiError {
    let detail = || ApiError::Conflict("a sum of usage would be larger than 2^53 - 1".to_owned());
    match &error {
        sqlx::Error::Database(cause)
            if cause.constraint() == Some("usage_rollup_requests_check") =>
        {
            detail()
        }
        _ => on_constraint(error, "usage_rollup_tokens_check", detail),
    }
}

/// What a report of a tenant is held against.
pub struct Facts {
    /// The start of the first quarter hour that is billed.
    pub billed_from: Timestamp,
    /// By Postgres' clock.
    pub now: Timestamp,
    pub terms: PlanTerms,
}

pub async fn facts(db: &PgPool, tenant: &TenantId) -> Result<Facts, ApiError> {
    let row = sqlx::query!(
        r#"select to_timestamp(floor(extract(epoch from tenant.created_at) / 900) * 900) as "from!",
                  now() as "now!", version.terms as "terms: Json<PlanTerms>"
           from tenant, lateral (
             select terms from plan_version where plan_version.plan_id = tenant.plan_id
             order by version desc limit 1
           ) version
           where id = $1"#,
        tenant.as_str(),
    )
    .fetch_optional(db)
    .await?
    .ok_or_else(|| tenants::unknown(tenant))?;
    Ok(Facts { billed_from: row.from.to_jiff(), now: row.now.to_jiff(), terms: row.terms.0 })
}
