//! A periodic limit, shared by gateways with very different load.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{
    three_gateways,
    trace::{Trace, Traffic},
};
use crate::harness::{Fleet, SOON, monthly, wait_for};

const LIMIT: u64 = 10_000;
/// From the first refusal on, the rest that gateways hold is spent within this.
const SPENT_WITHIN: Duration = Duration::from_secs(10);

/// Gateways with twelve, three and one clients admit 10,000 together, not one more and not one less,
/// and leave nothing stranded at a gateway while others have demand.
#[tokio::test]
async fn skewed_load_is_limited_exactly_and_spends_the_last_token() -> Result<()> {
    let fleet = three_gateways().await?;
    let trace = spend(&fleet, &[12, 3, 1], LIMIT).await?;
    let first_refused = trace.of(429).next().context("none was refused")?.answered;
    let last_admitted = trace.of(200).last().context("none was admitted")?.answered;
    let spent_after = last_admitted.saturating_duration_since(first_refused);
    ensure!(spent_after <= SPENT_WITHIN, "the last token was spent after {spent_after:?}");
    fleet.ledger_reaches("acme", LIMIT).await?;
    ensure!(fleet.stack.upstream.requests() == LIMIT);
    Ok(())
}

/// So many clients at each gateway spend a limit of `acme`, and all of them together admit exactly what it
/// holds.
pub(super) async fn spend(fleet: &Fleet, clients: &[usize], limit: u64) -> Result<Trace> {
    fleet.tenant("acme", &[monthly(limit)], &[]).await?;
    let traffic = Traffic::start(fleet, "acme", clients, Duration::ZERO)?;
    let wanted = usize::try_from(limit)?;
    wait_for("the last token", SOON * 2, async || {
        ensure!(traffic.count(200) >= wanted, "{} are admitted", traffic.count(200));
        Ok(Some(()))
    })
    .await?;
    // Long enough to see one too many.
    let refused = traffic.count(429);
    wait_for("more refusals", SOON, async || {
        Ok((traffic.count(429) >= refused + 1_000).then_some(()))
    })
    .await?;
    let trace = traffic.stop().await?;
    trace.only_admits_and_limits()?;
    ensure!(trace.admitted() == limit, "{} of {limit} are admitted", trace.admitted());
    Ok(trace)
}
