//! The clients that OpenAI and Anthropic publish for Python, as callers: `tests/clients/llm.py`.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Result, ensure};
use serde::Deserialize;
use tokio::{process::Command, sync::OnceCell};
use xtask::{setup, workspace};

use super::books::Used;
use crate::harness::Fleet;

/// What the caller of one call saw.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Seen {
    pub(super) id: String,
    pub(super) tenant: String,
    pub(super) stream: bool,
    /// 0 when there was no answer.
    pub(super) status: u16,
    /// What the answer says that it used, in Weir's meters.
    pub(super) usage: Option<Meters>,
    pub(super) text_bytes: u64,
    /// It gave the call up.
    pub(super) left: bool,
    /// What the client raised.
    pub(super) error: Option<String>,
    /// How often the client tried again by itself.
    pub(super) retries: u32,
    /// Each refusal of Weir that was waited for: its reason, and its `Retry-After`.
    pub(super) refused: Vec<(String, Option<String>)>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Meters {
    input: u64,
    cached: u64,
    output: u64,
}

impl From<Meters> for Used {
    fn from(meters: Meters) -> Self {
        Self::new(meters.input, meters.cached, meters.output)
    }
}

/// Runs it through the first gateway, with these arguments, to its end.
pub(super) async fn call(fleet: &Fleet, arguments: &[&str]) -> Result<Vec<Seen>> {
    let mut command = Command::new(python().await?);
    command.arg(workspace().join("tests/clients/llm.py"));
    command.args(["--url", &fleet.stack.gateways[0].url()]).args(arguments);
    // A proxy of the machine's is none of its business.
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]
    {
        command.env_remove(name);
    }
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "llm.py ended with {}: {said}", output.status);
    let lines = std::str::from_utf8(&output.stdout)?.lines();
    lines.map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Fetched once per test binary, when the first test needs it.
async fn python() -> Result<&'static PathBuf> {
    static PYTHON: OnceCell<PathBuf> = OnceCell::const_new();
    PYTHON
        .get_or_try_init(|| async { tokio::task::spawn_blocking(setup::llm_clients).await? })
        .await
}
