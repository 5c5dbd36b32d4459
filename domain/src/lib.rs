//! Weir's rules, and nothing else: no IO, no clock, no async, no HTTP, no SQL. Time is an argument.
//!
//! The same code runs in the control plane (native) and in the filter (wasm32).
//!
//! | module | subject |
//! |---|---|
//! | [`id`] | ids of tenants, plans and limits |
//! | [`quantity`] | whole numbers of tokens and requests |
//! | [`limit`] | what a plan allows: token buckets and their periods |
//! | [`bucket`] | how a bucket refills and how much of it a lease gets |
//! | [`lease`] | what an ask for a lease does to buckets and to what gateways hold |
//! | [`price`], [`currency`] | what a plan charges |
//! | [`money`] | exact amounts in a currency's minor unit |
//! | [`plan`] | limits and prices together, checked |
//! | [`usage`] | what was admitted, and the batches it travels in |
//! | [`billing_period`] | what one invoice covers, in quarter hours of UTC |
//! | [`invoice`] | what a tenant owes for a billing period |
//! | [`protocol`] | the edge API between filter and control plane |
//! | [`llm`] | what calls of language models say they use |
//! | [`rate_limit_fields`] | the `RateLimit` and `RateLimit-Policy` response fields |

pub mod billing_period;
pub mod bucket;
pub mod currency;
pub mod id;
pub mod invoice;
pub mod lease;
pub mod limit;
pub mod llm;
pub mod money;
#[cfg(feature = "openapi")]
mod openapi;
pub mod plan;
pub mod price;
pub mod protocol;
pub mod quantity;
pub mod rate_limit_fields;
pub mod usage;
