//! How continuous buckets start: full once, and empty after a loss.

use std::collections::HashMap;

use sqlx::PgPool;
use weir_domain::{id::TenantId, limit::Refill};

use super::script::{Placed, Start};
use crate::problem::ApiError;

/// Decides how the continuous buckets among `limits` start in the life `home` of the tenant's keys.
/// It is committed when this returns, so before anything is granted from them.
///
/// Whoever comes first writes the row. Others that find it with the same `home` may start the bucket
/// full as well: in that life it has not been made yet, or the script would have found it.
pub async fn decide(
    db: &PgPool,
    tenant: &TenantId,
    home: &str,
    limits: &mut [Placed<'_>],
) -> Result<(), ApiError> {
    let names: Vec<String> = limits
        .iter()
        .filter(|placed| matches!(placed.limit.refill, Refill::Continuous { .. }))
        .map(|placed| placed.limit.name.to_string())
        .collect();
    sqlx::query!(
        "insert into bucket_start (tenant_id, limit_name, home)
         select $1, name, $3 from unnest($2::text[]) name order by name
         on conflict do nothing",
        tenant.as_str(),
        &names,
        home,
    )
    .execute(db)
    .await?;
    let homes: HashMap<String, String> = sqlx::query!(
        "select limit_name, home from bucket_start where tenant_id = $1 and limit_name = any($2)",
        tenant.as_str(),
        &names,
    )
    .fetch_all(db)
    .await?
    .into_iter()
    .map(|row| (row.limit_name, row.home))
    .collect();
    for placed in limits {
        let first = homes.get(placed.limit.name.as_str()).is_some_and(|first| first == home);
        placed.start = if first { Start::Full } else { Start::Lost };
    }
    Ok(())
}
