//! `wasm-bindgen-test-runner`, which must have the version of the `wasm-bindgen` that was compiled in.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use super::cache;
use crate::{
    command::{cargo, run_watched},
    progress::Step,
    workspace,
};

pub(super) fn provide_test_runner(step: &Step) -> Result<PathBuf> {
    let lock = fs::read_to_string(workspace().join("Cargo.lock"))?;
    let version = version_in(&lock).context("Cargo.lock names no wasm-bindgen")?;
    let entry = cache::entry(&format!("wasm-bindgen-{version}"), step, |new| {
        step.says("compiling it, about 4 minutes, once per version");
        // Not --locked: its lock file names a dependency that is no longer to be had.
        let mut install = cargo();
        install.args(["install", "wasm-bindgen-cli", "--version", version, "--root"]).arg(new);
        install.arg("--target-dir").arg(new.join("target"));
        run_watched(&mut install, |line| step.shows(line))
            .context("check that cargo can reach the crate registry, then try again")?;
        Ok(fs::remove_dir_all(new.join("target"))?)
    })?;
    Ok(entry.join("bin/wasm-bindgen-test-runner"))
}

fn version_in(lock: &str) -> Option<&str> {
    let package = lock.split_once("name = \"wasm-bindgen\"\nversion = \"")?.1;
    package.split_once('"').map(|(version, _)| version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_wasm_bindgen_itself() {
        let lock = "[[package]]\nname = \"wasm-bindgen-macro\"\nversion = \"0.1.0\"\n\n\
                    [[package]]\nname = \"wasm-bindgen\"\nversion = \"0.2.130\"\n";
        assert_eq!(version_in(lock), Some("0.2.130"));
    }
}
