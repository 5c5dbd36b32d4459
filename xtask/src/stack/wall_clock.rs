//! A wall clock of its own for a process, which can jump while the process runs.
//!
//! A small library does it that is loaded before the C library (`wall_clock.c`), built with the
//! compiler that Rust links with. Redis does not start with libfaketime: its allocator asks for the
//! time while libfaketime allocates.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{command::run, workspace};

/// The wall clock of the host that a process believes to be on.
#[derive(Clone)]
pub(super) struct WallClock {
    library: PathBuf,
    /// How many ms it is ahead of this machine's.
    file: PathBuf,
}

impl WallClock {
    /// A clock that is right, for the process of this name.
    pub(super) fn create(folder: &Path, name: &str) -> Result<Self> {
        let library = folder.join("wall_clock.so");
        if !library.exists() {
            let source = workspace().join("xtask/src/stack/wall_clock.c");
            run(Command::new("cc")
                .args(["-shared", "-fPIC", "-O2", "-o"])
                .arg(&library)
                .arg(source))?;
        }
        let file = folder.join(format!("{name}.clock"));
        fs::write(&file, 0_i64.to_ne_bytes())?;
        Ok(Self { library, file })
    }

    /// Has a process run by this clock.
    pub(super) fn give_to(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("WALL_CLOCK_FILE", &self.file);
    }

    /// Sets it to so many seconds ahead of this machine's; negative for behind.
    pub(super) fn set(&self, ahead_s: i64) -> Result<()> {
        let file = File::options().write(true).open(&self.file)?;
        file.write_all_at(&(ahead_s * 1_000).to_ne_bytes(), 0)
            .with_context(|| self.file.display().to_string())
    }
}
