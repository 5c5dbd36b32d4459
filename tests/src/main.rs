//! End-to-end tests on real parts: Envoy with the filter, the control plane, Redis, Postgres.
//!
//! One file per capability; [`harness`] says how to write one. `cargo xtask test` runs them after
//! building everything once; `cargo test -p weir-tests <name>` runs some, and builds what is missing.

mod admin_api;
mod admin_input;
mod billing_periods;
mod bounds;
mod closing;
mod configuration;
mod conservation;
mod corrections;
mod credit_notes;
mod credits;
mod cut_off;
mod delivery;
#[allow(dead_code, reason = "each test uses a part of it")]
mod fake;
mod fleet;
mod gateway;
mod grace;
#[allow(dead_code, reason = "each test uses a part of it")]
mod harness;
mod invoice_run;
mod invoices;
mod leases;
mod ledger;
mod line_usage;
mod llm;
mod outage;
mod overdue;
mod plan_changes;
mod policies;
mod portal;
mod pricing;
mod printing;
mod rating;
mod readme;
mod rebilling;
mod reconciliation;
mod repository;
mod scheduler;
mod services;
mod shipped_files;
mod smoke;
mod takeover;
mod time_zones;
mod usage;
