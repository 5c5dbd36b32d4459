//! Parts of the Rust toolchain that a minimal installation lacks.

use std::{path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{
    command::{cargo, run},
    progress::Step,
};

/// Envoy runs the first; tests of `domain` run on the second.
pub const WASM_TARGETS: [&str; 2] = ["wasm32-wasip1", "wasm32-unknown-unknown"];

pub(super) fn wasm_targets(step: &Step) -> Result<String> {
    let missing: Vec<&str> =
        WASM_TARGETS.into_iter().filter(|target| !target_installed(target)).collect();
    if !missing.is_empty() {
        step.says(&format!("adding {}", missing.join(" ")));
        rustup(&[&["target", "add"], missing.as_slice()].concat())?;
    }
    Ok(WASM_TARGETS.join(", "))
}

pub(super) fn lint_tools(step: &Step) -> Result<String> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if run(cargo().args([subcommand, "--version"])).is_err() {
            step.says(&format!("adding {component}"));
            rustup(&["component", "add", component])?;
        }
    }
    Ok("installed".into())
}

/// Asks rustc, so that a toolchain without rustup works too.
fn target_installed(target: &str) -> bool {
    run(Command::new("rustc").args(["--print=target-libdir", "--target", target]))
        .is_ok_and(|folder| Path::new(folder.trim()).is_dir())
}

fn rustup(arguments: &[&str]) -> Result<()> {
    run(Command::new("rustup").args(arguments)).map(drop).with_context(|| {
        format!(
            "`rustup {}` is needed once; without rustup, install them as your toolchain was",
            arguments.join(" ")
        )
    })
}
