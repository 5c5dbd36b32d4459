//! One line per step on standard error: a spinner on a terminal, plain lines elsewhere.
//!
//! Standard output belongs to the result, such as the JSON line of the demo.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

/// A step that is under way.
pub struct Step {
    name: String,
    spinner: Option<ProgressBar>,
    started: Instant,
}

impl Step {
    pub fn start(name: impl Into<String>) -> Self {
        let name = name.into();
        let spinner = stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg} {elapsed:.dim}") {
                spinner.set_style(style);
            }
            spinner.enable_steady_tick(Duration::from_millis(120));
            spinner.set_message(name.clone());
            spinner
        });
        Self { name, spinner, started: Instant::now() }
    }

    /// What it is busy with, such as a download; a line of its own where there is no terminal.
    pub fn says(&self, what: &str) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(format!("{}: {what}", self.name)),
            None => eprintln!("  … {}: {what}", self.name),
        }
    }

    /// What it is at right now, on a terminal only.
    pub fn shows(&self, what: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(format!("{}: {what}", self.name));
        }
    }

    pub fn done(self, how: &str) {
        let took = self.started.elapsed().as_secs_f32();
        let took = if took < 1.0 { String::new() } else { format!(" ({took:.1} s)") };
        self.end(&format!("  ✓ {}: {how}{took}", self.name));
    }

    fn end(&self, line: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
        eprintln!("{line}");
    }
}

/// Runs one step; `work` returns its result and how it ended, in a few words.
pub fn step<T>(name: &str, work: impl FnOnce(&Step) -> Result<(T, String)>) -> Result<T> {
    let step = Step::start(name);
    match work(&step) {
        Ok((value, how)) => {
            step.done(&how);
            Ok(value)
        }
        Err(error) => {
            step.end(&format!("  ✗ {name}"));
            Err(error).with_context(|| name.to_owned())
        }
    }
}
