//! `cargo xtask bench`: what a decision costs, measured beside what else there is, in one run.
//!
//! The rows take turns, so that a machine that slows down slows all of them; medians and ratios are
//! what counts, and the spread says how noisy the machine was.

mod control_plane;
mod cpu;
mod driver;
mod edge;
mod filters;
mod growth;
mod noop;
mod report;
mod rows;
mod stats;
mod target;

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde_json::{Value, json};

use self::target::Target;
use crate::{
    build,
    progress::Step,
    setup,
    stack::{Parts, Postgres, Stack},
};

/// A part of the bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// What a decision costs at the edge.
    Edge,
    /// What becomes of that with many tenants, workers and limits.
    Growth,
    /// Leases, usage and invoices.
    ControlPlane,
}

/// What to measure, and how to say it.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cost of a decision only, in under three minutes.
    pub quick: bool,
    /// Only these parts; all of them, if empty.
    pub only: Vec<Part>,
    /// The last line of standard output is one JSON object.
    pub json: bool,
    /// The gateways of growth have the wasm module, and not the native one.
    pub wasm: bool,
}

/// How long to measure. Many short rounds: a noisy machine disturbs some of them, and not the median.
#[derive(Debug, Clone, Copy)]
struct Effort {
    rounds: u32,
    /// Of each row in each round.
    requests: u64,
    /// Of each row without pause, to see what it costs those who are asked.
    asking: u64,
    /// Of one tenant without pause, to see how often the control plane is needed.
    steady: u64,
    /// Rounds in which throughput and latency are measured.
    timed_rounds: u32,
    span: Duration,
}

const QUICK: Effort = Effort {
    rounds: 40,
    requests: 1_000,
    asking: 10_000,
    steady: 40_000,
    timed_rounds: 0,
    span: Duration::ZERO,
};
const FULL: Effort = Effort {
    rounds: 120,
    requests: 1_500,
    asking: 30_000,
    steady: 100_000,
    timed_rounds: 3,
    span: Duration::from_secs(3),
};

impl Options {
    fn has(&self, part: Part) -> bool {
        let among = self.only.is_empty() || self.only.contains(&part);
        among && (!self.quick || part == Part::Edge)
    }
}

pub fn run(options: &Options) -> Result<()> {
    eprintln!("Setting up");
    let parts = Parts {
        tools: setup::tools()?,
        filter: build::native_filter()?,
        control_plane: build::control_plane_release()?,
    };
    let service = build::ratelimit_service()?;
    let wasm = build::filter()?;
    tokio::runtime::Runtime::new()?.block_on(async {
        tokio::select! {
            done = bench(&parts, (&service, &wasm), options) => done,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    })
}

async fn bench(parts: &Parts, programs: (&Path, &Path), options: &Options) -> Result<()> {
    let mut all = json!({});
    let mut targets = Vec::new();
    let postgres = Postgres::start(&parts.tools.postgres_bin).await?;
    if options.has(Part::Edge) {
        let edge = edge(parts, &postgres, programs, options).await?;
        report::print(&edge);
        targets.extend(edge.targets());
        add(&mut all, report::json(&edge));
    }
    let parts = &if options.wasm {
        Parts { filter: programs.1.to_owned(), ..parts.clone() }
    } else {
        parts.clone()
    };
    if options.has(Part::Growth) {
        let growth = growth::measure(parts, &postgres).await?;
        growth.print();
        targets.extend(growth.targets());
        add(&mut all, json!({ "growth": growth.json() }));
    }
    if options.has(Part::ControlPlane) {
        let control_plane = control_plane::measure(parts, &postgres).await?;
        control_plane.print();
        targets.extend(control_plane.targets());
        add(&mut all, json!({ "control_plane": control_plane.json() }));
    }
    if !targets.is_empty() {
        println!("Targets\n");
        targets.iter().for_each(Target::print);
        println!();
    }
    if options.json {
        println!("{all}");
    }
    Ok(())
}

/// On a Weir of its own, which has ended when it returns.
async fn edge(
    parts: &Parts,
    postgres: &Arc<Postgres>,
    programs: (&Path, &Path),
    options: &Options,
) -> Result<edge::Edge> {
    let step = Step::start("Redis, control plane, upstream, Envoy");
    let mut stack = Stack::builder(parts, postgres).name("bench").concurrency(1).start().await?;
    let mut rated =
        Stack::builder(parts, postgres).name("bench-rated").concurrency(1).start().await?;
    step.done("ready");
    let step = Step::start("a decision at the edge");
    let effort = if options.quick { QUICK } else { FULL };
    let edge = edge::measure(&mut stack, &mut rated, programs, effort).await?;
    step.done("measured");
    Ok(edge)
}

/// Adds the members of one JSON object to another.
fn add(all: &mut Value, more: Value) {
    if let (Value::Object(all), Value::Object(more)) = (all, more) {
        all.extend(more);
    }
}
