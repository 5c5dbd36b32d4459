//! Sums over what is stored, for pages and answers. Invoices have their own.

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use jiff_sqlx::ToSqlx;
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;
use weir_domain::id::TenantId;

/// What a tenant used in a stretch of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    pub tokens: i64,
    pub requests: i64,
    /// The same, apart by meter and model, in their order.
    pub by_meter: Vec<MeterTotal>,
}

/// What a tenant used on one meter and model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MeterTotal {
    pub meter: String,
    /// Empty where no model is known.
    pub model: String,
    pub tokens: i64,
    pub requests: i64,
}

/// What a tenant used on one day of its time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayTotal {
    pub day: Date,
    pub tokens: i64,
    pub requests: i64,
}

/// What `tenant` used from `from` to before `to`, both on a quarter hour.
pub async fn totals(
    db: &mut PgConnection,
    tenant: &TenantId,
    from: Timestamp,
    to: Timestamp,
) -> sqlx::Result<Totals> {
    let by_meter = sqlx::query_as!(
        MeterTotal,
        r#"select meter, model, sum(tokens)::bigint as "tokens!", sum(requests)::bigint as "requests!"
           from usage_rollup where tenant_id = $1 and quarter >= $2 and quarter < $3
           group by meter, model order by meter, model"#,
        tenant.as_str(),
        from.to_sqlx(),
        to.to_sqlx(),
    )
    .fetch_all(db)
    .await?;
    Ok(Totals {
        tokens: by_meter.iter().map(|total| total.tokens).fold(0, i64::saturating_add),
        requests: by_meter.iter().map(|total| total.requests).fold(0, i64::saturating_add),
        by_meter,
    })
}

/// The same by day of `zone`, in order; days without usage are left out.
pub async fn by_day(
    db: &mut PgConnection,
    tenant: &TenantId,
    from: Timestamp,
    to: Timestamp,
    zone: &TimeZone,
) -> sqlx::Result<Vec<DayTotal>> {
    let quarters = sqlx::query!(
        r#"select quarter, sum(tokens)::bigint as "tokens!", sum(requests)::bigint as "requests!"
           from usage_rollup where tenant_id = $1 and quarter >= $2 and quarter < $3
           group by quarter order by quarter"#,
        tenant.as_str(),
        from.to_sqlx(),
        to.to_sqlx(),
    )
    .fetch_all(db)
    .await?;
    let mut days: Vec<DayTotal> = Vec::new();
    for row in quarters {
        let day = zone.to_datetime(row.quarter.to_jiff()).date();
        match days.last_mut() {
            Some(last) if last.day == day => {
                last.tokens = last.tokens.saturating_add(row.tokens);
                last.requests = last.requests.saturating_add(row.requests);
            }
            _ => days.push(DayTotal { day, tokens: row.tokens, requests: row.requests }),
        }
    }
    Ok(days)
}
