//! Tells gateways, through their long poll, which tenants changed, and that there is another policy.
//!
//! A change is announced in the transaction that makes it, as its last statement: the row of
//! `config_revision` stays locked until the commit, so revisions become visible in their order and
//! without gaps. A reader at revision `after` has missed nothing when `config_change` holds all of
//! `after + 1 ..= revision`; otherwise it must start afresh.
//!
//! After the commit Postgres notifies [`CHANNEL`] with the new revision.

use sqlx::PgConnection;
use weir_domain::id::{PlanId, TenantId};

/// What replicas listen on for new revisions.
pub const CHANNEL: &str = "weir_config";

/// How many changes are kept for gateways that fell behind.
const KEPT: i64 = 10_000;

/// Announces that one tenant changed: its state, plan, time zone or buckets.
pub async fn announce_tenant(tx: &mut PgConnection, tenant: &TenantId) -> sqlx::Result<()> {
    let revision = sqlx::query_scalar!(
        "with bumped as (update config_revision set revision = revision + 1 returning revision)
         insert into config_change (revision, tenant_id) select revision, $1 from bumped
         returning revision",
        tenant.as_str(),
    )
    .fetch_one(&mut *tx)
    .await?;
    notify(tx, revision).await
}

/// Announces a change of every tenant on a plan. Where they are more than are kept, the oldest are
/// left out at once, and gateways start afresh.
pub async fn announce_plan(tx: &mut PgConnection, plan: &PlanId) -> sqlx::Result<()> {
    let revision = sqlx::query_scalar!(
        r#"with changed as (
             select id, row_number() over (order by id) as place, count(*) over () as total
             from tenant where plan_id = $1
         ), bumped as (
             update config_revision
             set revision = revision + (select count(*) from changed) returning revision
         ), written as (
             insert into config_change (revision, tenant_id)
             select bumped.revision - changed.total + changed.place, changed.id
             from changed, bumped where changed.place > changed.total - $2
         )
         select revision as "revision!" from bumped"#,
        plan.as_str(),
        KEPT,
    )
    .fetch_one(&mut *tx)
    .await?;
    notify(tx, revision).await
}

/// Announces that gateways have another policy to run.
pub async fn announce_policy(tx: &mut PgConnection) -> sqlx::Result<()> {
    let revision = sqlx::query_scalar!(
        "with bumped as (update config_revision set revision = revision + 1 returning revision)
         insert into config_change (revision) select revision from bumped returning revision",
    )
    .fetch_one(&mut *tx)
    .await?;
    notify(tx, revision).await
}

async fn notify(tx: &mut PgConnection, revision: i64) -> sqlx::Result<()> {
    sqlx::query!("delete from config_change where revision <= $1", revision - KEPT)
        .execute(&mut *tx)
        .await?;
    sqlx::query!("select pg_notify($1, $2)", CHANNEL, revision.to_string()).execute(tx).await?;
    Ok(())
}
