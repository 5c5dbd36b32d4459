//! What a developer runs, as a library: `cargo xtask …` and the end-to-end tests share it.
//!
//! | module | subject |
//! |---|---|
//! | [`setup`] | provides the tools that are missing: wasm targets, Envoy, Redis, Postgres |
//! | [`build`] | builds the filter and the control plane |
//! | [`stack`] | starts private Redis, Postgres, control planes, upstream and Envoys; stops them on drop |
//! | [`bench`] | measures what a decision costs, beside what else there is |
//! | [`demo`] | shows all of it at work |
//! | [`load`] | drives HTTP traffic and counts the answers |
//! | [`sqlx`] | keeps `.sqlx` up to date |
//! | [`test`] | runs every check |
//! | [`soak`] | runs the test of random faults for longer |
//! | [`progress`] | one line per step, on standard error |
//! | [`command`] | runs a program and says what went wrong, with the end of its output |

mod admin;
pub mod bench;
pub mod build;
pub mod command;
pub mod demo;
pub mod load;
pub mod progress;
pub mod setup;
pub mod soak;
pub mod sqlx;
pub mod stack;
pub mod test;

use std::path::PathBuf;

/// The folder of the workspace.
pub fn workspace() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(PathBuf::from).unwrap_or(manifest)
}
