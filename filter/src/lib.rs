//! Weir's filter for Envoy, as a wasm module and as a native one: admits each request against its tenant's lease.
//!
//! | module | subject |
//! |---|---|
//! | `wasm`, `native` | Envoy's callbacks: the rim |
//! | [`host`], [`http_call`] | what is asked of Envoy |
//! | [`streams`] | what becomes of a request |
//! | [`config`] | the plugin configuration |
//! | [`worker`] | one VM: decides over requests, does the rest on its tick |
//! | [`tenant`], [`tenants`] | what a worker knows: slices, counts, who waits; strangers |
//! | [`waiters`] | requests that are paused until there is a lease |
//! | [`rating`] | what a request costs, by the configuration or a policy |
//! | [`slot`] | the gateway's lease in shared data, drawn on by all workers |
//! | [`llm`] | calls of language models: reserved by their body, settled by their answer |
//! | [`lease_calls`], [`sweep`] | leases: asked for, renewed, given back |
//! | [`usage`], [`usage_calls`] | usage: counted, frozen, sent until acknowledged |
//! | [`places`] | who stands where among the gateway's workers, and who is gone |
//! | [`refresher`] | the worker that hears of changes and posts what others left |
//! | [`outage`] | the outage contract: what passes while no lease can be had |
//! | [`ending`] | how a worker ends whose configuration was replaced |
//! | [`refusal`] | what a refused client is told |
//! | [`stats`] | counters |
//!
//! Decisions are plain functions ([`slot`], [`tenant`], [`tenants`]) with native tests; what crosses
//! the VM's boundary stands in the other modules and is tested in a real Envoy.

pub mod config;
pub mod ending;
pub mod host;
pub mod http_call;
pub mod lease_calls;
pub mod llm;
#[cfg(feature = "native")]
mod native;
pub mod outage;
pub mod places;
pub mod rating;
pub mod refresher;
pub mod refusal;
pub mod slot;
pub mod stats;
pub mod streams;
pub mod sweep;
pub mod tenant;
pub mod tenants;
#[cfg(feature = "trap")]
pub mod trap;
pub mod usage;
pub mod usage_calls;
pub mod waiters;
#[cfg(not(feature = "native"))]
pub mod wasm;
pub mod worker;
