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

/// The filter as a native module.
const AS_NATIVE_MODULE: [&str; 2] = ["--no-default-features", "--features=native,trap"];

pub(super) fn clippy() -> Result<()> {
    setup::lint_tools()?;
    let denied = ["--", "--deny=warnings"];
    run_shown(cargo().args(["clippy", "--workspace", "--all-targets"]).args(denied))?;
    setup::rust_targets()?;
    let filter = ["clippy", "--package=weir-filter"];
    let wasm = ["--target=wasm32-wasip1", "--target-dir=target-wasm"];
    run_shown(cargo().args(filter).args(wasm).args(denied))?;
    run_shown(cargo().args(filter).args(AS_NATIVE_MODULE).args(denied))
}

pub(super) fn native() -> Result<()> {
    run_shown(cargo().args(["test", "--workspace", "--exclude=weir-tests"]))?;
    run_shown(cargo().args(["test", "--package=weir-filter"]).args(AS_NATIVE_MODULE))
}

pub(super) fn end_to_end() -> Result<()> {
    run_end_to_end(&Parts::provide()?, &[])
}

/// Tests of what the two have not in common: what Envoy tells of requests and is told, who makes calls when,
/// and what becomes of workers.
const NATIVE: [&str; 13] = [
    "bounds::",
    "configuration::",
    "conservation::",
    "fleet::exact",
    "fleet::soak",
    "fleet::waiting",
    "gateway::",
    "llm::",
    "outage::",
    "rating::",
    "smoke::",
    "takeover::lost::an_envoy",
    "takeover::reload",
];

/// Of those: what only a wasm module has not, and what only a VM can do without holding others up.
const OF_WASM: [&str; 4] = [
    "--skip",
    "llm::routes::the_lean_module",
    "--skip",
    "rating::replaced::a_refresher_that_stood_still",
];

pub(super) fn end_to_end_natively() -> Result<()> {
    run_end_to_end(&Parts::provide_native()?, &[&NATIVE[..], &OF_WASM[..]].concat())
}

/// Those that `names` tell the test binary, or all. The parts are built and handed over, so that no test
/// builds anything.
fn run_end_to_end(parts: &Parts, names: &[&str]) -> Result<()> {
    run_shown(
        cargo()
            .args(["test", "--package=weir-tests", "--"])
            .args(names)
            // Errors that tests return say what they mean; where they were made is noise.
            .env("RUST_LIB_BACKTRACE", "0")
            .env(FILTER_VARIABLE, &parts.filter)
            .env(CONTROL_PLANE_VARIABLE, &parts.control_plane),
    )
}
