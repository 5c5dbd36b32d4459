//! Which gateways there are, and the policy that each has: what they say when they ask for changes.

use std::time::Duration;

use moka::sync::Cache;
use sqlx::PgPool;

/// How often a gateway is noted that says the same as before. It asks at least that often.
const NOTED_EVERY: Duration = Duration::from_secs(15);
/// The most gateways that are remembered; others are noted each time.
const REMEMBERED: u64 = 10_000;

/// What was noted lately by this replica; cloning it is cheap.
#[derive(Clone)]
pub struct Gateways {
    noted: Cache<String, Option<u32>>,
}

impl Gateways {
    #[expect(clippy::new_without_default, reason = "it is made once")]
    pub fn new() -> Self {
        let noted = Cache::builder().max_capacity(REMEMBERED).time_to_live(NOTED_EVERY).build();
        Self { noted }
    }

    /// Notes that `gateway` asked, and by which policy it rates requests. It is for people only, so a
    /// failure is no reason not to answer.
    pub async fn saw(&self, db: &PgPool, gateway: &str, policy: Option<u32>) {
        if self.noted.get(gateway) == Some(policy) {
            return;
        }
        match note(db, gateway, policy).await {
            Ok(()) => self.noted.insert(gateway.to_owned(), policy),
            Err(error) => tracing::warn!(%error, gateway, "a gateway was not noted"),
        }
    }
}

/// Those that did not ask for a day are forgotten: each Envoy that starts has an id of its own.
async fn note(db: &PgPool, gateway: &str, policy: Option<u32>) -> sqlx::Result<()> {
    sqlx::query!(
        "with gone as (delete from gateway where seen_at < now() - interval '1 day' and id <> $1)
         insert into gateway (id, policy_version) values ($1, $2)
         on conflict (id) do update set policy_version = excluded.policy_version, seen_at = now()",
        gateway,
        policy.and_then(|version| i32::try_from(version).ok()),
    )
    .execute(db)
    .await?;
    Ok(())
}
