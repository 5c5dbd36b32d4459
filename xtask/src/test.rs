//! `cargo xtask test`: every check that a change must pass, each of which can be repeated alone.

mod domain;
mod steps;

use std::time::Instant;

use anyhow::{Result, bail};
use clap::ValueEnum;

/// One check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Check {
    /// The code is formatted.
    Fmt,
    /// Clippy has no warnings, native and for both ways in which the filter is built.
    Clippy,
    /// `.sqlx` has exactly the queries of the code.
    Sqlx,
    /// The native tests of all packages.
    Native,
    /// The tests of `domain` on wasm32-unknown-unknown under Node.
    Wasm,
    /// The end-to-end tests on real Envoy, Redis and Postgres, with the filter as a wasm module.
    E2e,
    /// Those that show the filter at work, once more with it as a native module.
    E2eNative,
}

impl Check {
    fn run(self) -> Result<()> {
        match self {
            Self::Fmt => steps::fmt(),
            Self::Clippy => steps::clippy(),
            Self::Sqlx => crate::sqlx::update(crate::sqlx::Mode::Check),
            Self::Native => steps::native(),
            Self::Wasm => domain::on_wasm(),
            Self::E2e => steps::end_to_end(),
            Self::E2eNative => steps::end_to_end_natively(),
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Runs these checks, or all; goes on after a failure, and names each at the end.
pub fn run(only: &[Check]) -> Result<()> {
    let checks = if only.is_empty() { Check::value_variants() } else { only };
    let mut failed = Vec::new();
    for check in checks {
        let name = check.name();
        eprintln!("\n== {name}");
        let started = Instant::now();
        let result = check.run();
        let took = started.elapsed().as_secs();
        match result {
            Ok(()) => eprintln!("== {name}: passed ({took} s)"),
            Err(error) => {
                eprintln!("== {name}: FAILED ({took} s)\n{error:#}");
                failed.push(name);
            }
        }
    }
    if failed.is_empty() {
        eprintln!("\nall passed");
        return Ok(());
    }
    let again: Vec<String> =
        failed.iter().map(|name| format!("\n  cargo xtask test --only {name}")).collect();
    bail!("failed: {}; to repeat:{}", failed.join(", "), again.concat());
}
