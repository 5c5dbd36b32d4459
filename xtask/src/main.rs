//! `cargo xtask <command>`: what a developer runs.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{build, setup};

/// Weir's developer commands. Each fetches what it needs; Rust is the only thing to install.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetches what the other commands need and builds nothing.
    Setup,
    /// Builds the filter for Envoy and prints where it is.
    BuildFilter,
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
        Command::Setup => {
            setup::tools()?;
            setup::lint_tools()?;
            setup::wasm_test_runner()?;
        }
        Command::BuildFilter => println!("{}", build::filter()?.display()),
    }
    Ok(())
}
