//! The folder of one run: configurations and logs; kept until the next run when something went wrong.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use anyhow::{Context, Result};
use nix::{sys::signal::kill, unistd::Pid};

use crate::workspace;

pub(super) struct RunDir {
    path: PathBuf,
    kept: AtomicBool,
}

impl RunDir {
    /// `.weir/<name>-<process>-<count>` in the workspace.
    pub(super) fn create(name: &str) -> Result<Self> {
        Self::create_in(&workspace().join(".weir"), name)
    }

    fn create_in(parent: &Path, name: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{name}-{}-{count}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("can't create {}", path.display()))?;
        remove_of_ended_processes(parent, name);
        Ok(Self { path, kept: AtomicBool::new(false) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it in place until the next run.
    pub(super) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if std::thread::panicking() || self.kept.load(Ordering::Relaxed) {
            eprintln!("logs are in {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// What an earlier run kept has been read, or never will be.
fn remove_of_ended_processes(parent: &Path, name: &str) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let folder = entry.file_name().to_string_lossy().into_owned();
        let process = folder.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
        let process = process.and_then(|rest| rest.split('-').next()?.parse().ok());
        if process.is_some_and(|process| kill(Pid::from_raw(process), None).is_err()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_folders_go_with_the_next_run_of_that_name() -> Result<()> {
        let parent = tempfile::tempdir()?;
        // Above the highest number that a process can have.
        let (earlier, other) =
            (parent.path().join("demo-99999999-1"), parent.path().join("test-99999999-1"));
        fs::create_dir(&earlier)?;
        fs::create_dir(&other)?;
        let kept = RunDir::create_in(parent.path(), "demo")?;
        kept.keep();
        let path = kept.path().to_owned();
        drop(kept);
        let _next = RunDir::create_in(parent.path(), "demo")?;
        assert!(path.is_dir() && other.is_dir() && !earlier.exists());
        Ok(())
    }
}
