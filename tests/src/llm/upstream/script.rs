//! How the stand-in answers a call: what the caller says in the header `x-llm-script`, as JSON.

use axum::http::HeaderMap;
use serde::Deserialize;

/// Without a word it answers with one token, in whole events, at once.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Script {
    /// Names the call in the stand-in's books.
    pub(crate) id: String,
    /// Tokens of all its answers together; no more than the call allows, unless `beyond`.
    pub(crate) output: u64,
    /// Takes no notice of what the call allows.
    pub(crate) beyond: bool,
    /// Tokens that the prompt is said to have, whatever it has.
    pub(crate) prompt: Option<u64>,
    /// How many of the prompt's tokens came from a cache, and how many were written to one.
    pub(crate) cached: u64,
    pub(crate) written: u64,
    /// Another status than 200, with an error.
    pub(crate) status: Option<u16>,
    /// Another content type than that of the answer. An error then has no JSON.
    pub(crate) content_type: Option<String>,
    /// It never says what was used.
    pub(crate) silent: bool,
    pub(crate) gzip: bool,
    /// Lines of streams end with a carriage return, too.
    pub(crate) crlf: bool,
    /// The body comes in pieces that are cut anywhere, by this seed; in whole events without one.
    pub(crate) cuts: Option<u64>,
    /// How long it waits before it answers at all, and before each piece at most.
    pub(crate) wait_ms: u64,
    pub(crate) pause_ms: u64,
    /// After so many events and a half, it cuts the connection.
    pub(crate) break_after: Option<usize>,
    /// After so many events it says that it failed, and ends.
    pub(crate) fail_after: Option<usize>,
    /// After so many events it waits for [`super::LlmUpstream::release`].
    pub(crate) hold_after: Option<usize>,
}

impl Script {
    /// What is wrong with it, if it is.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, String> {
        let Some(script) = headers.get("x-llm-script") else { return Ok(Self::default()) };
        serde_json::from_slice(script.as_bytes()).map_err(|error| error.to_string())
    }
}
