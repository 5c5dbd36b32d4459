//! Ends what we started when we end without doing so: killed, or as a test binary, whose statics
//! are never dropped.
//!
//! A small shell reads what we start and end from a pipe. When the pipe closes, because we are
//! gone, it stops what is left. (The kernel's parent-death signal goes by thread, not by process,
//! and needs unsafe code.)

use std::{
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{ChildStdin, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

/// Each line is `SIGNAL group`, `FOLDER path`, or `DONE` with one of these to be taken back.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
left=
while read -r line; do
    case $line in
        "DONE "*) left=$(printf '%s\n' "$left" | grep -vxF -- "${line#DONE }") ;;
        *) left=$(printf '%s\n%s' "$left" "$line") ;;
    esac
done
printf '%s\n' "$left" | while read -r what name; do
    case $what in SIG*) kill -s "${what#SIG}" -- "-$name" ;; esac
done
printf '%s\n' "$left" | while read -r what name; do
    case $what in
        SIG*)
            tries=0
            while kill -s 0 -- "-$name" && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
            kill -s KILL -- "-$name" ;;
    esac
done
printf '%s\n' "$left" | while read -r what name; do
    case $what in FOLDER) rm -rf -- "$name" ;; esac
done
"#;

pub(super) fn started(group: u32, stop: Signal) -> Result<()> {
    tell(&format!("{stop} {group}"))
}

/// The next process may get the same number, so this must be said.
pub(super) fn ended(group: u32) {
    for signal in [Signal::SIGKILL, Signal::SIGQUIT, Signal::SIGTERM] {
        let _ = tell(&format!("DONE {signal} {group}"));
    }
}

/// A folder to remove after all processes have ended.
pub(super) fn folder(path: &Path) -> Result<()> {
    tell(&format!("FOLDER {}", path.display()))
}

pub(super) fn folder_removed(path: &Path) {
    let _ = tell(&format!("DONE FOLDER {}", path.display()));
}

fn tell(line: &str) -> Result<()> {
    static PIPE: OnceLock<Mutex<Option<ChildStdin>>> = OnceLock::new();
    let mut pipe = PIPE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if pipe.is_none() {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("could not start sh")?;
        *pipe = shell.stdin.take();
    }
    let pipe = pipe.as_mut().context("the shell has no standard input")?;
    writeln!(pipe, "{line}").context("the shell that ends our processes is gone")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_the_pipe_closes_what_is_left_ends_with_time_to_clean_up() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let cleaned = folder.path().join("cleaned");
        // The signal goes to the whole group, so `sleep` may be gone by then, or not started yet.
        let clean_up = "trap 'sleep 0.3; touch cleaned; exit 0' TERM; touch up; sleep 60 & wait";
        let mut left = Command::new("sh")
            .args(["-c", clean_up])
            .current_dir(folder.path())
            .process_group(0)
            .spawn()?;
        while !folder.path().join("up").exists() {
            std::thread::yield_now();
        }
        let mut shell = Command::new("sh").args(["-c", SCRIPT]).stdin(Stdio::piped()).spawn()?;
        let mut pipe = shell.stdin.take().context("piped")?;
        // The number of a process that ended must not be used any more.
        writeln!(pipe, "SIGKILL {0}\nSIGTERM {0}\nDONE SIGKILL {0}", left.id())?;
        drop(pipe);
        let status = left.wait()?;
        assert!(status.success() && cleaned.exists(), "{status}");
        shell.wait()?;
        Ok(())
    }
}
