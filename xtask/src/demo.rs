//! `cargo xtask demo`: a whole Weir with traffic, from the first request to the invoice.

mod report;
mod table;
mod tenants;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tokio::task::JoinSet;

use self::{table::Table, tenants::Row};
use crate::{
    admin::Admin,
    load::Until,
    progress::Step,
    stack::{Parts, Postgres, Stack, wait_for},
};

const TRAFFIC: Duration = Duration::from_secs(10);
/// When one of the tenants is suspended, after the traffic began.
const SUSPEND_AFTER: Duration = Duration::from_secs(4);
/// How often the table is refreshed.
const REFRESH: Duration = Duration::from_millis(500);
/// Usage is flushed twice a second; this is for a busy machine.
const LEDGER_WITHIN: Duration = Duration::from_secs(20);

/// How the demo ends.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// End after the summary, instead of at Ctrl-C.
    pub once: bool,
    /// The last line of standard output is one JSON object.
    pub json: bool,
    /// The filter is a native module.
    pub native: bool,
}

pub fn run(options: Options) -> Result<()> {
    eprintln!("Setting up");
    let parts = if options.native { Parts::provide_native()? } else { Parts::provide()? };
    tokio::runtime::Runtime::new()?.block_on(async {
        tokio::select! {
            // The demo first: at its end it waits for Ctrl-C itself.
            biased;
            done = demo(&parts, options) => done,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    })
}

async fn demo(parts: &Parts, options: Options) -> Result<()> {
    eprintln!("Starting, on 127.0.0.1 only");
    let stack = start(parts).await?;
    let admin = Admin::new(&stack)?;
    let mut rows = tenants::create(&admin).await?;

    println!("\nTraffic through Envoy for {} s; a request costs one token\n", TRAFFIC.as_secs());
    for row in &rows {
        println!("  {:<12}{}", row.tenant, row.terms);
    }
    println!();
    let mut table = Table::new();
    drive(&stack, &admin, &mut rows, &mut table).await?;
    let conserved = settle(&admin, &mut rows).await?;
    table.draw_last(&rows)?;

    println!("\nThe billing period ends\n");
    for row in rows.iter_mut().filter(|row| row.is_tenant) {
        let invoice = admin.post(&format!("/tenants/{}/billing-period/end", row.tenant)).await?;
        report::print_invoice(&invoice);
        row.invoice = Some(invoice);
    }
    report::print_conserved(conserved);
    if !options.once {
        report::print_surfaces(&stack, &admin).await?;
    }
    if options.json {
        println!("{}", report::json(&rows, conserved)?);
    }
    if !options.once {
        eprintln!("\nCtrl-C ends everything and removes its data.");
        tokio::signal::ctrl_c().await?;
    }
    ensure!(conserved, "what clients were admitted and what the ledger has differ; see the table");
    Ok(())
}

async fn start(parts: &Parts) -> Result<Stack> {
    let step = Step::start("Postgres");
    let postgres = Postgres::start(&parts.tools.postgres_bin).await?;
    step.done("ready");
    let step = Step::start("Redis, control plane, upstream, Envoy");
    let stack = Stack::builder(parts, &postgres).name("demo").start().await?;
    step.done("ready");
    Ok(stack)
}

/// All tenants call at once; one of them is suspended on the way.
async fn drive(stack: &Stack, admin: &Admin, rows: &mut [Row], table: &mut Table) -> Result<()> {
    let mut loads = JoinSet::new();
    for row in &*rows {
        let (load, counts) = (row.load(&stack.gateways[0].url()), row.counts.clone());
        loads.spawn(async move { load.run(Until::elapsed(TRAFFIC), &counts).await });
    }
    let started = Instant::now();
    let mut refresh = tokio::time::interval(REFRESH);
    let mut suspended = false;
    while started.elapsed() < TRAFFIC {
        refresh.tick().await;
        if !suspended && started.elapsed() >= SUSPEND_AFTER {
            suspended = true;
            tenants::suspend(admin, rows).await?;
        }
        look_up(admin, rows).await?;
        table.draw(rows)?;
    }
    while let Some(load) = loads.join_next().await {
        load??;
    }
    Ok(())
}

/// What the admin API says of each tenant.
async fn look_up(admin: &Admin, rows: &mut [Row]) -> Result<()> {
    for row in rows.iter_mut().filter(|row| row.is_tenant) {
        let usage = admin.get(&format!("/tenants/{}/usage", row.tenant)).await?;
        let count = |field: &str| {
            usage[field].as_u64().with_context(|| format!("no count `{field}` in {usage}"))
        };
        (row.ledger_tokens, row.ledger_requests) = (count("tokens")?, count("requests")?);
        let buckets = admin.get(&format!("/tenants/{}/buckets", row.tenant)).await?;
        row.remaining = buckets["items"][0]["remaining"].as_u64();
    }
    Ok(())
}

/// Waits for the last usage; whether the ledger has what clients saw admitted, for every tenant.
async fn settle(admin: &Admin, rows: &mut [Row]) -> Result<bool> {
    let rows = Arc::new(tokio::sync::Mutex::new(rows));
    let complete = wait_for("the last usage", LEDGER_WITHIN, async || {
        let mut rows = rows.lock().await;
        look_up(admin, &mut rows).await?;
        Ok(rows.iter().all(Row::is_conserved).then_some(()))
    })
    .await;
    let mut rows = rows.lock().await;
    look_up(admin, &mut rows).await?;
    Ok(complete.is_ok() && rows.iter().all(Row::is_conserved))
}
