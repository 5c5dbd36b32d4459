//! The whole path once.

use anyhow::Result;

use crate::harness::{Fleet, monthly, per_unit};

/// A tenant's request passes Envoy, reaches the upstream, and stands in the ledger.
#[tokio::test]
async fn a_request_is_admitted_and_reaches_the_ledger() -> Result<()> {
    let fleet = Fleet::start().await?;
    fleet.tenant("acme", &[monthly(100)], &[per_unit("0.0001")]).await?;

    let answer = fleet.call("acme", "/orders").await?;

    assert_eq!((answer.status, answer.body.as_str()), (200, "ok /orders\n"));
    assert_eq!(fleet.stack.upstream.requests(), 1);
    fleet.ledger_reaches("acme", 1).await
}
