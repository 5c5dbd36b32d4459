//! Installs system packages where that is allowed: as root, or with a sudo that asks for no password.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{
    command::{find_in_path, run},
    progress::Step,
};

/// Installs the packages, or says what to install by hand.
pub(super) fn install(packages: &[&str], step: &Step) -> Result<()> {
    let list = packages.join(" ");
    if find_in_path("apt-get").is_none() {
        bail!("it is not installed, and this system has no apt-get: install {list} and try again");
    }
    let root = nix::unistd::geteuid().is_root();
    if !root && run(Command::new("sudo").args(["-n", "true"])).is_err() {
        bail!("it is not installed; run `sudo apt-get install {list}` and try again");
    }
    step.says(&format!("installing {list} with apt"));
    apt_get(root, &["update", "-q"])
        .and_then(|()| {
            apt_get(root, &[&["install", "-q", "-y", "--no-install-recommends"], packages].concat())
        })
        .with_context(|| format!("run `apt-get install {list}` as root and try again"))
}

fn apt_get(root: bool, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(if root { "env" } else { "sudo" });
    if !root {
        command.args(["-n", "env"]);
    }
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=300"]);
    run(command.args(arguments)).map(drop)
}
