//! A fleet whose limits are all in use.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::trace::{Trace, Traffic};
use crate::{
    harness::{Fleet, SOON, continuous, monthly, wait_for},
    leases::bucket,
};

/// The limit of `dry`.
pub(super) const DRY: u64 = 1_500;

/// When what was broken works again, gateways know it that soon: a call that was under way may fail once
/// more, after a second, and is repeated after 1.6 s at most; twice that for a busy machine.
pub(super) const RECOVERS_WITHIN: Duration = Duration::from_secs(5);

/// Three gateways with clients of three tenants each: `wide`, whose limit lasts; `dry`, which is
/// spent in the run; and `rate`, with 100 tokens that come back at 50 per second.
pub(super) struct Busy {
    pub(super) fleet: Fleet,
    pub(super) wide: Traffic,
    pub(super) dry: Traffic,
    pub(super) rate: Traffic,
}

/// What clients of each tenant saw.
pub(super) struct Traces {
    pub(super) wide: Trace,
    pub(super) dry: Trace,
    pub(super) rate: Trace,
}

impl Traces {
    pub(super) fn by_tenant(&self) -> [(&'static str, &Trace); 3] {
        [("wide", &self.wide), ("dry", &self.dry), ("rate", &self.rate)]
    }
}

impl Busy {
    /// `fleet` has three gateways.
    pub(super) async fn start(fleet: Fleet) -> Result<Self> {
        fleet.tenant("wide", &[monthly(1_000_000)], &[]).await?;
        fleet.tenant("dry", &[monthly(DRY)], &[]).await?;
        fleet.tenant("rate", &[continuous("rate", "tokens", 100, 50, 1_000)], &[]).await?;
        let pause = Duration::from_millis(20);
        let traffic = |tenant, clients| Traffic::start(&fleet, tenant, &[clients; 3], pause);
        let (wide, dry, rate) = (traffic("wide", 2)?, traffic("dry", 2)?, traffic("rate", 1)?);
        Ok(Self { wide, dry, rate, fleet })
    }

    /// Until every gateway has admitted one that was sent since then.
    pub(super) async fn is_served_since(&self, since: Instant) -> Result<()> {
        wait_for("requests at each gateway to be admitted", SOON, async || {
            Ok(self.wide.is_served_since(since, 3).then_some(()))
        })
        .await
    }

    /// One of the filter's counters, of each gateway.
    pub(super) async fn failures(&self, stat: &str) -> Result<Vec<u64>> {
        let mut failures = Vec::new();
        for gateway in &self.fleet.stack.gateways {
            failures.push(gateway.weir_stat(stat).await?);
        }
        Ok(failures)
    }

    /// Of the limit of `dry`.
    pub(super) async fn claimed(&self) -> Result<u64> {
        let claimed = "select sum(claimed) from claim where tenant_id = 'dry'";
        Ok(self.fleet.stack.database.query(claimed).await?.trim().parse()?)
    }

    /// Has more clients spend what is left of `dry`, and stops.
    pub(super) async fn finish(self) -> Result<(Fleet, Traces)> {
        let Self { fleet, wide, dry, rate } = self;
        let rest = Traffic::start(&fleet, "dry", &[4; 3], Duration::ZERO)?;
        wait_for("the limit to be spent", SOON * 3, async || {
            let left = bucket(&fleet, "dry", "monthly").await?;
            anyhow::ensure!(
                rest.count(429) > 0 && left["remaining"] == 0,
                "{} more are admitted, {} refused; {left}",
                rest.count(200),
                rest.count(429)
            );
            Ok(Some(()))
        })
        .await?;
        let dry = Trace::merged(vec![dry.stop().await?, rest.stop().await?]);
        let traces = Traces { wide: wide.stop().await?, dry, rate: rate.stop().await? };
        Ok((fleet, traces))
    }
}
