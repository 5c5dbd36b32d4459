//! Versions of rating policies. The policies themselves are put and deleted in OPA's own form, in
//! [`crate::opa::policies`].

use axum::{Json, extract::State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_domain::id::PolicyId;

use super::page::{Page, PageQuery};
use crate::{
    app::App,
    extract::{JsonBody, Path, Query},
    problem::ApiError,
    rating::{self, Refused},
};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(versions)).routes(routes!(roll_back))
}

/// A text that a policy has, or had.
#[derive(Debug, Serialize, ToSchema)]
struct PolicyVersion {
    /// Names this text; no other policy has the number. Usage records carry it.
    version: i32,
    /// Rego.
    source: String,
    /// Then it can't run in gateways.
    reads_buckets: bool,
    /// Whether the policy is at this version.
    current: bool,
    created_at: Timestamp,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RollBack {
    /// One of the policy's versions.
    #[schema(minimum = 1)]
    version: i32,
}

/// All versions of a policy, the newest first; of one that is deleted too.
#[utoipa::path(
    get, path = "/policies/{policy}/versions", tag = "policies",
    params(("policy" = PolicyId, Path), PageQuery), responses((status = 200, body = Page<PolicyVersion>)),
)]
async fn versions(
    State(app): State<App>,
    Path(id): Path<PolicyId>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<PolicyVersion>>, ApiError> {
    let after: Option<i32> = page.after()?;
    let rows = sqlx::query_as!(
        PolicyVersion,
        r#"select text.version, source, reads_buckets,
             coalesce(text.version = policy.version, false) as "current!", text.created_at
           from policy join policy_version text on policy_id = policy.id
           where policy.id = $1 and ($2::integer is null or text.version < $2)
           order by text.version desc limit $3"#,
        id.as_str(),
        after,
        page.fetch(),
    )
    .fetch_all(&app.db)
    .await?;
    if rows.is_empty() && after.is_none() {
        return Err(rating::unknown(&id));
    }
    Ok(Json(Page::new(rows, &page, |row| row.version)))
}

/// Takes a policy back to one of its versions, also one that is deleted. Where it is active, every
/// gateway has it within a second.
#[utoipa::path(
    post, path = "/policies/{policy}/roll-back", tag = "policies", params(("policy" = PolicyId, Path)),
    request_body = RollBack, responses((status = 200, body = PolicyVersion)),
)]
async fn roll_back(
    State(app): State<App>,
    Path(id): Path<PolicyId>,
    JsonBody(back): JsonBody<RollBack>,
) -> Result<Json<PolicyVersion>, ApiError> {
    let text = rating::roll_back(&app.db, &id, back.version).await.map_err(refused("version"))?;
    let row = sqlx::query_as!(
        PolicyVersion,
        r#"select text.version, source, reads_buckets,
             coalesce(text.version = policy.version, false) as "current!", text.created_at
           from policy join policy_version text on policy_id = policy.id where text.version = $1"#,
        text.version,
    )
    .fetch_one(&app.db)
    .await?;
    Ok(Json(row))
}

/// As a problem with this field.
pub(super) fn refused(field: &'static str) -> impl Fn(Refused) -> ApiError {
    move |refused| match refused {
        Refused::Compile(error) => ApiError::field(field, error),
        Refused::Api(error) => error,
    }
}
