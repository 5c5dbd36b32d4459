//! The TypeScript compiler, which builds `sdk/typescript` for its test.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use super::cache;
use crate::{
    command::{find_in_path, run},
    progress::Step,
};

const VERSION: &str = "5.9.3";

/// A script for `node`.
pub(super) fn provide(step: &Step) -> Result<PathBuf> {
    let entry = cache::entry(&format!("typescript-{VERSION}"), step, |new| {
        find_in_path("npm")
            .context("npm is missing; install it, such as with `apt-get install npm`")?;
        step.says("downloading from npm");
        let mut npm = Command::new("npm");
        npm.arg("install").arg("--prefix").arg(new);
        npm.args(["--no-audit", "--no-fund", "--silent", &format!("typescript@{VERSION}")]);
        run(&mut npm).context("check that npm can reach its registry, then try again")?;
        Ok(())
    })?;
    Ok(entry.join("node_modules/typescript/bin/tsc"))
}
