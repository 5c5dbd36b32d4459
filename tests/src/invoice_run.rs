//! `weir invoice run` over many tenants: in chunks, several at once, cut off and begun again.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::harness::*;

/// More than one transaction closes.
const TENANTS: u64 = 2_500;

/// Tenants since January 2025, each with its own usage of the meter `default` in January and February.
/// Most have the same periods; a few are in another time zone, or changed their terms in January.
async fn many_tenants() -> Result<Fleet> {
    let fleet = Fleet::with(|stack| stack.gateways(0)).await?;
    let plan = json!({ "currency": "USD", "prices": [flat("5.00"), per_unit("0.01")] });
    fleet.admin.put("/plans/plan", &plan).await?.ok()?;
    let sql = format!(
        "insert into tenant (id, name, plan_id, created_at, time_zone)
         select 'tenant-' || number, 'Tenant', 'plan', '2025-01-01',
                case when number % 50 = 0 then 'Europe/Zurich' else 'UTC' end
         from generate_series(1, {TENANTS}) number;
         insert into tenant_terms (tenant_id, starts_at, plan_id, plan_version)
         select id, created_at, 'plan', 1 from tenant;
         insert into tenant_terms (tenant_id, starts_at, plan_id, plan_version)
         select id, '2025-01-15', 'plan', 1 from tenant where substr(id, 8)::integer % 50 = 1;
         insert into usage_rollup (tenant_id, quarter, meter, model, tokens, requests)
         select 'tenant-' || number, quarter, 'default', '', number, 1
         from generate_series(1, {TENANTS}) number,
              unnest('{{2025-01-01,2025-01-31 23:45,2025-02-01}}'::timestamptz[]) quarter"
    );
    fleet.stack.database.query(&sql).await?;
    Ok(fleet)
}

async fn run(fleet: &Fleet) -> Result<()> {
    let output = fleet.stack.weir(&["invoice", "run", "--as-of", "2025-03-01T00:00:00Z"]).await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Each tenant has both invoices, with all of its usage, and the numbers have no gaps.
async fn assert_all_made(fleet: &Fleet) -> Result<()> {
    let query = async |sql: &str| fleet.stack.database.query(sql).await;
    let count = 2 * TENANTS;
    let made = "select count(*), count(distinct (tenant_id, period_start)), count(distinct number),
                       max(substr(number, 5)::integer) from invoice";
    assert_eq!(query(made).await?, format!("{count}|{count}|{count}|{count}"));
    let wrong = "select count(*) from invoice where total_minor <> 500 + coalesce((
                   select sum(tokens) from usage_rollup
                   where usage_rollup.tenant_id = invoice.tenant_id
                     and quarter >= period_start and quarter < period_end), 0)";
    assert_eq!(query(wrong).await?, "0");
    let billed =
        "select sum(tokens) = (select sum(tokens) from usage_rollup) from invoice_quantity";
    assert_eq!(query(billed).await?, "t");
    let rows = "select (select count(*) from invoice_line), (select count(*) from invoice_terms)";
    let changed = TENANTS / 50;
    assert_eq!(query(rows).await?, format!("{}|{}", 2 * count, count + changed));
    Ok(())
}

/// Runs that overlap share the work, and one that Postgres cuts off is finished by the next.
#[tokio::test]
async fn runs_that_overlap_or_are_cut_off_make_each_invoice_once() -> Result<()> {
    let fleet = many_tenants().await?;
    let cut_off = async {
        wait_for("a first invoice", SOON, async || {
            let made = fleet.stack.database.query("select count(*) from invoice").await?;
            Ok((made != "0").then_some(()))
        })
        .await?;
        let all = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                   where application_name = 'weir' and datname = current_database()";
        fleet.stack.database.query(all).await
    };
    // It may be done before it is cut off.
    let (_, cut) = tokio::join!(run(&fleet), cut_off);
    cut?;
    let (first, second) = tokio::join!(run(&fleet), run(&fleet));
    first?;
    second?;
    assert_all_made(&fleet).await
}

/// Usage that is being stored while its period is closed is waited for, and is on that invoice.
#[tokio::test]
async fn usage_that_is_being_stored_is_on_the_invoice() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(0)).await?;
    fleet.tenant("acme", &[], &[per_unit("0.01")]).await?;
    // The test must not cross into the next quarter hour.
    let left = "select 900 - extract(epoch from clock_timestamp())::bigint % 900";
    wait_for("a quarter hour with 30 s left", SOON * 3, async || {
        let left: i64 = fleet.stack.database.query(left).await?.trim().parse()?;
        Ok((left > 30).then_some(()))
    })
    .await?;
    let slow = "begin;
        insert into usage_rollup (tenant_id, quarter, meter, model, tokens, requests)
        select 'acme', to_timestamp(floor(extract(epoch from clock_timestamp()) / 900) * 900), 'default', '', 123, 1;
        select pg_sleep(3); commit";
    let nothing = json!({});
    let end = async {
        let sleeping = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
        wait_for("usage that is being stored", SOON, async || {
            Ok((fleet.stack.database.query(sleeping).await? != "0").then_some(()))
        })
        .await?;
        fleet.admin.post("/tenants/acme/billing-period/end", &nothing).await?.ok()
    };
    let (stored, ended) = tokio::join!(fleet.stack.database.query(slow), end);
    stored?;
    assert_eq!(ended?["total"], "1.23");
    let draft = fleet.admin.get("/tenants/acme/invoices/preview").await?.ok()?;
    assert_eq!(draft["total"], "0.00");
    Ok(())
}

/// A session that hangs in the middle of storing usage keeps invoices waiting, and nobody else: what comes
/// meanwhile is stored.
#[tokio::test]
async fn who_hangs_while_storing_usage_does_not_stop_the_ledger() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(0)).await?;
    for id in ["acme", "other"] {
        fleet.tenant(id, &[], &[per_unit("0.01")]).await?;
    }
    let query = async |sql: &str| fleet.stack.database.query(sql).await;
    let store = |tenant: &str| {
        format!(
            "insert into usage_rollup (tenant_id, quarter, meter, model, tokens, requests)
             values ('{tenant}', date_bin('15 minutes', now(), 'epoch'), 'default', '', 1, 1)"
        )
    };
    let hangs = format!("begin; {}; select pg_sleep(60)", store("acme"));
    let sleeping =
        "from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()";
    let meanwhile = async {
        wait_for("somebody who hangs", SOON, async || {
            Ok((query(&format!("select count(*) {sleeping}")).await?.trim() == "1").then_some(()))
        })
        .await?;
        let others = async {
            wait_for("the run that waits", SOON, async || {
                let sql = "select count(*) from pg_stat_activity where wait_event = 'advisory'
                             and application_name = 'weir' and datname = current_database()";
                Ok((query(sql).await?.trim() == "1").then_some(()))
            })
            .await?;
            let stored = tokio::time::timeout(SOON, query(&store("other"))).await;
            let let_go =
                query(&format!("select count(pg_terminate_backend(pid)) {sleeping}")).await?;
            ensure!(let_go.trim() == "1", "it did not hang any more");
            stored.context("the ledger stands still")?
        };
        let (ran, stored) = tokio::join!(run(&fleet), others);
        stored?;
        ran
    };
    // Cut off, it ends with an error.
    let (_, ran) = tokio::join!(query(&hangs), meanwhile);
    ran
}
