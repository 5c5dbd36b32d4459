//! The scheduler in `weir serve` makes invoices by itself: once each, with any number of replicas, and
//! whichever of them dies.

use anyhow::{Result, ensure};
use xtask::stack::ControlPlane;

use crate::harness::*;

/// More than two transactions close.
const TENANTS: u64 = 3_500;

/// Two replicas that look for due invoices ten times a second.
async fn replicas() -> Result<Fleet> {
    let fleet = Fleet::with(|stack| {
        stack.gateways(0).control_planes(2).variable("WEIR_INVOICE_EVERY_MS", "100")
    })
    .await?;
    done(&fleet).await?;
    Ok(fleet)
}

/// Waits until the periods of this quarter hour are gone through.
async fn done(fleet: &Fleet) -> Result<()> {
    let sql = "select done_until > now() - interval '15 minutes' from invoice_schedule";
    wait_for("a run of the scheduler", SOON * 2, async || {
        Ok((fleet.stack.database.query(sql).await?.trim() == "t").then_some(()))
    })
    .await
}

/// Makes tenants with one period that has ended.
async fn make_tenants(fleet: &Fleet) -> Result<()> {
    let sql = format!(
        "insert into plan (id, name) values ('plan', 'Plan');
         insert into plan_version (plan_id, version, terms) values ('plan', 1,
           '{{\"currency\": \"USD\", \"limits\": [], \"billing_period\": {{\"every_days\": 2}},
              \"prices\": [{{\"name\": \"Base fee\", \"charge\": {{\"kind\": \"flat\", \"amount\": \"5.00\"}}}}]}}');
         insert into tenant (id, name, plan_id, created_at)
         select 'tenant-' || lpad(number::text, 6, '0'), 'Tenant', 'plan',
                date_trunc('day', now(), 'UTC') - interval '2 days'
         from generate_series(1, {TENANTS}) number;
         insert into tenant_terms (tenant_id, starts_at, plan_id, plan_version)
         select id, created_at, 'plan', 1 from tenant"
    );
    fleet.stack.database.query(&sql).await.map(drop)
}

/// As if this quarter hour, in which periods have ended, had just begun.
async fn quarter_begins(fleet: &Fleet) -> Result<()> {
    let sql = "update invoice_schedule set done_until = done_until - interval '15 minutes'";
    fleet.stack.database.query(sql).await.map(drop)
}

/// Each tenant has its invoice, and the numbers have no gaps.
async fn assert_made_once(fleet: &Fleet) -> Result<()> {
    let sql = "select count(*), count(distinct tenant_id), count(distinct number),
                      max(substr(number, 5)::integer) from invoice";
    let made = fleet.stack.database.query(sql).await?;
    assert_eq!(made.trim(), format!("{TENANTS}|{TENANTS}|{TENANTS}|{TENANTS}"));
    Ok(())
}

/// How many invoices each run of a replica has made, by its log.
fn runs(control_plane: &ControlPlane) -> Result<Vec<u64>> {
    let log = control_plane.log()?;
    let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
    let runs = lines.filter(|line: &serde_json::Value| line["message"] == "invoices made");
    Ok(runs.filter_map(|line| line["invoices"].as_u64()).collect())
}

/// When periods end, their invoices are there soon, once each, and one replica has made them all.
#[tokio::test]
async fn periods_that_end_are_billed_by_themselves_and_once() -> Result<()> {
    let fleet = replicas().await?;
    make_tenants(&fleet).await?;
    quarter_begins(&fleet).await?;
    done(&fleet).await?;
    assert_made_once(&fleet).await?;
    let [one, two] = &fleet.stack.control_planes[..] else { unreachable!() };
    let both = [runs(one)?, runs(two)?].concat();
    assert_eq!(both.iter().filter(|made| **made > 0).collect::<Vec<_>>(), [&TENANTS], "{both:?}");

    let mut recorded = 0;
    for control_plane in [one, two] {
        // Who has not made them hears of it when it looks again.
        let metrics = wait_for("no lag", SOON, async || {
            let url = format!("{}/metrics", control_plane.url());
            let metrics = reqwest::get(url).await?.text().await?;
            ensure!(metrics.contains("weir_invoice_run_lag_seconds 0"), "{metrics}");
            Ok(Some(metrics))
        })
        .await?;
        let made = metrics.lines().find_map(|line| line.strip_prefix("weir_invoices_made_total "));
        recorded += made.map_or(Ok(0), str::parse)?;
    }
    assert_eq!(recorded, TENANTS);
    Ok(())
}

/// A replica is killed in the middle of a run, and another one finishes it.
#[tokio::test]
async fn a_replica_that_dies_in_a_run_is_taken_over() -> Result<()> {
    let fleet = replicas().await?;
    let [one, two] = &fleet.stack.control_planes[..] else { unreachable!() };
    two.kill();
    make_tenants(&fleet).await?;
    // The run comes to a stop at this tenant, in its last transaction.
    let hold = format!(
        "begin; select id from tenant where id = 'tenant-{TENANTS:06}' for update;
         select pg_sleep(60)"
    );
    let dying = async {
        wait_for("somebody who holds a tenant", SOON, async || {
            let sleeping = "select count(*) from pg_stat_activity
                            where wait_event = 'PgSleep' and datname = current_database()";
            Ok((fleet.stack.database.query(sleeping).await?.trim() == "1").then_some(()))
        })
        .await?;
        quarter_begins(&fleet).await?;
        wait_for("the middle of a run", SOON * 2, async || {
            let made = "select count(*) from invoice";
            Ok((fleet.stack.database.query(made).await?.trim() == "3000").then_some(()))
        })
        .await?;
        let waiting = "select count(*) from pg_stat_activity
                       where wait_event_type = 'Lock' and application_name = 'weir'
                         and datname = current_database()";
        ensure!(fleet.stack.database.query(waiting).await?.trim() != "0", "it is not in a run");
        one.kill();
        two.restart().await?;
        let let_go = "select pg_terminate_backend(pid) from pg_stat_activity
                      where wait_event = 'PgSleep' and datname = current_database()";
        fleet.stack.database.query(let_go).await
    };
    // Cut off, the holder ends with an error.
    let (_, died) = tokio::join!(fleet.stack.database.query(&hold), dying);
    died?;
    done(&fleet).await?;
    assert_made_once(&fleet).await?;
    assert_eq!(runs(two)?.iter().sum::<u64>(), TENANTS - 3_000);
    Ok(())
}

/// The runs have gone further than what is due now, as after a shorter grace or a clock that was ahead: what
/// is due is made all the same.
#[tokio::test]
async fn runs_that_have_gone_further_hold_nothing_up() -> Result<()> {
    let fleet = replicas().await?;
    make_tenants(&fleet).await?;
    let ahead = "update invoice_schedule set done_until = done_until + interval '2 hours'";
    fleet.stack.database.query(ahead).await?;
    wait_for("all invoices", SOON * 2, async || {
        let made = fleet.stack.database.query("select count(*) from invoice").await?;
        Ok((made.trim() == TENANTS.to_string()).then_some(()))
    })
    .await?;
    assert_made_once(&fleet).await
}
