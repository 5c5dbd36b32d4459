//! Claims of two replicas, one of which stands still between claiming a block and feeding it. The test
//! is that replica.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use redis::Script;
use weir_domain::protocol::{MAX_PERIODIC_TTL_MS, MAX_TTL_MS, PLENTY};

use super::{SCRIPT, Worker, amount, bucket, control_planes};
use crate::harness::{Fleet, SOON, monthly, wait_for};

const CAPACITY: u64 = 1_000;
const BLOCK: u64 = 300;

/// Claims a block before anybody else does; the period, in ms since 1970.
async fn claim(fleet: &Fleet) -> Result<(String, String)> {
    let sql = format!(
        "insert into claim (tenant_id, limit_name, period_start, period_end, claimed, last_block, claimed_at)
         values ('acme', 'monthly', date_trunc('month', now(), 'UTC'),
           date_trunc('month', now(), 'UTC') + interval '1 month', {BLOCK}, {BLOCK}, clock_timestamp())
         returning (extract(epoch from period_start) * 1000)::bigint || ' '
           || (extract(epoch from period_end) * 1000)::bigint"
    );
    let row = fleet.stack.database.query(&sql).await?;
    let mut words = row.split_whitespace().map(str::to_owned);
    words.next().zip(words.next()).with_context(|| format!("{row:?} is no period"))
}

/// Feeds that block, of which the replica knows that nothing was claimed before it.
async fn feed(fleet: &Fleet, (starts_ms, ends_ms): (String, String)) -> Result<()> {
    let client = redis::Client::open(fleet.stack.redis.url())?;
    let mut redis = client.get_multiplexed_async_connection().await?;
    let server: String = redis::cmd("INFO").arg("server").query_async(&mut redis).await?;
    let epoch =
        server.lines().find_map(|line| line.strip_prefix("run_id:")).context("no run_id")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let script = Script::new(SCRIPT);
    let mut call = script.key("weir:1:{acme}:gateways");
    call.key("weir:1:{acme}:bucket:monthly").arg("feed").arg(epoch.trim()).arg(10_000);
    call.arg(MAX_TTL_MS).arg(MAX_PERIODIC_TTL_MS).arg(PLENTY).arg("").arg(1);
    call.arg("monthly").arg("p").arg(1).arg(CAPACITY).arg(starts_ms).arg(ends_ms).arg("");
    call.arg(BLOCK).arg(CAPACITY - BLOCK).arg(BLOCK).arg("");
    call.arg(u64::try_from(now.as_micros())?).arg("vouched");
    let answer: Vec<redis::Value> = call.invoke_async(&mut redis).await?;
    ensure!(answer.first() == Some(&redis::Value::BulkString(b"fed".to_vec())), "{answer:?}");
    Ok(())
}

/// A fleet whose limit is released whole: one block is on its way, and the rest has been granted.
async fn all_released() -> Result<(Fleet, Worker, (String, String))> {
    let fleet = control_planes(1).await?;
    fleet.tenant("acme", &[monthly(CAPACITY)], &[]).await?;
    let worker = Worker::new(&fleet, "g", "w");
    let period = claim(&fleet).await?;
    let rest = amount(CAPACITY - BLOCK, 1);
    ensure!(worker.ask("acme", rest, rest).await?.granted == rest);
    ensure!(bucket(&fleet, "acme", "monthly").await?["claimed"] == CAPACITY);
    Ok((fleet, worker, period))
}

/// Who claims the last block does not take the limit for used up while the block before it is not in
/// Redis yet: what needs tokens of that is undecided, and gets them when they have come.
#[tokio::test]
async fn a_block_on_its_way_is_waited_for() -> Result<()> {
    let (fleet, worker, period) = all_released().await?;

    let more = worker.ask("acme", amount(BLOCK + 1, 1), amount(BLOCK + 1, 1)).await?;
    ensure!(more.granted.is_zero() && more.limits[0].violated, "nowhere are so many: {more:?}");
    let ask = worker.next("acme", amount(1, 1), amount(1, 1));
    let undecided = worker.send(&ask).await;
    let error = undecided.err().context("decided, though a block is on its way")?.to_string();
    ensure!(error.contains("503") && error.contains("on its way"), "{error}");

    feed(&fleet, period).await?;
    ensure!(worker.send(&ask).await?.granted == amount(1, 1));
    let rest = worker.drain("acme").await?;
    ensure!(rest == BLOCK - 1, "{rest} of {BLOCK}");
    Ok(())
}

/// The replica that claimed it is gone. Then the limit is used up, and its tokens stay unspent.
#[tokio::test]
async fn a_block_that_never_comes_is_given_up() -> Result<()> {
    let (_fleet, worker, _) = all_released().await?;
    let ask = worker.next("acme", amount(1, 1), amount(1, 1));
    let refused = wait_for("a decision", SOON, async || Ok(worker.send(&ask).await.ok())).await?;
    ensure!(refused.granted.is_zero() && refused.limits[0].violated, "{refused:?}");
    Ok(())
}
