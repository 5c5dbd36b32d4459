//! The law under many gateways and under faults: three Envoys of two workers each, and clients that
//! remember when they asked and were answered.

mod burst;
mod busy;
mod changes;
pub(crate) mod clocks;
mod crash;
mod exact;
mod faults;
mod forms;
mod leftover;
mod network;
mod no_postgres;
mod periods;
mod rate;
mod replicas;
mod scarce;
mod soak;
mod span;
mod steady;
pub(crate) mod trace;
mod waiting;
mod weights;

use anyhow::Result;

use crate::harness::Fleet;

/// One control plane and three gateways.
async fn three_gateways() -> Result<Fleet> {
    Fleet::with(|stack| stack.gateways(3)).await
}
