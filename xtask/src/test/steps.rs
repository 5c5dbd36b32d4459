//! The checks that are little more than a cargo command.

use anyhow::Result;

use crate::{
    command::{cargo, run_shown},
    setup,
    stack::{CONTROL_PLANE_VARIABLE, FILTER_VARIABLE, Parts},
};

pub(super) fn fmt() -> Result<()> {
    setup::lint_tools()?;
    run_shown(cargo().args(["fmt", "--all", "--check"]))
}

pub(super) fn clippy() -> Result<()> {
    setup::lint_tools()?;
    let denied = ["--", "--deny=warnings"];
    run_shown(cargo().args(["clippy", "--workspace", "--all-targets"]).args(denied))?;
    setup::rust_targets()?;
    let filter = ["clippy", "--package=weir-filter", "--target=wasm32-wasip1"];
    run_shown(cargo().args(filter).args(["--target-dir=target-wasm"]).args(denied))
}

pub(super) fn native() -> Result<()> {
    run_shown(cargo().args(["test", "--workspace", "--exclude=weir-tests"]))
}

/// Builds the parts first and hands them over, so that no test builds anything.
pub(super) fn end_to_end() -> Result<()> {
    let parts = Parts::provide()?;
    run_shown(
        cargo()
            .args(["test", "--package=weir-tests"])
            // Errors that tests return say what they mean; where they were made is noise.
            .env("RUST_LIB_BACKTRACE", "0")
            .env(FILTER_VARIABLE, &parts.filter)
            .env(CONTROL_PLANE_VARIABLE, &parts.control_plane),
    )
}
