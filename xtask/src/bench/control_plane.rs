//! What the control plane does, beside the least that Postgres must do for the same.

mod ingest;
mod invoices;
mod leases;
mod tenants;

use std::sync::Arc;

use anyhow::Result;
use serde_json::{Value, json};

use self::{ingest::Ingest, invoices::Invoices, leases::Leases};
use super::{stats::Spread, target::Target};
use crate::{
    progress::Step,
    stack::{Parts, Postgres, Stack},
};

/// The rows of the control plane.
pub(super) struct ControlPlane {
    ingest: Ingest,
    invoices: Invoices,
    leases: Leases,
}

/// On a Weir of its own, without gateways.
pub(super) async fn measure(parts: &Parts, postgres: &Arc<Postgres>) -> Result<ControlPlane> {
    let step = Step::start("100,000 tenants");
    let stack =
        Stack::builder(parts, postgres).name("bench-control-plane").gateways(0).start().await?;
    tenants::create(&stack.database).await?;
    step.done("created");
    let step = Step::start("leases");
    let leases = leases::measure(&stack).await?;
    step.done("measured");
    let step = Step::start("usage into Postgres");
    let ingest = ingest::measure(&stack).await?;
    step.done("measured");
    let step = Step::start("invoices of 100,000 tenants");
    let invoices = invoices::measure(&stack).await?;
    step.done("measured");
    Ok(ControlPlane { ingest, invoices, leases })
}

impl ControlPlane {
    pub(super) fn targets(&self) -> Vec<Target> {
        vec![
            Target::at_least("usage_over_copy", self.ingest.ratio().median, 0.5),
            Target::at_most("invoice_run_over_sql", self.invoices.ratio().median, 2.0),
        ]
    }

    pub(super) fn print(&self) {
        println!("\nThe control plane\n");
        println!("  {:<56}{:>12}{:>23}", "", "", "min – max");
        let row = |explained: &str, value: Spread, digits: usize| {
            let range = format!("{:.digits$} – {:.digits$}", value.min, value.max);
            println!("  {explained:<56}{:>12.digits$}{range:>23}", value.median);
        };
        row("lease items, per second", self.leases.per_second(), 0);
        row("lease items, CPU µs each (with Redis and Postgres)", self.leases.cpu_us(), 1);
        row("usage records, per second", self.ingest.per_second(), 0);
        row("a bare COPY of the same rows, per second", self.ingest.bare_per_second(), 0);
        row("invoices of 100,000 tenants, s", self.invoices.seconds(), 2);
        row("the bare SQL sums of the same usage, s", self.invoices.bare_seconds(), 2);
        println!();
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "lease_items_per_s": self.leases.per_second().median,
            "lease_item_cpu_us": self.leases.cpu_us().median,
            "usage_records_per_s": self.ingest.per_second().median,
            "copy_records_per_s": self.ingest.bare_per_second().median,
            "usage_over_copy": self.ingest.ratio().median,
            "invoice_run_s": self.invoices.seconds().median,
            "invoice_sql_s": self.invoices.bare_seconds().median,
            "invoice_run_over_sql": self.invoices.ratio().median,
        })
    }
}
