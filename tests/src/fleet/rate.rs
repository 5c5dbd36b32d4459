//! A continuous limit, shared by gateways.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{
    three_gateways,
    trace::{Trace, Traffic},
};
use crate::harness::{SOON, continuous, wait_for};

const CAPACITY: u64 = 400;
const PER_SECOND: u64 = 200;
const SPAN_MS: u64 = 8_000;

/// With more demand than the rate gives, three gateways never admit more than the law allows in any
/// span. Once the burst is spent, they use 99 % of the rate at least; before, a bucket that is still
/// full to clients that have just begun loses less than a second of it.
#[tokio::test]
async fn the_rate_is_kept_and_used() -> Result<()> {
    let fleet = three_gateways().await?;
    let limit = continuous("rate", "tokens", CAPACITY, PER_SECOND, 1_000);
    fleet.tenant("acme", &[limit], &[]).await?;
    let ends = Instant::now() + Duration::from_millis(SPAN_MS + 500);
    let traffic = Traffic::start(&fleet, "acme", &[6, 6, 6], Duration::from_millis(5))?;
    wait_for("the end of the span", SOON, async || Ok((Instant::now() >= ends).then_some(())))
        .await?;
    let trace = traffic.stop().await?;

    trace.only_admits_and_limits()?;
    trace.keeps_the_law(CAPACITY, PER_SECOND)?;
    let lost_at_first = unused(&trace, SPAN_MS / 2)?;
    let lost = unused(&trace, SPAN_MS)?;
    ensure!(lost_at_first <= PER_SECOND, "{lost_at_first} are lost before the burst is spent");
    let given = PER_SECOND * (SPAN_MS / 2) / 1_000;
    ensure!(
        lost.saturating_sub(lost_at_first) * 100 <= given,
        "of {given}, {lost} - {lost_at_first} are lost"
    );
    fleet.ledger_reaches("acme", trace.admitted()).await
}

/// How far the admissions stay behind the law, from the first one on, in the second that ends then.
/// What is on its way comes a moment later and what is lost never does, so the least counts.
fn unused(trace: &Trace, until_ms: u64) -> Result<u64> {
    let first = trace.of(200).next().context("none is admitted")?.answered;
    let behind = trace.of(200).zip(1u64..).filter_map(|(seen, admitted)| {
        let at_ms = u64::try_from((seen.answered - first).as_millis()).ok()?;
        let law = CAPACITY + PER_SECOND * at_ms / 1_000;
        (at_ms + 1_000 >= until_ms && at_ms < until_ms).then_some(law.saturating_sub(admitted))
    });
    behind.min().context("none is admitted in this second")
}
