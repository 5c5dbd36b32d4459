//! What calls of language models say about themselves: the request's model, output bound and prompt,
//! and the usage that the upstream reports with its answer. Only the bytes of bodies are read here.
//!
//! | module | subject |
//! |---|---|
//! | [`request`] | what a request body says |
//! | [`include_usage`] | a body that asks an OpenAI stream for its usage |
//! | [`response`] | what an answer reports: JSON or server-sent events, in pieces of any size |
//! | [`usage`] | input, cached and output tokens, and how each API's numbers become them |
//! | [`estimate`] | tokens of a text that nobody has counted |
//!
//! Bodies come from strangers: nothing here recurses, and nothing panics, whatever the bytes. What a
//! reader of an answer holds does not grow with the answer.

// The filter reads bodies inside its VM, which a panic would end.
#![cfg_attr(
    not(test),
    deny(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)
)]

mod document;
pub mod estimate;
pub mod include_usage;
mod json;
mod prompt;
pub mod request;
pub mod response;
mod short;
mod sse;
#[cfg(test)]
mod tests;
pub mod usage;

/// The longest name of a model, in bytes.
pub const MAX_MODEL_BYTES: usize = 256;
