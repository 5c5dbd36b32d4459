//! `cargo xtask <command>`: what a developer runs.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{bench, build, demo, setup, soak, sqlx, test};

/// Weir's developer commands. Each fetches what it needs; Rust is the only thing to install.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts a whole Weir, drives traffic through Envoy, shows who gets what, and the invoices.
    Demo {
        /// End after the summary, instead of staying up until Ctrl-C.
        #[arg(long)]
        once: bool,
        /// Make the last line of standard output one JSON object.
        #[arg(long)]
        json: bool,
        /// With the filter as a native module of Envoy.
        #[arg(long)]
        native: bool,
    },
    /// Runs every check that a change must pass.
    Test {
        /// Only this check; may be repeated.
        #[arg(long)]
        only: Vec<test::Check>,
    },
    /// Measures what a decision costs, beside a bare Envoy and other rate limiters.
    Bench {
        /// Only the cost of a decision, in under three minutes.
        #[arg(long)]
        quick: bool,
        /// Only this part; may be repeated.
        #[arg(long)]
        only: Vec<bench::Part>,
        /// Make the last line of standard output one JSON object.
        #[arg(long)]
        json: bool,
        /// Measure growth and the control plane with the wasm module; the cost of a decision is that of both
        /// forms in any case.
        #[arg(long)]
        wasm: bool,
    },
    /// Lets random faults strike a fleet under load, and checks the laws at the end.
    Soak {
        /// For how long faults strike.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// Of an earlier run, whose faults shall strike again; otherwise a new one, which is shown.
        #[arg(long)]
        seed: Option<u64>,
        /// With the filter as a native module of Envoy.
        #[arg(long)]
        native: bool,
    },
    /// Brings `.sqlx`, the descriptions of the control plane's queries, up to date.
    Sqlx {
        /// Change nothing, and fail when it is not.
        #[arg(long)]
        check: bool,
    },
    /// Fetches what the other commands need and builds nothing.
    Setup,
    /// Builds the filter for Envoy, as a wasm module, and prints where it is.
    BuildFilter {
        /// As a native module instead.
        #[arg(long)]
        native: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo { once, json, native } => demo::run(demo::Options { once, json, native })?,
        Command::Bench { quick, only, json, wasm } => {
            bench::run(&bench::Options { quick, only, json, wasm })?;
        }
        Command::Test { only } => test::run(&only)?,
        Command::Soak { minutes, seed, native } => {
            soak::run(soak::Options { minutes, seed, native })?;
        }
        Command::Sqlx { check } => {
            sqlx::update(if check { sqlx::Mode::Check } else { sqlx::Mode::Write })?;
        }
        Command::Setup => {
            setup::tools()?;
            setup::lint_tools()?;
            setup::wasm_test_runner()?;
            setup::llm_clients()?;
        }
        Command::BuildFilter { native } => {
            let filter = if native { build::native_filter()? } else { build::filter()? };
            println!("{}", filter.display());
        }
    }
    Ok(())
}
