//! The folder for what was fetched: `$XDG_CACHE_HOME/weir`, else `~/.cache/weir`.
//!
//! An entry is complete or absent: it is made in a folder beside its place and renamed into it,
//! and a lock lets one process make it while others wait for the result.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::progress::Step;

/// The folder of this entry; `make` fills a new folder when it is absent.
pub(super) fn entry(
    name: &str,
    step: &Step,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    entry_in(&folder()?, name, step, make)
}

fn entry_in(
    cache: &Path,
    name: &str,
    step: &Step,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let place = cache.join(name);
    if place.is_dir() {
        return Ok(place);
    }
    fs::create_dir_all(cache).with_context(|| {
        format!(
            "can't create {}; set XDG_CACHE_HOME to a folder that can be written",
            cache.display()
        )
    })?;
    let lock = File::create(cache.join(format!("{name}.lock")))?;
    if lock.try_lock().is_err() {
        step.says("another run is fetching it, waiting");
        lock.lock().context("can't lock the cache folder")?;
    }
    if !place.is_dir() {
        let new = tempfile::Builder::new().prefix(&format!("{name}.new-")).tempdir_in(cache)?;
        make(new.path())?;
        fs::rename(new.keep(), &place)?;
    }
    Ok(place)
}

fn folder() -> Result<PathBuf> {
    let chosen = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = match chosen {
        Some(cache) => cache,
        None => {
            PathBuf::from(env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?)
                .join(".cache")
        }
    };
    Ok(cache.join("weir"))
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        thread,
    };

    use anyhow::bail;

    use super::*;

    #[test]
    fn a_failed_entry_is_absent_and_is_made_again() -> Result<()> {
        let cache = tempfile::tempdir()?;
        let step = Step::start("test");
        let failed = entry_in(cache.path(), "tool", &step, |new| {
            fs::write(new.join("half"), "")?;
            bail!("the network went away")
        });
        assert!(failed.is_err() && !cache.path().join("tool").exists());
        let made =
            entry_in(cache.path(), "tool", &step, |new| Ok(fs::write(new.join("whole"), "")?))?;
        assert!(made.join("whole").is_file() && !made.join("half").exists());
        Ok(())
    }

    #[test]
    fn two_runs_at_once_make_it_once() -> Result<()> {
        let cache = tempfile::tempdir()?;
        let made = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    entry_in(cache.path(), "tool", &Step::start("test"), |new| {
                        made.fetch_add(1, Ordering::SeqCst);
                        Ok(fs::write(new.join("whole"), "")?)
                    })
                });
            }
        });
        assert_eq!(made.load(Ordering::SeqCst), 1);
        Ok(())
    }
}
