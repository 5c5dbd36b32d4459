//! `cargo xtask sqlx`: `.sqlx`, the description of each checked query, so that a build needs no
//! database.
//!
//! sqlx's macros write it while they compile against a live database (`DATABASE_URL`) when
//! `SQLX_OFFLINE_DIR` names a folder. We give them a private Postgres with the migrations applied.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    command::{cargo, run_watched},
    progress::step,
    setup,
    stack::Postgres,
    workspace,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Brings `.sqlx` up to date.
    Write,
    /// Fails when it is not.
    Check,
}

pub fn update(mode: Mode) -> Result<()> {
    let described = tempfile::tempdir()?;
    describe_queries(described.path())?;
    let new = queries_in(described.path())?;
    ensure!(
        !new.is_empty(),
        "compiling the control plane described no query; its macros may have changed how they do it"
    );
    let folder = workspace().join(".sqlx");
    let old = if folder.is_dir() { queries_in(&folder)? } else { BTreeMap::new() };
    match mode {
        Mode::Check if new == old => Ok(()),
        Mode::Check => {
            bail!("{}; bring it up to date with `cargo xtask sqlx`", difference(&old, &new))
        }
        Mode::Write => {
            fs::create_dir_all(&folder)?;
            for name in old.keys().filter(|name| !new.contains_key(*name)) {
                fs::remove_file(folder.join(name))?;
            }
            for (name, text) in &new {
                fs::write(folder.join(name), text)?;
            }
            eprintln!("{}", difference(&old, &new));
            Ok(())
        }
    }
}

/// Compiles the control plane, its tests too, against a private Postgres.
fn describe_queries(into: &Path) -> Result<()> {
    let bin = setup::postgres_bin()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let database = runtime.block_on(async {
        let database = Postgres::start(&bin).await?.create_database().await?;
        for migration in migrations()? {
            database.apply(&migration).await?;
        }
        anyhow::Ok(database)
    })?;
    step("queries of the control plane", |step| {
        // The macros expand when the crate compiles, and cargo goes by the time of its files.
        File::open(workspace().join("control-plane/src/lib.rs"))?.set_modified(SystemTime::now())?;
        let mut check = cargo();
        check.args(["check", "--package=weir", "--all-targets"]);
        check.env("DATABASE_URL", database.url()).env("SQLX_OFFLINE", "false");
        check.env("SQLX_OFFLINE_DIR", into);
        run_watched(&mut check, |line| step.shows(line))?;
        Ok(((), "described".to_owned()))
    })
}

fn migrations() -> Result<Vec<PathBuf>> {
    let folder = workspace().join("control-plane/migrations");
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        files.push(entry?.path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    Ok(files)
}

/// File name → text.
fn queries_in(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut queries = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("query-") {
            queries.insert(name, fs::read_to_string(entry.path())?);
        }
    }
    Ok(queries)
}

fn difference(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> String {
    let added = new.keys().filter(|name| !old.contains_key(*name)).count();
    let removed = old.keys().filter(|name| !new.contains_key(*name)).count();
    let changed =
        new.iter().filter(|(name, text)| old.get(*name).is_some_and(|old| old != *text)).count();
    format!(
        ".sqlx: of {} queries {added} were missing and {changed} differed; {removed} were stale",
        new.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_counts_missing_stale_and_changed_queries() {
        let folder = |entries: &[(&str, &str)]| {
            entries.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
        };
        let shown = difference(
            &folder(&[("a", "1"), ("b", "1")]),
            &folder(&[("b", "2"), ("c", "1"), ("d", "1")]),
        );
        assert_eq!(shown, ".sqlx: of 3 queries 2 were missing and 1 differed; 1 were stale");
    }
}
