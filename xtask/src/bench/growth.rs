//! How the cost of a decision grows with the number of tenants, of workers and of limits.

mod row;

use std::{sync::Arc, time::Instant};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use self::row::{Among, Row};
use super::target::Target;
use crate::{
    progress::Step,
    stack::{Database, Parts, Postgres, Stack},
};

/// How often a row and the one that it is compared with have their turns.
const ROUNDS: usize = 40;
/// So few that neither is without traffic for long: then a gateway gives its leases back.
const REQUESTS: u64 = 1_000;
const MANY: u32 = 100_000;

/// What is compared with what.
const ONE: &str = "tenants_1";
const ALL: &str = "tenants_100000_zipf";

pub(super) struct Growth {
    rows: Vec<Row>,
}

/// By one worker and by two, each on a Weir of its own.
pub(super) async fn measure(parts: &Parts, postgres: &Arc<Postgres>) -> Result<Growth> {
    let mut rows = by_workers(
        parts,
        postgres,
        1,
        &[
            (ONE, "1 tenant", Among::new("one", 1)),
            ("tenants_1_limits_4", "1 tenant, 4 limits", Among::new("four", 1)),
            ("tenants_1000", "1,000 tenants", Among::new("one", 1_000)),
            ("tenants_1000_limits_4", "1,000 tenants, 4 limits", Among::new("four", 1_000)),
            ("tenants_1000_zipf", "1,000 tenants, Zipf", Among::new("one", 1_000).zipf()),
            ("tenants_100000", "100,000 tenants", Among::new("one", MANY)),
            (ALL, "100,000 tenants, Zipf", Among::new("one", MANY).zipf()),
        ],
    )
    .await?;
    let two = [
        ("tenants_1_workers_2", "1 tenant, 2 workers", Among::new("one", 1)),
        ("tenants_1000_workers_2", "1,000 tenants, 2 workers", Among::new("one", 1_000)),
    ];
    rows.extend(by_workers(parts, postgres, 2, &two).await?);
    Ok(Growth { rows })
}

async fn by_workers(
    parts: &Parts,
    postgres: &Arc<Postgres>,
    workers: u32,
    kinds: &[(&'static str, &'static str, Among)],
) -> Result<Vec<Row>> {
    let step = Step::start("Redis, control plane, upstream, tenants");
    let mut stack = Stack::builder(parts, postgres)
        .name("bench-growth")
        .concurrency(workers)
        .gateways(0)
        .start()
        .await?;
    create(&stack.database).await?;
    step.done("ready");
    let mut rows: Vec<Row> = Vec::new();
    for (name, explained, among) in kinds {
        let step = Step::start(format!("growth: {explained}"));
        // The same tenants in another order need no gateway of their own.
        let same = rows.iter().find(|row| row.has_tenants_of(among));
        let gateway = match same {
            Some(row) => row.gateway(),
            None => {
                // Waiting for a lease of a tenant that was never seen takes as long as it takes.
                stack.add_gateway(&json!({ "max_wait_ms": 60_000 })).await?;
                row::WarmGateway::new(&stack, among, workers).await.context(*name)?
            }
        };
        rows.push(Row::new(&stack, gateway, (*name, *explained), *among).await?);
        let [base, .., row] = rows.as_mut_slice() else {
            step.done("warm");
            continue;
        };
        let (warm_requests, warm_until) = row.warm_up();
        let mut sent = 0;
        while sent < warm_requests || Instant::now() < warm_until {
            base.turn(&stack, REQUESTS, false).await?;
            row.turn(&stack, REQUESTS, false).await.context(*name)?;
            sent += REQUESTS;
        }
        for _ in 0..ROUNDS {
            base.turn(&stack, REQUESTS, true).await?;
            row.turn(&stack, REQUESTS, true).await.context(*name)?;
        }
        row.compare_with(base, ROUNDS);
        step.done("measured");
    }
    Ok(rows)
}

/// Tenants with one limit (`one-0`, …) and with four (`four-0`, …), straight into Postgres.
async fn create(database: &Database) -> Result<()> {
    let periodic = |name: &str, unit: &str| {
        json!({ "name": name, "unit": unit, "capacity": 1_000_000_000,
                "refill": { "kind": "periodic", "period": "year" } })
    };
    let limits = [("a", "tokens"), ("b", "requests"), ("c", "tokens"), ("d", "requests")]
        .map(|(name, unit)| periodic(name, unit));
    for (plan, limits, count) in [("one", &limits[..1], MANY), ("four", &limits[..], 1_000)] {
        let terms = json!({ "currency": "USD", "limits": limits, "prices": [] });
        let sql = format!(
            "insert into plan (id, name) values ('{plan}', 'Bench');
             insert into plan_version (plan_id, version, terms) values ('{plan}', 1, '{terms}');
             insert into tenant (id, name, plan_id)
               select '{plan}-' || number, 'Tenant', '{plan}' from generate_series(0, {count} - 1) number;
             insert into tenant_terms (tenant_id, starts_at, plan_id, plan_version)
               select id, date_trunc('hour', created_at), '{plan}', 1 from tenant where plan_id = '{plan}';"
        );
        database.query(&sql).await?;
    }
    database.query("analyze").await.map(drop)
}

impl Growth {
    fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// CPU of the gateway with 100,000 tenants over that with one, turn by turn.
    fn cpu_ratio(&self) -> f64 {
        self.row(ALL).map_or(f64::NAN, |row| row.over_base)
    }

    /// Memory that a tenant takes in each worker, in bytes.
    fn bytes_per_tenant(&self) -> f64 {
        let grown = |name| self.row(name).map_or(f64::NAN, |row| row.gateway().grown_bytes());
        (grown("tenants_100000") - grown(ONE)) / f64::from(MANY)
    }

    pub(super) fn targets(&self) -> Vec<Target> {
        vec![
            Target::at_most("tenants_100000_over_1", self.cpu_ratio(), 1.15),
            Target::at_most("bytes_per_tenant", self.bytes_per_tenant(), 400.0),
        ]
    }

    pub(super) fn print(&self) {
        println!("\nGrowth: CPU per request, and what the control plane is asked\n");
        println!(
            "  {:<34}{:>11}{:>15}{:>9}{:>13}{:>9}{:>11}{:>11}{:>11}",
            "",
            "gateway µs",
            "min – max",
            "× base",
            "the rest µs",
            "MiB",
            "waits/1000",
            "calls/1000",
            "Redis/1000"
        );
        for row in &self.rows {
            let gateway = row.gateway_us();
            println!(
                "  {:<34}{:>11.1}{:>15}{:>9.2}{:>13.1}{:>9.1}{:>11.2}{:>11.2}{:>11.2}",
                row.explained,
                gateway.median,
                format!("{:.1} – {:.1}", gateway.min, gateway.max),
                row.over_base,
                row.rest_us().median,
                row.gateway().resident_bytes as f64 / f64::from(1 << 20),
                row.waits_per_1000(),
                row.calls_per_1000(),
                row.redis_per_1000(),
            );
        }
        println!();
    }

    pub(super) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| (row.name.to_owned(), row.json()));
        let mut all: Map<String, Value> = rows.collect();
        all.insert("tenants_100000_over_1".to_owned(), json!(self.cpu_ratio()));
        all.insert("bytes_per_tenant".to_owned(), json!(self.bytes_per_tenant()));
        Value::Object(all)
    }
}
