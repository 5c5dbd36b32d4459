//! Which plan version prices a tenant's usage from when.
//!
//! Usage is rolled up per quarter hour, so a change counts from the next one: no quarter hour is
//! priced by two versions. (Limits change at once; they don't look here.) The clock is Postgres'.

use sqlx::PgConnection;
use weir_domain::id::{PlanId, TenantId};

/// The first terms of a tenant, from the start of the current quarter hour.
pub async fn start(
    tx: &mut PgConnection,
    tenant: &TenantId,
    plan: &PlanId,
    version: i32,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into tenant_terms (tenant_id, starts_at, plan_id, plan_version)
         values ($1, to_timestamp(floor(extract(epoch from statement_timestamp()) / 900) * 900), $2, $3)",
        tenant.as_str(),
        plan.as_str(),
        version,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A tenant moves to a plan, from the next quarter hour.
pub async fn change(
    tx: &mut PgConnection,
    tenant: &TenantId,
    plan: &PlanId,
    version: i32,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into tenant_terms (tenant_id, starts_at, plan_id, plan_version)
         values ($1, to_timestamp((floor(extract(epoch from statement_timestamp()) / 900) + 1) * 900), $2, $3)
         on conflict (tenant_id, starts_at) do update
         set plan_id = excluded.plan_id, plan_version = excluded.plan_version",
        tenant.as_str(),
        plan.as_str(),
        version,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Every tenant on a plan moves to its new version, from the next quarter hour. Those who will move to
/// the plan begin with it; those who will have left it by then are left alone.
pub async fn change_all(tx: &mut PgConnection, plan: &PlanId, version: i32) -> sqlx::Result<()> {
    sqlx::query!(
        "with next as (
           select to_timestamp((floor(extract(epoch from statement_timestamp()) / 900) + 1) * 900) as quarter
         )
         insert into tenant_terms (tenant_id, starts_at, plan_id, plan_version)
         select id, quarter, $1, $2::integer from tenant, next
         where plan_id = $1 and not exists (
           select from plan_change where tenant_id = tenant.id and plan_change.starts_at <= quarter
         )
         union all
         select tenant_id, greatest(starts_at, quarter), $1, $2 from plan_change, next where plan_id = $1
         on conflict (tenant_id, starts_at) do update
         set plan_id = excluded.plan_id, plan_version = excluded.plan_version",
        plan.as_str(),
        version,
    )
    .execute(tx)
    .await?;
    Ok(())
}
