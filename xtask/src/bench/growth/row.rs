//! One gateway and the tenants that use it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use weir_domain::protocol::MAX_PERIODIC_TTL_MS;

use crate::{
    bench::{
        cpu,
        driver::{Clients, Order, Target},
        stats::Spread,
    },
    stack::{Gateway, Stack},
};

/// Enough for many tenants to wait for leases at once.
const CLIENTS: u64 = 32;
/// After this all leases have been renewed.
const LONGEST_LEASE: Duration = Duration::from_secs(MAX_PERIODIC_TTL_MS / 1_000 + 20);
/// After this gateways have given back the leases of tenants that do not come again.
const LONGEST_IDLE: Duration = Duration::from_secs(15 * 60 + 20);
/// In so many steps tenants ask for their first leases.
const PACES: u32 = 500;
/// Among so many turns each tenant has its share.
const TURNS: f64 = 4_000_000.0;

/// Whose requests come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Among {
    plan: &'static str,
    tenants: u32,
    zipf: bool,
}

impl Among {
    /// All alike.
    pub(super) fn new(plan: &'static str, tenants: u32) -> Self {
        Self { plan, tenants, zipf: false }
    }

    /// The n-th tenant sends 1/n of what the first one does.
    pub(super) fn zipf(self) -> Self {
        Self { zipf: true, ..self }
    }

    fn target(self, envoy: &Gateway, turns: Vec<u32>, order: Order) -> Target {
        let tenants = (0..self.tenants).map(|number| format!("{}-{number}", self.plan));
        Target::among(envoy.port(), tenants, turns, order, 200)
    }

    fn are_very_many(self) -> bool {
        self.tenants > 1_000
    }

    /// How long it takes until each has a lease. Very many come so slowly that the ends of their leases
    /// lie apart, as in steady use, and so fast that none gives its back before others have one.
    fn warm_span(self) -> Duration {
        if self.are_very_many() { LONGEST_LEASE / 2 } else { Duration::from_secs(2) }
    }

    /// Whose turn it is, as often as is its share.
    fn turns(self) -> Vec<u32> {
        if !self.zipf {
            return (0..self.tenants).collect();
        }
        let sum: f64 = (1..=self.tenants).map(|rank| 1.0 / f64::from(rank)).sum();
        let mut turns = Vec::new();
        let mut upto = 0.0;
        for tenant in 0..self.tenants {
            upto += TURNS / sum / f64::from(tenant + 1);
            turns.resize(upto as usize, tenant);
        }
        turns
    }
}

/// A gateway that each of its tenants has asked once.
#[derive(Debug, Clone, Copy)]
pub(super) struct WarmGateway {
    /// Where it stands in the stack.
    index: usize,
    workers: u32,
    started_bytes: u64,
    pub(super) resident_bytes: u64,
}

impl WarmGateway {
    /// Warms the newest gateway of the stack up.
    pub(super) async fn new(stack: &Stack, among: &Among, workers: u32) -> Result<Self> {
        let index = stack.gateways.len() - 1;
        let envoy = &stack.gateways[index];
        let started_bytes = envoy.resident_bytes()?;
        let each = among.target(envoy, (0..among.tenants).collect(), Order::InTurn);
        let mut clients = each.connect(CLIENTS).await?;
        let requests = u64::from(among.tenants).max(20_000);
        let mut paces = tokio::time::interval(among.warm_span() / PACES);
        for _ in 0..PACES {
            paces.tick().await;
            clients.send(requests.div_ceil(PACES.into())).await?;
        }
        let resident_bytes = envoy.resident_bytes()?;
        Ok(Self { index, workers, started_bytes, resident_bytes })
    }

    /// What it took more since it started, per worker.
    pub(super) fn grown_bytes(&self) -> f64 {
        self.resident_bytes.saturating_sub(self.started_bytes) as f64 / f64::from(self.workers)
    }
}

pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) explained: &'static str,
    among: Among,
    gateway: WarmGateway,
    clients: Clients,
    /// CPU µs per request, one per round: of the gateway, and of all that it asks.
    gateway_us: Vec<f64>,
    rest_us: Vec<f64>,
    /// CPU of the gateway over that of the row it was compared with.
    pub(super) over_base: f64,
    requests: f64,
    waits: f64,
    calls: f64,
    redis: f64,
}

/// What has been counted so far.
struct Counts {
    waits: u64,
    calls: u64,
    redis: u64,
}

impl Row {
    pub(super) async fn new(
        stack: &Stack,
        gateway: WarmGateway,
        (name, explained): (&'static str, &'static str),
        among: Among,
    ) -> Result<Self> {
        let envoy = &stack.gateways[gateway.index];
        let target = among.target(envoy, among.turns(), Order::AtRandom);
        Ok(Self {
            name,
            explained,
            among,
            gateway,
            clients: target.connect(CLIENTS).await?,
            gateway_us: Vec::new(),
            rest_us: Vec::new(),
            over_base: 1.0,
            requests: 0.0,
            waits: 0.0,
            calls: 0.0,
            redis: 0.0,
        })
    }

    pub(super) fn gateway(&self) -> WarmGateway {
        self.gateway
    }

    pub(super) fn has_tenants_of(&self, among: &Among) -> bool {
        (self.among.plan, self.among.tenants) == (among.plan, among.tenants)
    }

    /// What it takes until the leases are those of steady use: so many requests, and at least until then.
    /// Each tenant has asked twice, and those who do not come again have lost theirs.
    pub(super) fn warm_up(&self) -> (u64, Instant) {
        let requests = u64::from(self.among.tenants).saturating_mul(2).max(10_000);
        let span = match self.among {
            Among { zipf: true, .. } if self.among.are_very_many() => LONGEST_IDLE,
            _ if self.among.are_very_many() => LONGEST_LEASE,
            _ => Duration::ZERO,
        };
        (requests, Instant::now() + span)
    }

    /// Notes what the last `rounds` turns took beside those of `base`, one by one.
    pub(super) fn compare_with(&mut self, base: &Self, rounds: usize) {
        let last = |values: &[f64]| values[values.len().saturating_sub(rounds)..].to_vec();
        let pairs = last(&self.gateway_us).into_iter().zip(last(&base.gateway_us));
        let ratios: Vec<f64> = pairs.map(|(own, base)| own / base).collect();
        self.over_base = Spread::of(&ratios).median;
    }

    pub(super) async fn turn(
        &mut self,
        stack: &Stack,
        requests: u64,
        is_measured: bool,
    ) -> Result<()> {
        if !is_measured {
            return self.clients.send(requests).await.map(drop);
        }
        let gateway = &stack.gateways[self.gateway.index];
        // To ask for the counts costs something too.
        let before = Counts::of(stack, gateway).await?;
        let (own_before, rest_before) = used_ns(stack, gateway)?;
        self.clients.send(requests).await?;
        let (own_after, rest_after) = used_ns(stack, gateway)?;
        let after = Counts::of(stack, gateway).await?;
        let us = |after: u64, before: u64| {
            after.saturating_sub(before) as f64 / 1_000.0 / requests as f64
        };
        self.gateway_us.push(us(own_after, own_before));
        self.rest_us.push(us(rest_after, rest_before));
        self.requests += requests as f64;
        self.waits += after.waits.saturating_sub(before.waits) as f64;
        self.calls += after.calls.saturating_sub(before.calls) as f64;
        self.redis += after.redis.saturating_sub(before.redis) as f64;
        Ok(())
    }

    pub(super) fn gateway_us(&self) -> Spread {
        Spread::of(&self.gateway_us)
    }

    pub(super) fn rest_us(&self) -> Spread {
        Spread::of(&self.rest_us)
    }

    /// Requests that waited for a call.
    pub(super) fn waits_per_1000(&self) -> f64 {
        self.waits * 1_000.0 / self.requests
    }

    /// Calls to the control plane.
    pub(super) fn calls_per_1000(&self) -> f64 {
        self.calls * 1_000.0 / self.requests
    }

    /// Commands that Redis ran.
    pub(super) fn redis_per_1000(&self) -> f64 {
        self.redis * 1_000.0 / self.requests
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "cpu_us": self.gateway_us().median,
            "control_plane_cpu_us": self.rest_us().median,
            "resident_bytes": self.gateway.resident_bytes,
            "over_base": self.over_base,
            "waits_per_1000": self.waits_per_1000(),
            "calls_per_1000": self.calls_per_1000(),
            "redis_per_1000": self.redis_per_1000(),
        })
    }
}

impl Counts {
    async fn of(stack: &Stack, gateway: &Gateway) -> Result<Self> {
        let stats = gateway.stats().await?;
        let stat =
            |name: &str| stats.get(&format!("wasmcustom.weir.{name}")).copied().unwrap_or_default();
        Ok(Self {
            waits: stat("waited"),
            calls: stat("lease_calls") + stat("usage_batches"),
            redis: redis_commands(&stack.redis.command("INFO stats").await?)?,
        })
    }
}

/// CPU time so far of the gateway, and of all that it asks.
fn used_ns(stack: &Stack, gateway: &Gateway) -> Result<(u64, u64)> {
    let rest = [stack.control_planes[0].pid(), stack.redis.pid(), stack.database.postgres.pid()];
    let rest = rest.iter().flatten().map(|process| cpu::used_ns(*process)).sum::<Result<_>>()?;
    Ok((cpu::used_ns(gateway.pid().context("an Envoy has ended")?)?, rest))
}

fn redis_commands(info: &str) -> Result<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
    Ok(line.context("Redis does not say how many commands it ran")?.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_zipf_the_first_tenant_sends_twice_as_much_as_the_second() {
        let turns = Among::new("one", 100_000).zipf().turns();
        let count = |tenant| turns.iter().filter(|turn| **turn == tenant).count() as f64;
        assert!((1.99..2.01).contains(&(count(0) / count(1))));
        assert!(count(99_999) >= 3.0, "nobody is left out");
    }
}
