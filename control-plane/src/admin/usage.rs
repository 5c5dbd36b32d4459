//! What tenants used, out of the ledger.

use std::{fmt, str::FromStr};

use axum::{Json, extract::State};
use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_domain::id::TenantId;

use super::{
    page::{Cursor, Page, PageLimit, PageQuery},
    tenants,
};
use crate::{
    app::App,
    extract::{Path, Query},
    invoice::period,
    ledger::{self, MeterTotal},
    problem::ApiError,
};

const QUARTER_S: i64 = 900;
/// The longest stretch of time that one call covers.
const MAX_RANGE: SignedDuration = SignedDuration::from_hours(366 * 24);

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(totals))
}

/// What a tenant used in a stretch of time on one meter and model.
#[derive(Debug, Serialize, ToSchema)]
struct Usage {
    #[schema(value_type = TenantId)]
    tenant: String,
    from: Timestamp,
    /// The first instant after it.
    to: Timestamp,
    meter: String,
    /// Empty where no model is known.
    model: String,
    tokens: i64,
    requests: i64,
}

/// What a tenant used in a stretch of time.
#[derive(Debug, Serialize, ToSchema)]
struct TenantUsage {
    tenant: TenantId,
    from: Timestamp,
    /// The first instant after it.
    to: Timestamp,
    tokens: i64,
    requests: i64,
    by_meter: Vec<MeterTotal>,
}

/// How long the stretches are that usage is summed over.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Granularity {
    QuarterHour,
    /// Of UTC.
    Hour,
    /// Of the tenant's time zone.
    Day,
    /// From `from` to `to`.
    #[default]
    Total,
}

impl Granularity {
    fn as_str(self) -> &'static str {
        match self {
            Self::QuarterHour => "quarter_hour",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Total => "total",
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct UsageQuery {
    /// All tenants where it is not given.
    tenant: Option<TenantId>,
    /// On a quarter hour.
    from: Timestamp,
    /// On a quarter hour; the end of the current one where it is not given.
    to: Option<Timestamp>,
    #[serde(default)]
    #[param(value_type = Option<Granularity>, inline)]
    granularity: Granularity,
    /// The most items in the answer.
    #[serde(default)]
    #[param(value_type = Option<u16>, minimum = 1, maximum = 500, default = 50)]
    limit: PageLimit,
    /// The `next` of the page before; the first page without it.
    #[param(value_type = Option<String>)]
    after: Option<Cursor>,
}

/// Both on a quarter hour; the current billing period where they are not given.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RangeQuery {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

/// Usage by stretch of time, tenant, meter and model, in this order. Stretches are cut at `from` and
/// `to`; those without usage are left out.
#[utoipa::path(get, path = "/usage", tag = "usage", params(UsageQuery), responses((status = 200, body = Page<Usage>)))]
async fn list(
    State(app): State<App>,
    Query(query): Query<UsageQuery>,
) -> Result<Json<Page<Usage>>, ApiError> {
    let UsageQuery { tenant, from, to, granularity, limit, after } = query;
    let page = PageQuery { limit, after };
    let after: Option<Key> = page.after()?;
    let mut db = app.db.acquire().await?;
    let to = match to {
        Some(to) => to,
        None => end_of_quarter(&mut db).await?,
    };
    check_range(from, to)?;
    if let Some(tenant) = &tenant {
        tenants::find(&mut db, tenant).await?;
    }
    let range = Range { tenant, from, to, granularity };
    let items = range.page(&mut db, after.as_ref(), page.fetch()).await?;
    Ok(Json(Page::new(items, &page, Key::of)))
}

/// What one tenant used in all.
#[utoipa::path(
    get, path = "/tenants/{tenant}/usage", tag = "usage",
    params(("tenant" = TenantId, Path), RangeQuery), responses((status = 200, body = TenantUsage)),
)]
async fn totals(
    State(app): State<App>,
    Path(tenant): Path<TenantId>,
    Query(query): Query<RangeQuery>,
) -> Result<Json<TenantUsage>, ApiError> {
    let mut db = app.db.acquire().await?;
    tenants::find(&mut db, &tenant).await?;
    let current = period::current(&mut db, &tenant).await?;
    let from = query.from.unwrap_or_else(|| current.start().start());
    let to = query.to.unwrap_or_else(|| current.end().start());
    check_range(from, to)?;
    let totals = ledger::totals(&mut db, &tenant, from, to).await?;
    Ok(Json(TenantUsage {
        tenant,
        from,
        to,
        tokens: totals.tokens,
        requests: totals.requests,
        by_meter: totals.by_meter,
    }))
}

/// Usage is rolled up per quarter hour, so a stretch can't start or end within one.
fn check_range(from: Timestamp, to: Timestamp) -> Result<(), ApiError> {
    for (field, instant) in [("from", from), ("to", to)] {
        if instant.as_second() % QUARTER_S != 0 || instant.subsec_nanosecond() != 0 {
            let detail =
                format!("{instant} is not on a quarter hour, such as 2026-01-31T10:15:00Z");
            return Err(ApiError::field(field, detail));
        }
    }
    if from >= to {
        return Err(ApiError::field("to", format!("{to} must be after from ({from})")));
    }
    if to.duration_since(from) > MAX_RANGE {
        let detail = "it must be at most 366 days before to; ask for one year after the other";
        return Err(ApiError::field("from", detail));
    }
    Ok(())
}

async fn end_of_quarter(db: &mut PgConnection) -> Result<Timestamp, ApiError> {
    let second = sqlx::query_scalar!(
        r#"select (floor(extract(epoch from now()) / 900) * 900 + 900)::bigint as "end!""#
    )
    .fetch_one(db)
    .await?;
    Timestamp::from_second(second).map_err(ApiError::internal)
}

/// What is asked for.
struct Range {
    tenant: Option<TenantId>,
    from: Timestamp,
    to: Timestamp,
    granularity: Granularity,
}

impl Range {
    async fn page(
        &self,
        db: &mut PgConnection,
        after: Option<&Key>,
        fetch: i64,
    ) -> Result<Vec<Usage>, ApiError> {
        let rows = sqlx::query!(
            r#"with stretch as (
                 select tenant_id, meter, model, tokens, requests, quarter,
                        case $4 when 'quarter_hour' then quarter
                                when 'hour' then date_trunc('hour', quarter, 'UTC')
                                when 'day' then date_trunc('day', quarter, time_zone)
                                else $2 end as starts_at,
                        case $4 when 'quarter_hour' then quarter + interval '15 minutes'
                                when 'hour' then date_trunc('hour', quarter, 'UTC') + interval '1 hour'
                                when 'day' then (date_trunc('day', quarter at time zone time_zone)
                                                 + interval '1 day') at time zone time_zone
                                else $3 end as ends_at
                 from usage_rollup join tenant on tenant.id = tenant_id
                 where quarter >= greatest($2, $5) and quarter < $3
                   and ($1::text is null or tenant_id = $1)
               ), cut as (
                 select tenant_id, meter, model, tokens, requests,
                        greatest(starts_at, $2) as starts_at, least(ends_at, $3) as ends_at
                 from stretch
               )
               select starts_at as "from!", ends_at as "to!", tenant_id, meter, model,
                      sum(tokens)::bigint as "tokens!", sum(requests)::bigint as "requests!"
               from cut
               where $5::timestamptz is null
                  or (starts_at, tenant_id, meter, model) > ($5, $6, $7, $8)
               group by starts_at, ends_at, tenant_id, meter, model
               order by starts_at, tenant_id, meter, model limit $9"#,
            self.tenant.as_ref().map(TenantId::as_str),
            self.from.to_sqlx(),
            self.to.to_sqlx(),
            self.granularity.as_str(),
            after.map(|key| key.from.to_sqlx()) as _,
            after.map(|key| key.tenant.as_str()),
            after.map(|key| key.meter.as_str()),
            after.map(|key| key.model.as_str()),
            fetch,
        )
        .fetch_all(db)
        .await?;
        let items = rows.into_iter().map(|row| Usage {
            tenant: row.tenant_id,
            from: row.from.to_jiff(),
            to: row.to.to_jiff(),
            meter: row.meter,
            model: row.model,
            tokens: row.tokens,
            requests: row.requests,
        });
        Ok(items.collect())
    }
}

/// By what the list is ordered. No part of it has line breaks.
struct Key {
    from: Timestamp,
    tenant: String,
    meter: String,
    model: String,
}

impl Key {
    fn of(usage: &Usage) -> Self {
        Self {
            from: usage.from,
            tenant: usage.tenant.clone(),
            meter: usage.meter.clone(),
            model: usage.model.clone(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}\n{}\n{}", self.from, self.tenant, self.meter, self.model)
    }
}

impl FromStr for Key {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(4, '\n').map(str::to_owned);
        let mut part = || parts.next().filter(|part| !part.contains('\0')).ok_or(());
        let from = part()?.parse().map_err(|_| ())?;
        Ok(Self { from, tenant: part()?, meter: part()?, model: part()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_of_whole_quarter_hours_and_at_most_a_year() {
        let check = |from: &str, to: &str| {
            check_range(from.parse().unwrap(), to.parse().unwrap())
                .map_err(|error| error.to_string())
        };
        assert_eq!(check("2026-01-01T00:00:00Z", "2026-01-01T00:15:00+00:00"), Ok(()));
        assert_eq!(check("2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"), Ok(()));
        for (from, to, field) in [
            ("2026-01-01T00:01:00Z", "2026-01-02T00:00:00Z", "from"),
            ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00.5Z", "to"),
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "to"),
            ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z", "to"),
            ("2024-01-01T00:00:00Z", "2025-01-02T00:15:00Z", "from"),
        ] {
            assert!(check(from, to).is_err_and(|error| error.starts_with(field)), "{from} {to}");
        }
    }

    #[test]
    fn a_key_survives_its_text() {
        let text = "2026-01-01T00:00:00Z\nacme\ndefault\n";
        assert_eq!(text.parse::<Key>().unwrap().to_string(), text);
        assert!("2026-01-01T00:00:00Z\nacme".parse::<Key>().is_err());
    }
}
