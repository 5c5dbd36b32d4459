//! `weir invoice run` for all tenants, beside the SQL that only sums the same usage up.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::tenants::COUNT;
use crate::{bench::stats::Spread, stack::Stack};

const ROUNDS: u32 = 3;
/// Quarter hours of the month in which each tenant used two meters: about two a day.
const QUARTERS: u64 = 62;

/// Seconds, one of each per round.
pub(super) struct Invoices {
    run: Vec<f64>,
    bare: Vec<f64>,
}

impl Invoices {
    pub(super) fn seconds(&self) -> Spread {
        Spread::of(&self.run)
    }

    pub(super) fn bare_seconds(&self) -> Spread {
        Spread::of(&self.bare)
    }

    pub(super) fn ratio(&self) -> Spread {
        let ratios: Vec<f64> =
            self.run.iter().zip(&self.bare).map(|(run, bare)| run / bare).collect();
        Spread::of(&ratios)
    }
}

pub(super) async fn measure(stack: &Stack) -> Result<Invoices> {
    fill_rollup(stack).await?;
    let mut measured = Invoices { run: Vec::new(), bare: Vec::new() };
    for round in 0..=ROUNDS {
        // As others find it, with what was written before on disk.
        let forget = "truncate invoice, invoice_terms, invoice_quantity, invoice_line cascade;
                      update invoice_number set last = 0";
        stack.database.query(forget).await?;
        stack.database.query("checkpoint").await?;
        let began = Instant::now();
        // To the server's own /dev/null: all rows are made, and no client slows it down.
        let sums = "copy (select tenant_id, meter, model, sum(tokens), sum(requests)
                          from usage_rollup group by tenant_id, meter, model) to '/dev/null'";
        stack.database.query(sums).await?;
        let bare = began.elapsed().as_secs_f64();
        let began = Instant::now();
        let output = stack.weir(&["invoice", "run"]).await?;
        let run = began.elapsed().as_secs_f64();
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            said.starts_with(&format!("{COUNT} invoices")),
            "weir invoice run: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        // The first round only fills caches.
        if round > 0 {
            measured.run.push(run);
            measured.bare.push(bare);
        }
    }
    Ok(measured)
}

/// In the order of time, as usage comes, and in no order of tenants within a quarter hour. Without
/// triggers, since it came in time.
async fn fill_rollup(stack: &Stack) -> Result<()> {
    let sql = format!(
        "set session_replication_role = replica;
         truncate usage_rollup;
         create temp table shuffled as select id, created_at from tenant order by md5(id);
         do $$ begin
           for place in 0 .. {QUARTERS} - 1 loop
             insert into usage_rollup (tenant_id, quarter, meter, model, tokens, requests)
             select id, created_at + place * interval '10 hours', meter, '', 1000 + place, 7
             from shuffled, (values ('chat'), ('default')) meters (meter);
           end loop;
         end $$;
         analyze usage_rollup"
    );
    stack.database.query(&sql).await.map(drop)
}
