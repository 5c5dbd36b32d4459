//! `cargo xtask bench`: what a decision costs, measured beside what else there is, in one run.
//!
//! The rows take turns, so that a machine that slows down slows all of them; medians and ratios are
//! what counts, and the spread says how noisy the machine was.

mod cpu;
mod driver;
mod edge;
mod filters;
mod noop;
pub mod ratelimit_service;
mod report;
mod rows;
mod stats;

use std::time::Duration;

use anyhow::{Result, bail};

use crate::{
    build,
    progress::Step,
    setup,
    stack::{Parts, Postgres, Stack},
};

/// What to measure, and how to say it.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The cost of a decision only, in under three minutes.
    pub quick: bool,
    /// The last line of standard output is one JSON object.
    pub json: bool,
}

/// How long to measure. Many short rounds: a noisy machine disturbs some of them, and not the median.
#[derive(Debug, Clone, Copy)]
struct Effort {
    rounds: u32,
    /// Of each row in each round.
    requests: u64,
    /// Of one tenant without pause, to see how often the control plane is needed.
    steady: u64,
    /// Rounds in which throughput and latency are measured.
    timed_rounds: u32,
    span: Duration,
}

const QUICK: Effort =
    Effort { rounds: 40, requests: 1_000, steady: 40_000, timed_rounds: 0, span: Duration::ZERO };
const FULL: Effort = Effort {
    rounds: 120,
    requests: 1_500,
    steady: 100_000,
    timed_rounds: 3,
    span: Duration::from_secs(3),
};

pub fn run(options: Options) -> Result<()> {
    eprintln!("Setting up");
    let parts = Parts {
        tools: setup::tools()?,
        filter: build::filter()?,
        control_plane: build::control_plane_release()?,
    };
    tokio::runtime::Runtime::new()?.block_on(async {
        tokio::select! {
            done = bench(&parts, options) => done,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    })
}

async fn bench(parts: &Parts, options: Options) -> Result<()> {
    let step = Step::start("Postgres, Redis, control plane, upstream, Envoy");
    let postgres = Postgres::start(&parts.tools.postgres_bin).await?;
    let mut stack = Stack::builder(parts, &postgres).name("bench").concurrency(1).start().await?;
    step.done("ready");
    let step = Step::start("a decision at the edge");
    let effort = if options.quick { QUICK } else { FULL };
    let edge = edge::measure(&mut stack, effort).await?;
    step.done("measured");
    report::print(&edge);
    if options.json {
        println!("{}", report::json(&edge));
    }
    Ok(())
}
