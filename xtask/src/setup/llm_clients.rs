//! The clients that OpenAI and Anthropic publish for Python, as applications have them.

use std::path::PathBuf;

use anyhow::Result;

use super::{cache, python};
use crate::progress::Step;

const OPENAI: &str = "3.54.0";
const ANTHROPIC: &str = "2.12.0";

/// A Python that has them.
pub(super) fn provide(step: &Step) -> Result<PathBuf> {
    let name = format!("llm-clients-{OPENAI}-{ANTHROPIC}");
    let entry = cache::entry(&name, step, |new| {
        let packages = [format!("openai=={OPENAI}"), format!("anthropic=={ANTHROPIC}")];
        python::venv(&new.join("venv"), &packages.each_ref().map(String::as_str), step)
    })?;
    Ok(entry.join("venv/bin/python"))
}
