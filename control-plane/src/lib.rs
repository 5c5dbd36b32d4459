//! The control plane: feeds gateways with leases, stores the ledger, makes invoices.
//!
//! | module | subject |
//! |---|---|
//! | [`cli`] | the `weir` command |
//! | [`config`] | configuration from a file and the environment |
//! | [`app`] | what every handler shares |
//! | [`server`] | the router, and running it until it is told to stop |
//! | [`auth`] | bearer tokens and API keys |
//! | [`edge`] | what gateways call |
//! | [`lease`] | buckets in Redis, and the leases drawn from them |
//! | [`problem`], [`extract`] | errors as problem+json, and input that says what is wrong with it |
//! | [`database`] | Postgres: connecting and migrating |
//! | [`health`], [`telemetry`] | what operators look at |

pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod database;
pub mod edge;
pub mod extract;
pub mod health;
pub mod lease;
pub mod problem;
pub mod server;
pub mod telemetry;
