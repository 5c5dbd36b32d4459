//! Gateways, as they show themselves when they ask for changes.

use axum::{Json, extract::State};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::page::{Page, PageQuery};
use crate::{app::App, extract::Query, problem::ApiError};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// One Envoy process that asked for changes in the last day.
#[derive(Debug, Serialize, ToSchema)]
struct Gateway {
    id: String,
    /// The version of the policy by which it rates requests: 0 without a policy, null where it did not
    /// say.
    #[schema(required)]
    policy_version: Option<i32>,
    /// When it asked last, within some 15 s. One that is a minute old is gone.
    seen_at: Timestamp,
}

/// Gateways, and the policy that each has.
#[utoipa::path(get, path = "/gateways", tag = "policies", params(PageQuery), responses((status = 200, body = Page<Gateway>)))]
async fn list(
    State(app): State<App>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Gateway>>, ApiError> {
    let after: Option<String> = page.after()?;
    let rows = sqlx::query_as!(
        Gateway,
        r#"select id, policy_version, seen_at from gateway
           where ($1::text is null or id > $1) and seen_at > now() - interval '1 day'
           order by id limit $2"#,
        after,
        page.fetch(),
    )
    .fetch_all(&app.db)
    .await?;
    Ok(Json(Page::new(rows, &page, |row| row.id.clone())))
}
