//! The periods of a periodic limit, and what one inherits when its terms or its tenant's time zone
//! change.
//!
//! A change moves the ends of the period that runs. What the old period has released may have been
//! admitted in the time that the new one holds too, so it counts in the new one: then no more than
//! the capacity is admitted in either, and a change back and forth gains nothing.

use sqlx::PgConnection;
use weir_domain::{
    id::{LimitName, TenantId},
    limit::Window,
};

use super::claims::instant;
use crate::problem::ApiError;

/// Makes sure that the period has its row in `claim`, in the caller's transaction.
pub async fn open(
    db: &mut PgConnection,
    tenant: &TenantId,
    limit: &LimitName,
    window: Window,
) -> Result<(), ApiError> {
    let (starts, ends) = (instant(window.start_ms)?, instant(window.end_ms)?);
    let is_open = sqlx::query_scalar!(
        "select true from claim
         where tenant_id = $1 and limit_name = $2 and period_start = $3 and period_end = $4",
        tenant.as_str(),
        limit.as_str(),
        starts,
        ends,
    )
    .fetch_optional(&mut *db)
    .await?;
    if is_open.is_some() {
        return Ok(());
    }
    // One at a time, and none while the tenant's terms change.
    sqlx::query!("select from tenant where id = $1 for update", tenant.as_str())
        .execute(&mut *db)
        .await?;
    // Other periods end here, when the last lease of theirs does (protocol::MAX_PERIODIC_TTL_MS), so
    // the periods after this one inherit nothing of them. Where this period was open before, what
    // others have released since it ended counts.
    let inherited = sqlx::query_scalar!(
        r#"with other as (
             update claim as c set period_end = least(c.period_end, now() + interval '2 minutes')
             where c.tenant_id = $1 and c.limit_name = $2 and c.period_start <> $3
               and c.period_start < $4
               and c.period_end > coalesce((select period_end - interval '2 minutes' from claim
                 where tenant_id = $1 and limit_name = $2 and period_start = $3), $3)
             returning c.claimed)
           select least(coalesce(sum(claimed), 0), 9007199254740991)::bigint as "claimed!" from other"#,
        tenant.as_str(),
        limit.as_str(),
        starts,
        ends,
    )
    .fetch_one(&mut *db)
    .await?;
    sqlx::query!(
        "insert into claim as c (tenant_id, limit_name, period_start, period_end, claimed)
         values ($1, $2, $3, $4, $5)
         on conflict (tenant_id, limit_name, period_start) do update set
           period_end = $4,
           claimed = case when c.period_end = $4 then c.claimed
             else least(c.claimed + $5, 9007199254740991) end",
        tenant.as_str(),
        limit.as_str(),
        starts,
        ends,
        inherited,
    )
    .execute(&mut *db)
    .await?;
    if inherited > 0 {
        tracing::info!(%tenant, %limit, inherited, "a period moved, and counts what the one before it has released");
    }
    Ok(())
}
