//! Gateways with the filter in either form, as a wasm module and as a native one.

use anyhow::{Result, ensure};
use serde_json::json;

use super::exact::spend;
use crate::harness::{Fleet, other_filter};

const LIMIT: u64 = 5_000;

/// Both admit of one limit, together exactly as much as it holds, and all of it is in the ledger.
#[tokio::test]
async fn both_forms_share_a_limit_exactly() -> Result<()> {
    let mut fleet = Fleet::start().await?;
    fleet.stack.use_filter(&other_filter().await?);
    fleet.stack.add_gateway(&json!({ "max_wait_ms": 5_000 })).await?;
    let trace = spend(&fleet, &[4, 4], LIMIT).await?;
    for gateway in 0..2 {
        let admitted = trace.of(200).filter(|seen| seen.gateway == gateway).count();
        ensure!(admitted > 0, "gateway {gateway} has admitted nothing");
    }
    fleet.ledger_reaches("acme", LIMIT).await
}
