//! Calls of language models: what a call may take at most is reserved before it passes, and settled by
//! what the upstream says it took.
//!
//! | module | subject |
//! |---|---|
//! | [`config`] | the `llm` part of the plugin configuration |
//! | [`call`] | one call, from its body to its settlement |
//! | [`reserve`], [`settle`] | what a worker does about it |

pub mod call;
pub mod config;
pub mod reserve;
pub mod settle;
