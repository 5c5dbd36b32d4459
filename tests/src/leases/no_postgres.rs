//! What the control plane decides while Postgres is down, or slow.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use weir_domain::protocol::TenantState;

use super::{Worker, amount, control_planes};
use crate::harness::{Fleet, SOON, continuous, monthly, wait_for};

async fn own_postgres(stale_terms_ms: u32) -> Result<Fleet> {
    Fleet::with_own_postgres(|stack| {
        stack.gateways(0).variable("WEIR_STALE_TERMS_MS", stale_terms_ms.to_string())
    })
    .await
}

/// Well past the time for which terms are believed without asking.
const LONG: Duration = Duration::from_secs(4);

/// Terms hold as they were read, for those that are known, and as they were: who was suspended stays
/// so. Of a tenant that is not known nothing is said.
#[tokio::test]
async fn terms_hold_while_postgres_is_down() -> Result<()> {
    let fleet = own_postgres(60_000).await?;
    for tenant in ["acme", "bolt", "unseen"] {
        let limit = continuous("rate", "tokens", 1_000_000, 1_000, 1_000);
        fleet.tenant(tenant, &[limit], &[]).await?;
    }
    fleet.admin.post("/tenants/bolt/suspend", &json!({})).await?.ok()?;
    let worker = Worker::new(&fleet, "g", "w");
    for tenant in ["acme", "bolt"] {
        worker.ask(tenant, amount(1, 1), amount(1, 1)).await?;
    }

    fleet.stack.database.postgres.kill();
    let ends = tokio::time::Instant::now() + LONG;
    let mut granted = 0;
    while tokio::time::Instant::now() < ends {
        let asks = ["acme", "bolt", "unseen", "nobody"]
            .map(|tenant| worker.next(tenant, amount(1, 1), amount(1, 1)));
        let answers = worker.send_all(asks.to_vec()).await?;
        ensure!(answers[0].state == TenantState::Active, "{:?}", answers[0]);
        granted += answers[0].granted.tokens.get();
        ensure!(answers[1].state == TenantState::Suspended, "{:?}", answers[1]);
        for unknown in &answers[2..] {
            ensure!(unknown.call == 0 && unknown.granted.is_zero(), "undecided: {unknown:?}");
        }
    }
    ensure!(granted > 10, "{granted} granted");

    fleet.stack.database.postgres.restart().await?;
    for tenant in ["acme", "unseen"] {
        let ask = worker.next(tenant, amount(1, 1), amount(1, 1));
        ensure!(!worker.send_until_decided(&ask).await?.granted.is_zero());
    }
    Ok(())
}

/// With `WEIR_STALE_TERMS_MS=0` nothing is decided on what Postgres has not confirmed.
#[tokio::test]
async fn terms_need_not_hold() -> Result<()> {
    let fleet = own_postgres(0).await?;
    fleet.tenant("acme", &[continuous("rate", "tokens", 100, 100, 1_000)], &[]).await?;
    let worker = Worker::new(&fleet, "g", "w");
    worker.ask("acme", amount(1, 1), amount(1, 1)).await?;

    fleet.stack.database.postgres.kill();
    wait_for("an ask that fails", SOON, async || {
        let answer = worker.ask("acme", amount(1, 1), amount(1, 1)).await;
        Ok(answer.err().filter(|error| error.to_string().contains("503")))
    })
    .await?;
    Ok(())
}

/// While claims don't come through, what was claimed before is granted, and leases are renewed; where
/// that does not do, the ask is undecided and not refused. Afterwards not one token is missing.
#[tokio::test]
async fn what_was_claimed_lasts_while_claims_hang() -> Result<()> {
    const CAPACITY: u64 = 1_000;
    let fleet = control_planes(1).await?;
    fleet.tenant("acme", &[monthly(CAPACITY)], &[]).await?;
    let worker = Worker::new(&fleet, "g", "w");
    let mut sum = 0;
    // The block is for this ask and what it would have liked.
    sum += worker.ask("acme", amount(1, 1), amount(400, 1)).await?.granted.tokens.get();
    let lease = worker.ask("acme", amount(10, 1), amount(10, 1)).await?;
    sum += lease.granted.tokens.get();

    let hang = fleet
        .stack
        .database
        .query("begin; lock table claim in access exclusive mode; select pg_sleep(4); commit");
    let deal = async {
        wait_for("the lock", SOON, async || {
            let locked = "select 1 from pg_locks where relation = 'claim'::regclass
                          and mode = 'AccessExclusiveLock' and granted
                          and database = (select oid from pg_database where datname = current_database())";
            let locked = fleet.stack.database.query(locked).await?;
            Ok((!locked.is_empty()).then_some(()))
        })
        .await?;
        let mut sum = 0;
        loop {
            let asked = worker.ask("acme", amount(1, 1), amount(7, 1)).await;
            match asked {
                Ok(answer) if !answer.granted.is_zero() => sum += answer.granted.tokens.get(),
                Ok(refused) => anyhow::bail!("refused, though Postgres has more: {refused:?}"),
                Err(error) => {
                    ensure!(error.to_string().contains("503"), "{error}");
                    break;
                }
            }
        }
        // Redis has none left.
        let renewed = worker.ask("acme", amount(0, 0), amount(50, 1)).await?;
        ensure!(renewed.ttl_ms > 1_000 && renewed.stamp == lease.stamp, "{renewed:?}");
        ensure!(renewed.granted.tokens.is_zero() && renewed.ask_again_ms == 0, "{renewed:?}");
        Ok(sum)
    };
    let (hung, dealt) = tokio::join!(hang, deal);
    hung?;
    let dealt = dealt?;
    ensure!(dealt > 0, "nothing was claimed ahead");
    let rest = worker.drain("acme").await?;
    ensure!(sum + dealt + rest == CAPACITY, "{sum} + {dealt} + {rest} of {CAPACITY}");
    Ok(())
}
