//! A process that a stack runs: its log in a file, killed on drop, restarted with the same command.

use std::{
    fs::OpenOptions,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::{reaper, wall_clock::WallClock};
use crate::command::tail_of;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);
/// How long a process may take to follow its stop signal.
const STOP_WITHIN: Duration = Duration::from_secs(10);

pub(super) struct Process {
    name: String,
    log: PathBuf,
    /// What ends it without leaving anything behind.
    stop: Signal,
    command: Box<dyn Fn() -> Command + Send + Sync>,
    child: Mutex<Option<Child>>,
    clock: Option<WallClock>,
}

impl Process {
    pub(super) fn new(
        name: impl Into<String>,
        log: PathBuf,
        stop: Signal,
        command: impl Fn() -> Command + Send + Sync + 'static,
    ) -> Self {
        let child = Mutex::new(None);
        Self { name: name.into(), log, stop, command: Box::new(command), child, clock: None }
    }

    /// Runs it by this wall clock instead of the machine's.
    pub(super) fn by(mut self, clock: Option<WallClock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets its wall clock to so many seconds ahead of the machine's.
    pub(super) fn set_clock(&self, ahead_s: i64) -> Result<()> {
        let clock = self.clock.as_ref();
        clock.with_context(|| format!("{} has no wall clock of its own", self.name))?.set(ahead_s)
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// `None` when it does not run.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// In a process group of its own: Ctrl-C on the terminal reaches us alone, and we end it.
    pub(super) fn start(&self) -> Result<()> {
        let mut child = self.child();
        if child.is_some() {
            bail!("{} runs already", self.name);
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = (self.command)();
        if let Some(clock) = &self.clock {
            clock.give_to(&mut command);
        }
        let spawned = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("could not start {}", self.name))?;
        reaper::started(spawned.id(), self.stop)?;
        *child = Some(spawned);
        Ok(())
    }

    /// Starts it and waits until `ready` says so.
    pub(super) async fn start_ready(
        &self,
        within: Duration,
        ready: impl AsyncFn() -> bool,
    ) -> Result<()> {
        self.start()?;
        let deadline = Instant::now() + within;
        loop {
            if ready().await {
                return Ok(());
            }
            if let Some(status) = self.ended()? {
                bail!("{} ended with {status} before it was ready; {}", self.name, self.log_end());
            }
            if Instant::now() > deadline {
                bail!("{} was not ready within {within:?}; {}", self.name, self.log_end());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Like `kill -9`.
    pub(super) fn kill(&self) {
        self.end(Signal::SIGKILL);
    }

    /// Sends this signal and does not wait.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(child) = self.child().as_ref() {
            // An error says that it has ended already.
            let _ = killpg(Pid::from_raw(child.id().cast_signed()), signal);
        }
    }

    /// Asks it to end with this signal and waits for it.
    pub(super) fn end(&self, signal: Signal) {
        let Some(mut child) = self.child().take() else { return };
        let id = child.id();
        let group = Pid::from_raw(id.cast_signed());
        // An error says that it has ended already.
        let _ = killpg(group, signal);
        let deadline = Instant::now() + STOP_WITHIN;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = killpg(group, Signal::SIGKILL);
                let _ = child.wait();
                break;
            }
            thread::sleep(Duration::from_millis(2));
        }
        reaper::ended(id);
    }

    /// The exit status, once it has ended by itself.
    fn ended(&self) -> Result<Option<String>> {
        let mut child = self.child();
        let Some(status) = child.as_mut().map(Child::try_wait).transpose()?.flatten() else {
            return Ok(None);
        };
        if let Some(child) = child.take() {
            reaper::ended(child.id());
        }
        Ok(Some(status.to_string()))
    }

    /// What it has in memory, in bytes.
    pub(super) fn resident_bytes(&self) -> Result<u64> {
        let id = self.child().as_ref().map(Child::id);
        let id = id.with_context(|| format!("{} does not run", self.name))?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no VmRSS")?;
        Ok(kib.parse::<u64>()? * 1_024)
    }

    fn log_end(&self) -> String {
        format!("the end of its log {}:\n{}", self.log.display(), tail_of(&self.log))
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(self.stop);
    }
}

/// Polls until the condition yields a value; the error names the condition.
pub async fn wait_for<T>(
    what: &str,
    within: Duration,
    condition: impl AsyncFn() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        let last = condition().await;
        if let Ok(Some(value)) = last {
            return Ok(value);
        }
        if Instant::now() > deadline {
            last.with_context(|| format!("waited {within:?} for {what}"))?;
            bail!("waited {within:?} for {what}, in vain");
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    fn process(folder: &Path, script: &'static str) -> Process {
        let log = folder.join("log");
        Process::new("the process", log, Signal::SIGKILL, move || {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        })
    }

    #[tokio::test]
    async fn a_process_that_ends_before_it_is_ready_shows_its_log() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let process = process(folder.path(), "echo this is why; exit 7");
        let error = process.start_ready(WITHIN, async || false).await.expect_err("it ended");
        let text = error.to_string();
        assert!(text.contains("exit status: 7") && text.contains("this is why"), "{text}");
        Ok(())
    }

    #[tokio::test]
    async fn what_a_process_has_started_ends_with_it() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let process = process(folder.path(), "sleep 1000 & echo $!; wait");
        let log = process.log().to_owned();
        let child = async || std::fs::read_to_string(&log).is_ok_and(|text| text.ends_with('\n'));
        process.start_ready(WITHIN, child).await?;
        let child = std::fs::read_to_string(&log)?;
        let proc = Path::new("/proc").join(child.trim()).join("cmdline");
        drop(process);
        // A zombie has no command line.
        wait_for("the end of the child", WITHIN, async || {
            Ok(std::fs::read(&proc).unwrap_or_default().is_empty().then_some(()))
        })
        .await
    }

    #[tokio::test]
    async fn a_condition_that_never_holds_is_named() {
        let error = wait_for("the moon", Duration::ZERO, async || Ok(None::<()>)).await;
        assert!(error.expect_err("in vain").to_string().contains("the moon"));
    }
}
