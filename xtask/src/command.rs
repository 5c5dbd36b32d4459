//! Runs a program to its end and says what went wrong, with the end of its output.

use std::{
    env, fmt,
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// How much of a failed program's output an error shows.
const TAIL_LINES: usize = 25;

/// Runs it with its output held back; the error shows the end of the output.
pub fn run(command: &mut Command) -> Result<String> {
    let shown = Shown(command).to_string();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("could not start `{shown}`"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    bail!("`{shown}` ended with {}:\n{}", output.status, last_lines(&format!("{stdout}{stderr}")));
}

/// Like [`run`] for what reports on standard error, as cargo does: `watch` sees each line of it.
pub fn run_watched(command: &mut Command, mut watch: impl FnMut(&str)) -> Result<()> {
    let shown = Shown(command).to_string();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("could not start `{shown}`"))?;
    let mut report = String::new();
    for line in BufReader::new(child.stderr.take().context("piped")?).lines() {
        let line = line?;
        watch(line.trim());
        report.push_str(&line);
        report.push('\n');
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{shown}` ended with {status}:\n{}", last_lines(&report));
    }
    Ok(())
}

/// Runs it with its output shown as it comes.
pub fn run_shown(command: &mut Command) -> Result<()> {
    let shown = Shown(command).to_string();
    let status = command.status().with_context(|| format!("could not start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(())
}

/// A cargo that behaves as if called from a shell in the workspace.
///
/// Inside `cargo run` and `cargo test`, variables of the running package are set; build scripts
/// that watch them would run again at each change between inside and outside. And a `DATABASE_URL`
/// that happens to be set must not decide whether the control plane compiles.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::workspace());
    if env::var_os("SQLX_OFFLINE").is_none() {
        command.env("SQLX_OFFLINE", "true");
    }
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let of_a_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
        if of_a_package.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// The first program of this name in PATH.
pub fn find_in_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The end of a file, for an error; says so when the file can't be read.
pub fn tail_of(file: &Path) -> String {
    const TAIL_BYTES: u64 = 16 * 1024;
    let read = || -> std::io::Result<String> {
        let mut opened = File::open(file)?;
        let length = opened.metadata()?.len();
        opened.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        opened.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read()
        .map_or_else(|error| format!("(its log can't be read: {error})"), |text| last_lines(&text))
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// A command as one would type it.
struct Shown<'a>(&'a Command);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = Path::new(self.0.get_program());
        let cargo = program.file_name().is_some_and(|name| name == "cargo");
        let program = if cargo { Path::new("cargo") } else { program };
        write!(f, "{}", program.display())?;
        self.0.get_args().try_for_each(|argument| write!(f, " {}", argument.to_string_lossy()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_shows_the_end_of_its_output() {
        let error = run(Command::new("sh").args(["-c", "echo what; echo why >&2; exit 3"]))
            .expect_err("exit 3 is an error")
            .to_string();
        assert!(error.contains("sh -c") && error.contains("what\nwhy"), "{error}");
    }

    #[test]
    fn only_the_last_lines_are_shown() {
        let text: String = (0..100).map(|n| format!("{n}\n")).collect();
        let shown = last_lines(&text);
        assert!(shown.starts_with("75\n") && shown.ends_with("\n99"), "{shown}");
    }
}
