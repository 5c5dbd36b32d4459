//! Rating policies: which there are, and which are active.
//!
//! A text never changes and has a number of its own, the version, in all policies. A policy is at one
//! of its versions. A policy that is active rates requests at all gateways, or those of the data API.

use sqlx::{PgConnection, PgPool};
use tokio::task;
use weir_domain::{id::PolicyId, protocol::RatingPolicy};
use weir_policy::{CompileError, Place, Policy};

use crate::{change, problem::ApiError};

/// The most policies; each may have any number of versions.
pub const MAX_POLICIES: i64 = 100;

/// Where requests come from that a policy rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Gateways,
    /// Callers of the data API.
    DataApi,
}

/// A text of a policy.
#[derive(Debug, Clone)]
pub struct Text {
    pub version: i32,
    pub source: String,
    pub reads_buckets: bool,
}

/// Why a text was not stored.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        Self::Api(error.into())
    }
}

/// Compiles `source`, which may take some ms.
pub async fn compile(
    source: String,
    place: Place,
) -> Result<Result<Policy, CompileError>, ApiError> {
    task::spawn_blocking(move || Policy::compile(&source, place)).await.map_err(ApiError::internal)
}

/// The active policy of `door`, where there is one; without its text where its version is `known`.
pub async fn active(
    db: &PgPool,
    door: Door,
    known: Option<u32>,
) -> Result<Option<RatingPolicy>, ApiError> {
    let known = known.and_then(|version| i32::try_from(version).ok());
    let row = sqlx::query!(
        r#"select policy.id, policy_version.version,
             case when policy_version.version = $2 then '' else source end as "source!"
           from rating
             join policy on policy.id = case when $1 then gateways else data_api end
             join policy_version on policy_version.version = policy.version"#,
        door == Door::Gateways,
        known,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| RatingPolicy {
        version: u32::try_from(row.version).unwrap_or_default(),
        id: row.id,
        source: row.source,
    }))
}

/// Whether gateways run the policy, or callers of the data API; what is active stays so until the
/// transaction ends.
pub async fn doors(tx: &mut PgConnection, id: &PolicyId) -> Result<Vec<Door>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select gateways = $1 as "gateways?", data_api = $1 as "data_api?" from rating for share"#,
        id.as_str(),
    )
    .fetch_one(tx)
    .await?;
    let doors = [(row.gateways, Door::Gateways), (row.data_api, Door::DataApi)];
    Ok(doors.into_iter().filter(|(is, _)| *is == Some(true)).map(|(_, door)| door).collect())
}

/// The policy at its version, or at `version` of it.
pub async fn find(
    db: &mut PgConnection,
    id: &PolicyId,
    version: Option<i32>,
) -> Result<Option<Text>, sqlx::Error> {
    sqlx::query_as!(
        Text,
        r#"select text.version, source, reads_buckets
           from policy join policy_version text
             on policy_id = policy.id and text.version = coalesce($2, policy.version)
           where policy.id = $1"#,
        id.as_str(),
        version,
    )
    .fetch_optional(db)
    .await
}

pub fn unknown(id: &PolicyId) -> ApiError {
    ApiError::NotFound { what: "policy", id: id.to_string() }
}

/// Makes `source` the policy's text, as a new version unless it is the text that it has. What does not
/// compile changes nothing. Returns the version.
pub async fn put(db: &PgPool, id: &PolicyId, source: String) -> Result<i32, Refused> {
    let policy = compile(source.clone(), Place::Everywhere).await??;
    let mut tx = db.begin().await?;
    let doors = doors(&mut tx, id).await?;
    for_gateways(&doors, policy.reads_buckets(), &source).await?;
    let before = lock(&mut tx, id, true).await?;
    if let Some(before) = before.and_then(|before| before.filter(|text| text.source == source)) {
        return Ok(before.version);
    }
    let version = sqlx::query_scalar!(
        "insert into policy_version (policy_id, source, reads_buckets) values ($1, $2, $3)
         returning version",
        id.as_str(),
        source,
        policy.reads_buckets(),
    )
    .fetch_one(&mut *tx)
    .await?;
    move_to(&mut tx, id, Some(version), &doors).await?;
    tx.commit().await?;
    tracing::info!(policy = id.as_str(), version, "a new version of a policy");
    Ok(version)
}

/// Takes the policy back to one of its versions.
pub async fn roll_back(db: &PgPool, id: &PolicyId, version: i32) -> Result<Text, Refused> {
    let mut tx = db.begin().await?;
    let doors = doors(&mut tx, id).await?;
    lock(&mut tx, id, false).await?.ok_or_else(|| unknown(id))?;
    let text = find(&mut tx, id, Some(version)).await?.ok_or_else(|| {
        ApiError::field("version", format!("the policy {id} has no version {version}"))
    })?;
    for_gateways(&doors, text.reads_buckets, &text.source).await?;
    // It compiled once, in a release that may have been another.
    compile(text.source.clone(), Place::Everywhere).await??;
    move_to(&mut tx, id, Some(version), &doors).await?;
    tx.commit().await?;
    tracing::info!(policy = id.as_str(), version, "a policy is back at an earlier version");
    Ok(text)
}

/// Deletes the policy; its versions are kept, since usage names them.
pub async fn delete(db: &PgPool, id: &PolicyId) -> Result<(), ApiError> {
    let mut tx = db.begin().await?;
    let doors = doors(&mut tx, id).await?;
    lock(&mut tx, id, false).await?.flatten().ok_or_else(|| unknown(id))?;
    if !doors.is_empty() {
        return Err(ApiError::Conflict(format!(
            "the policy {id} is active; choose another one, or none, in PUT /admin/v1/rating-policy first"
        )));
    }
    move_to(&mut tx, id, None, &doors).await?;
    tx.commit().await?;
    tracing::info!(policy = id.as_str(), "a policy was deleted");
    Ok(())
}

/// Gateways do not know what is left of a bucket; the error says where the text reads it.
pub async fn for_gateways(
    doors: &[Door],
    reads_buckets: bool,
    source: &str,
) -> Result<(), Refused> {
    if doors.contains(&Door::Gateways) && reads_buckets {
        compile(source.to_owned(), Place::Edge).await??;
    }
    Ok(())
}

/// Locks the policy; its text, where it is not deleted. `make` makes it where there is none.
async fn lock(
    tx: &mut PgConnection,
    id: &PolicyId,
    make: bool,
) -> Result<Option<Option<Text>>, ApiError> {
    if make {
        let made = sqlx::query!(
            "insert into policy (id) values ($1) on conflict (id) do nothing",
            id.as_str(),
        )
        .execute(&mut *tx)
        .await?;
        if made.rows_affected() > 0 {
            room_for_one(tx).await?;
        }
    }
    let known =
        sqlx::query_scalar!("select id from policy where id = $1 for no key update", id.as_str())
            .fetch_optional(&mut *tx)
            .await?;
    Ok(match known {
        None => None,
        Some(_) => Some(find(tx, id, None).await?),
    })
}

async fn room_for_one(tx: &mut PgConnection) -> Result<(), ApiError> {
    let policies =
        sqlx::query_scalar!(r#"select count(*) as "count!" from policy where version is not null"#)
            .fetch_one(tx)
            .await?;
    if policies < MAX_POLICIES {
        return Ok(());
    }
    Err(ApiError::Conflict(format!(
        "there are {policies} policies, which is as many as there may be; delete one, or use one that is there"
    )))
}

async fn move_to(
    tx: &mut PgConnection,
    id: &PolicyId,
    version: Option<i32>,
    doors: &[Door],
) -> Result<(), sqlx::Error> {
    sqlx::query!("update policy set version = $2 where id = $1", id.as_str(), version)
        .execute(&mut *tx)
        .await?;
    if doors.contains(&Door::Gateways) {
        change::announce_policy(tx).await?;
    }
    Ok(())
}
