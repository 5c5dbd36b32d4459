//! Changes of plan that wait for the tenant's next billing period.
//!
//! The terms that will be in force are written at once, with a start that is to come, so that each
//! invoice is priced right whoever makes it when. The tenant itself moves, and its limits with it, when
//! the time has come: every replica looks for that each few seconds. Who ends the current period early
//! moves the change too: nothing else moves its end.
//!
//! Who calls these holds the tenant's row.

use std::time::Duration;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::{PgConnection, PgPool};
use tokio::sync::watch;
use weir_domain::id::{PlanId, TenantId};

use crate::change;

/// How often is looked for changes whose time has come.
const PACE: Duration = Duration::from_secs(5);

/// A plan to which a tenant will move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub plan: String,
    pub starts_at: Timestamp,
}

/// What is planned for the tenant.
pub async fn find(db: &mut PgConnection, tenant: &TenantId) -> sqlx::Result<Option<Planned>> {
    let row = sqlx::query!(
        "select plan_id, starts_at from plan_change where tenant_id = $1",
        tenant.as_str(),
    );
    Ok(row
        .fetch_optional(db)
        .await?
        .map(|row| Planned { plan: row.plan_id, starts_at: row.starts_at.to_jiff() }))
}

/// Plans that the tenant moves to `plan` then, instead of what was planned.
pub async fn plan(
    tx: &mut PgConnection,
    tenant: &TenantId,
    plan: &PlanId,
    starts_at: Timestamp,
) -> sqlx::Result<()> {
    withdraw(tx, tenant).await?;
    sqlx::query!(
        "insert into plan_change (tenant_id, plan_id, starts_at) values ($1, $2, $3)",
        tenant.as_str(),
        plan.as_str(),
        starts_at.to_sqlx() as _,
    )
    .execute(&mut *tx)
    .await?;
    write_terms(tx, tenant, plan.as_str(), starts_at).await
}

/// The tenant stays on its plan; whether anything else was planned.
pub async fn withdraw(tx: &mut PgConnection, tenant: &TenantId) -> sqlx::Result<bool> {
    let row = sqlx::query!(
        r#"delete from plan_change using tenant
           where tenant_id = $1 and tenant.id = tenant_id
           returning starts_at, tenant.plan_id as own"#,
        tenant.as_str(),
    );
    let Some(row) = row.fetch_optional(&mut *tx).await? else { return Ok(false) };
    let deleted = sqlx::query!(
        "delete from tenant_terms where tenant_id = $1 and starts_at = $2
           and starts_at > to_timestamp((floor(extract(epoch from statement_timestamp()) / 900) + 1) * 900)",
        tenant.as_str(),
        row.starts_at as _,
    )
    .execute(&mut *tx)
    .await?;
    // In the last quarter hour before, they may have taken the place of a new version of its own plan.
    if deleted.rows_affected() == 0 {
        write_terms(tx, tenant, &row.own, row.starts_at.to_jiff()).await?;
    }
    Ok(true)
}

/// The next period starts at another time than was expected. What is due already is done.
pub async fn follow(
    tx: &mut PgConnection,
    tenant: &TenantId,
    starts_at: Timestamp,
) -> sqlx::Result<()> {
    if apply(tx, tenant).await? {
        return Ok(());
    }
    let Some(planned) = find(tx, tenant).await? else { return Ok(()) };
    let to = PlanId::new(planned.plan).map_err(|error| sqlx::Error::Decode(error.into()))?;
    plan(tx, tenant, &to, starts_at).await
}

/// The newest version of a plan prices the tenant's usage from then.
async fn write_terms(
    tx: &mut PgConnection,
    tenant: &TenantId,
    plan: &str,
    starts_at: Timestamp,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into tenant_terms (tenant_id, starts_at, plan_id, plan_version)
         select $1, $3, plan_id, max(version) from plan_version where plan_id = $2 group by plan_id
         on conflict (tenant_id, starts_at) do update
         set plan_id = excluded.plan_id, plan_version = excluded.plan_version",
        tenant.as_str(),
        plan,
        starts_at.to_sqlx() as _,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Moves the tenant, if that is planned and its time has come; whether it did.
pub async fn apply(tx: &mut PgConnection, tenant: &TenantId) -> sqlx::Result<bool> {
    let moved = sqlx::query!(
        "with due as (
           delete from plan_change where tenant_id = $1 and starts_at <= clock_timestamp()
           returning plan_id
         )
         update tenant set plan_id = due.plan_id, updated_at = now() from due where id = $1",
        tenant.as_str(),
    )
    .execute(&mut *tx)
    .await?;
    if moved.rows_affected() == 0 {
        return Ok(false);
    }
    change::announce_tenant(tx, tenant).await?;
    tracing::info!(%tenant, "a tenant moved to its next plan");
    Ok(true)
}

/// Moves all tenants whose time has come, until it is told to stop.
pub async fn run(db: PgPool, mut stopping: watch::Receiver<bool>) {
    loop {
        if let Err(error) = apply_due(&db).await {
            tracing::warn!(%error, "changes of plan wait");
        }
        tokio::select! {
            () = tokio::time::sleep(PACE) => {}
            _ = stopping.wait_for(|stop| *stop) => return,
        }
    }
}

async fn apply_due(db: &PgPool) -> sqlx::Result<()> {
    let due = sqlx::query_scalar!(
        "select tenant_id from plan_change where starts_at <= clock_timestamp() order by starts_at limit 1000",
    );
    for id in due.fetch_all(db).await? {
        let Ok(tenant) = TenantId::new(id) else { continue };
        let mut tx = db.begin().await?;
        sqlx::query!("select id from tenant where id = $1 for no key update", tenant.as_str())
            .fetch_optional(&mut *tx)
            .await?;
        apply(&mut tx, &tenant).await?;
        tx.commit().await?;
    }
    Ok(())
}
