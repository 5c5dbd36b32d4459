//! Which plan version prices a tenant's usage from when.
//!
//! Usage is rolled up per quarter hour, so a change counts from the next one: no quarter hour is
//! priced by two versions. (Limits change at once; they don't look here.) The clock is Postgres'.

use jiff::Timestamp;
use sqlx::{PgConnection, PgPool};
use weir_domain::id::{PlanId, TenantId};

/// To be called first in a transaction that changes terms: those who end a period with the current quarter
/// hour wait for its end, as what it writes may start with that quarter hour.
pub async fn begin(tx: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("select pg_advisory_xact_lock_shared(5, 3)").execute(tx).await?;
    Ok(())
}

/// Waits for those who change terms at this moment, and returns a time: terms that are not committed by now
/// start after the quarter hour in which it lies.
pub async fn read_point(db: &PgPool) -> sqlx::Result<Timestamp> {
    let mut tx = db.begin().await?;
    sqlx::query!("select pg_advisory_xact_lock(5, 3)").execute(&mut *tx).await?;
    let point = sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#);
    let point = point.fetch_one(&mut *tx).await?.to_jiff();
    tx.commit().await?;
    Ok(point)
}

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
