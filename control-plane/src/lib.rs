//! The control plane: feeds gateways with leases, stores the ledger, makes invoices.
//!
//! | module | subject |
//! |---|---|
//! | [`cli`] | the `weir` command |
//! | [`config`] | configuration from a file and the environment |
//! | [`app`] | what every handler shares |
//! | [`server`] | the router, and running it until it is told to stop |
//! | [`auth`] | bearer tokens and API keys |
//! | [`lease`] | buckets in Redis, and the leases drawn from them |
//! | [`admin`] | the admin API: plans, tenants, credentials |
//! | [`rating`] | rating policies: which there are, and which are active |
//! | [`opa`] | policies in the form of OPA's REST API |
//! | [`change`] | tells gateways which tenants changed |
//! | [`terms`] | which plan version prices a tenant's usage from when |
//! | [`plan_change`] | changes of plan that wait for the next billing period |
//! | [`invoice`] | closing billing periods and making their invoices |
//! | [`credit_balance`] | what is left of a tenant's credits |
//! | [`provider`], [`delivery`] | Stripe and Chargebee, and getting each invoice there once |
//! | [`reconciliation`] | whether ledger, invoices and providers agree |
//! | `webhook` | what they say afterwards |
//! | [`problem`], [`extract`] | errors as problem+json, and input that says what is wrong with it |
//! | [`edge`] | the edge API, for gateways |
//! | [`services`] | usage that services report, and tokens that they take without a gateway |
//! | [`ledger`] | stores what gateways admitted, once each |
//! | [`print`] | invoices for people: printable HTML, and PDF |
//! | [`portal`] | the page of a tenant |
//! | [`database`] | Postgres: connecting and migrating |
//! | [`health`], [`telemetry`] | what operators look at |

pub mod admin;
pub mod app;
pub mod auth;
pub mod change;
pub mod cli;
pub mod config;
pub mod credit_balance;
pub mod database;
pub mod delivery;
pub mod edge;
pub mod extract;
pub mod health;
pub mod invoice;
pub mod lease;
pub mod ledger;
pub mod opa;
pub mod plan_change;
pub mod portal;
pub mod print;
pub mod problem;
pub mod provider;
pub mod rating;
pub mod reconciliation;
pub mod server;
pub mod services;
pub mod telemetry;
pub mod terms;
mod webhook;
