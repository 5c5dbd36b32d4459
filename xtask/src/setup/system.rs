//! Programs of the system: from PATH, else with apt.
//!
//! A package may start a service of its own; nothing here talks to it. Stacks run private instances.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::apt;
use crate::{command::find_in_path, progress::Step};

pub(super) fn redis_server(step: &Step) -> Result<PathBuf> {
    provide(step, "redis-server", "redis-server", || find_in_path("redis-server"))
}

pub(super) fn node(step: &Step) -> Result<PathBuf> {
    provide(step, "node", "nodejs", || find_in_path("node"))
}

pub(super) fn postgres_bin(step: &Step) -> Result<PathBuf> {
    provide(step, "initdb", "postgresql", || {
        postgres_bin_in_path().or_else(newest_debian_postgres_bin)
    })
}

fn provide(
    step: &Step,
    program: &str,
    package: &str,
    find: impl Fn() -> Option<PathBuf>,
) -> Result<PathBuf> {
    if let Some(found) = find() {
        return Ok(found);
    }
    apt::install(&[package], step)?;
    find()
        .with_context(|| format!("the package {package} is installed, but {program} is not found"))
}

/// Where `initdb` really lies: PATH may have a link to it alone.
fn postgres_bin_in_path() -> Option<PathBuf> {
    let initdb = fs::canonicalize(find_in_path("initdb")?).ok()?;
    initdb.parent().filter(|bin| has_postgres(bin)).map(Path::to_path_buf)
}

/// Debian keeps the server's programs out of PATH, one folder per version.
fn newest_debian_postgres_bin() -> Option<PathBuf> {
    let entries = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let versions = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let bin = |version: &u32| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"));
    versions.filter(|version| has_postgres(&bin(version))).max().map(|version| bin(&version))
}

fn has_postgres(bin: &Path) -> bool {
    ["initdb", "postgres", "psql"].iter().all(|program| bin.join(program).is_file())
}
