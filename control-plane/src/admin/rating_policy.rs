//! Which policies are active.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_domain::id::PolicyId;

use super::policies::refused;
use crate::{
    app::App,
    change,
    extract::JsonBody,
    problem::ApiError,
    rating::{self, Door},
};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get, put))
}

/// Which policies rate requests; null for none.
#[derive(Debug, Serialize, ToSchema)]
struct Active {
    /// At every gateway.
    #[schema(required)]
    gateways: Option<ActivePolicy>,
    /// For callers of the data API.
    #[schema(required)]
    data_api: Option<ActivePolicy>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ActivePolicy {
    #[schema(value_type = PolicyId)]
    policy: String,
    version: i32,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Choice {
    /// Null for none: then each request costs 1.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required)]
    gateways: Option<PolicyId>,
    /// It may read `data.buckets`. Null for none.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required)]
    data_api: Option<PolicyId>,
}

/// Which policies are active, and at which version.
#[utoipa::path(get, path = "/rating-policy", tag = "policies", responses((status = 200, body = Active)))]
async fn get(State(app): State<App>) -> Result<Json<Active>, ApiError> {
    let mut db = app.db.acquire().await?;
    Ok(Json(active(&mut db).await?))
}

/// Chooses the policies that are active. Every gateway has its policy within a second.
#[utoipa::path(put, path = "/rating-policy", tag = "policies", request_body = Choice, responses((status = 200, body = Active)))]
async fn put(
    State(app): State<App>,
    JsonBody(choice): JsonBody<Choice>,
) -> Result<Json<Active>, ApiError> {
    let mut tx = app.db.begin().await?;
    let before =
        sqlx::query_scalar!("select gateways from rating for update").fetch_one(&mut *tx).await?;
    for (field, door, id) in [
        ("gateways", Door::Gateways, &choice.gateways),
        ("data_api", Door::DataApi, &choice.data_api),
    ] {
        let Some(id) = id else { continue };
        let text = rating::find(&mut tx, id, None).await?;
        let text = text.ok_or_else(|| ApiError::field(field, rating::unknown(id)))?;
        rating::for_gateways(&[door], text.reads_buckets, &text.source)
            .await
            .map_err(refused(field))?;
    }
    let gateways = choice.gateways.as_ref().map(PolicyId::as_str);
    sqlx::query!(
        "update rating set gateways = $1, data_api = $2",
        gateways,
        choice.data_api.as_ref().map(PolicyId::as_str),
    )
    .execute(&mut *tx)
    .await?;
    if before.as_deref() != gateways {
        change::announce_policy(&mut tx).await?;
    }
    let active = active(&mut tx).await?;
    tx.commit().await?;
    tracing::info!(?choice, "policies were chosen");
    Ok(Json(active))
}

async fn active(db: &mut PgConnection) -> Result<Active, sqlx::Error> {
    let row = sqlx::query!(
        r#"select gateways, edge.version as "edge_version?", data_api, api.version as "api_version?"
           from rating left join policy edge on edge.id = gateways
             left join policy api on api.id = data_api"#
    )
    .fetch_one(db)
    .await?;
    let active = |policy: Option<String>, version: Option<i32>| {
        Some(ActivePolicy { policy: policy?, version: version? })
    };
    Ok(Active {
        gateways: active(row.gateways, row.edge_version),
        data_api: active(row.data_api, row.api_version),
    })
}
