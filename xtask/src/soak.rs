//! `cargo xtask soak`: the end-to-end test of random faults, for longer than in `cargo xtask test`.

use anyhow::Result;

use crate::{
    command::{cargo, run_shown},
    stack::{CONTROL_PLANE_VARIABLE, FILTER_VARIABLE, Parts},
};

/// What is soaked.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// For how long faults strike.
    pub minutes: u64,
    /// The same one brings the same faults in the same order.
    pub seed: Option<u64>,
    /// The filter is a native module.
    pub native: bool,
}

/// Runs it, and shows each fault as it strikes; fails with the seed when a law is broken.
pub fn run(options: Options) -> Result<()> {
    let parts = if options.native { Parts::provide_native()? } else { Parts::provide()? };
    let mut cargo = cargo();
    cargo
        .args(["test", "--package=weir-tests", "--", "--exact", "--nocapture"])
        .arg("fleet::soak::the_laws_hold_through_random_faults")
        .env("RUST_LIB_BACKTRACE", "0")
        .env(FILTER_VARIABLE, &parts.filter)
        .env(CONTROL_PLANE_VARIABLE, &parts.control_plane)
        .env("WEIR_SOAK_MINUTES", options.minutes.to_string());
    if let Some(seed) = options.seed {
        cargo.env("WEIR_SOAK_SEED", seed.to_string());
    }
    run_shown(&mut cargo)
}
