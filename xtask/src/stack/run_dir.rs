//! The folder of one run: configurations, logs and data; kept when something went wrong.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use anyhow::{Context, Result};

use crate::workspace;

pub(super) struct RunDir {
    path: PathBuf,
    kept: AtomicBool,
}

impl RunDir {
    /// `.weir/<name>-<process>-<count>` in the workspace.
    pub(super) fn create(name: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = format!("{name}-{}-{count}", std::process::id());
        let path = workspace().join(".weir").join(folder);
        fs::create_dir_all(&path).with_context(|| format!("can't create {}", path.display()))?;
        Ok(Self { path, kept: AtomicBool::new(false) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it in place, for its logs.
    pub(super) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if std::thread::panicking() || self.kept.load(Ordering::Relaxed) {
            eprintln!("logs are kept in {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
