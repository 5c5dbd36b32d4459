//! Wall clocks that jump by an hour, forward and back, under load: that of Redis' host, of a control
//! plane's and of a gateway's.

use std::{
    ops::RangeInclusive,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::trace::{Trace, Traffic};
use crate::harness::{Fleet, SOON, continuous, monthly, periodic, wait_for};

const CAPACITY: u64 = 100;
const PER_SECOND: u64 = 50;
const HOURLY: u64 = 300;
pub(crate) const HOUR_S: i64 = 3_600;
/// How long a jumped clock stays where it is.
const SPAN: Duration = Duration::from_millis(3_500);

/// Whose clock jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Host {
    Redis,
    ControlPlane,
    Gateway,
}

pub(crate) fn set_clock(fleet: &Fleet, host: Host, ahead_s: i64) -> Result<()> {
    match host {
        Host::Redis => fleet.stack.redis.set_clock(ahead_s),
        Host::ControlPlane => fleet.stack.control_planes[0].set_clock(ahead_s),
        Host::Gateway => fleet.stack.gateways[0].set_clock(ahead_s),
    }
}

/// Waits until its host's clock shows that: by `TIME`, or by the date in an answer.
async fn is_set(fleet: &Fleet, host: Host, ahead_s: i64) -> Result<()> {
    wait_for("the clock to have jumped", SOON, async || {
        let of_day = match host {
            Host::Redis => {
                let time = fleet.stack.redis.command("TIME").await?;
                time.lines().nth(2).context("no time")?.parse::<i64>()?
            }
            // Its HTTP library keeps the date until the second after it.
            Host::ControlPlane if ahead_s <= 0 => return Ok(Some(())),
            Host::ControlPlane => date_s(&fleet.stack.control_planes[0].url()).await?,
            Host::Gateway => date_s(&fleet.stack.gateways[0].url()).await?,
        };
        let off_s = (of_day - i64::try_from(now_s()?)? - ahead_s).rem_euclid(24 * HOUR_S);
        Ok((off_s.min(24 * HOUR_S - off_s) < 5).then_some(()))
    })
    .await
}

/// The second of the day in the date header, such as `Sun, 22 Nov 2026 11:43:29 GMT`.
async fn date_s(url: &str) -> Result<i64> {
    let answer = reqwest::get(url).await?;
    let date = answer.headers().get("date").context("no date")?.to_str()?;
    let time = date.split(' ').nth(4).context("no time")?;
    time.split(':').try_fold(0, |sum, part| Ok(sum * 60 + part.parse::<i64>()?))
}

async fn pass(span: Duration) -> Result<()> {
    let ends = Instant::now() + span;
    wait_for("the time to pass", SOON, async || Ok((Instant::now() >= ends).then_some(()))).await
}

/// Seconds since 1970, by the clock that does not jump.
fn now_s() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

/// An hour ahead, right again, and an hour behind, with demand for more than the limits give. No
/// limit gives more for it, and none less: neither is time made up nor does it stand still. Usage
/// lies in the minutes in which it happened.
async fn survives_jumps_of(host: Host) -> Result<()> {
    let fleet = Fleet::with(|stack| stack.control_planes(2).gateways(3).own_wall_clocks()).await?;
    let rate = continuous("rate", "tokens", CAPACITY, PER_SECOND, 1_000);
    fleet.tenant("rate", &[rate], &[]).await?;
    fleet.tenant("hourly", &[periodic("hourly", "tokens", HOURLY, json!("hour"))], &[]).await?;
    fleet.tenant("wide", &[monthly(1_000_000)], &[]).await?;
    let began = now_s()?;
    let traffic =
        |tenant, pause| Traffic::start(&fleet, tenant, &[2; 3], Duration::from_millis(pause));
    let (rate, hourly, wide) = (traffic("rate", 10)?, traffic("hourly", 20)?, traffic("wide", 20)?);
    wait_for("the limits to be spent", SOON, async || {
        Ok((rate.count(429) > 0 && hourly.count(429) > 0).then_some(()))
    })
    .await?;
    let mut jumps = Vec::new();
    for ahead_s in [HOUR_S, 0, -HOUR_S] {
        set_clock(&fleet, host, ahead_s)?;
        jumps.push(Instant::now());
        is_set(&fleet, host, ahead_s).await?;
        pass(SPAN).await?;
    }
    let stopped = Instant::now();
    let (rate, hourly, wide) = (rate.stop().await?, hourly.stop().await?, wide.stop().await?);
    let ended = now_s()?;

    for (tenant, trace) in [("rate", &rate), ("hourly", &hourly), ("wide", &wide)] {
        trace.only_admits_and_limits()?;
        fleet.ledger_reaches(tenant, trace.admitted()).await?;
        happened_in(&fleet, tenant, began..=ended).await?;
    }
    rate.keeps_the_law(CAPACITY, PER_SECOND)?;
    // A busy machine may be late with some of it; time that stands still gives nothing.
    for jump in &jumps {
        is_used(&rate, *jump, *jump + SPAN, 70)?;
    }
    is_used(&rate, jumps[0], stopped, 90)?;
    let hours = ended / 3_600 - began / 3_600 + 1;
    let allowed = HOURLY * hours;
    let admitted = hourly.admitted();
    ensure!((HOURLY..=allowed).contains(&admitted), "{admitted} of {allowed} are admitted");
    Ok(())
}

/// So many percent of the rate are used in this span, at least.
fn is_used(trace: &Trace, from: Instant, until: Instant, percent: usize) -> Result<()> {
    let admitted = trace.of(200).filter(|seen| (from..until).contains(&seen.answered)).count();
    let given = u128::from(PER_SECOND) * (until - from).as_millis() / 1_000;
    ensure!(
        admitted * 100 >= usize::try_from(given)? * percent,
        "{admitted} of {given} in {:?}",
        until - from
    );
    Ok(())
}

/// All usage is stamped with minutes, and summed in quarter hours, of that time.
async fn happened_in(fleet: &Fleet, tenant: &str, span_s: RangeInclusive<u64>) -> Result<()> {
    for (table, column, length_s) in
        [("usage_record", "minute", 60), ("usage_rollup", "quarter", 900)]
    {
        let (first, last) = (span_s.start() / length_s, span_s.end() / length_s);
        let stray = format!(
            "select {column}, requests from {table} where tenant_id = '{tenant}'
             and extract(epoch from {column}) / {length_s} not between {first} and {last}"
        );
        let stray = fleet.stack.database.query(&stray).await?;
        ensure!(stray.is_empty(), "{tenant} used, at another time: {stray}");
    }
    Ok(())
}

/// Each control plane reckons the time itself, so a jump of Redis' clock is no time that passes.
#[tokio::test]
async fn the_clock_of_redis_jumps() -> Result<()> {
    survives_jumps_of(Host::Redis).await
}

/// A control plane reckons with its monotonic clock.
#[tokio::test]
async fn the_clock_of_a_control_plane_jumps() -> Result<()> {
    survives_jumps_of(Host::ControlPlane).await
}

/// Leases end and usage is stamped by a gateway's monotonic clock.
#[tokio::test]
async fn the_clock_of_a_gateway_jumps() -> Result<()> {
    survives_jumps_of(Host::Gateway).await
}
