//! Leases, asked for as gateways do, of a control plane on real Redis and Postgres.

mod arithmetic;
mod claims;
mod clock;
mod cold;
mod edge;
mod fresh;
mod law;
mod loss;
mod model;
mod no_postgres;
mod period;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use weir_domain::{
    id::TenantId,
    protocol::{LeaseAnswer, LeaseAsk, LeaseRequest, LeaseResponse},
    quantity::{Amount, Quantity},
};

use crate::harness::{Api, Fleet, SOON};

/// Between two attempts at a call, as `filter/src/http_call.rs` has it at first.
const BACKOFF: Duration = Duration::from_millis(50);

/// What Redis runs.
const SCRIPT: &str = concat!(
    include_str!("../../control-plane/src/lease/script/arithmetic.lua"),
    include_str!("../../control-plane/src/lease/script/open.lua"),
    include_str!("../../control-plane/src/lease/script/ask.lua"),
    include_str!("../../control-plane/src/lease/script/feed.lua"),
    include_str!("../../control-plane/src/lease/script/run.lua"),
);

/// A control plane without gateways: the tests are the gateways.
async fn control_planes(count: usize) -> Result<Fleet> {
    Fleet::with(|stack| stack.control_planes(count).gateways(0)).await
}

pub(crate) fn amount(tokens: u64, requests: u64) -> Amount {
    Amount { tokens: Quantity::clamped(tokens), requests: Quantity::clamped(requests) }
}

/// One worker of one gateway.
pub(crate) struct Worker {
    api: Api,
    gateway: String,
    worker: String,
    calls: AtomicU64,
}

impl Worker {
    /// Of the first control plane.
    pub(crate) fn new(fleet: &Fleet, gateway: &str, worker: &str) -> Self {
        Self::of(fleet, 0, gateway, worker)
    }

    fn of(fleet: &Fleet, control_plane: usize, gateway: &str, worker: &str) -> Self {
        let url = format!("{}/edge/v1", fleet.stack.control_planes[control_plane].url());
        Self {
            api: Api::new(&reqwest::Client::new(), url, &fleet.stack.gateway_token),
            gateway: gateway.to_owned(),
            worker: worker.to_owned(),
            calls: AtomicU64::new(0),
        }
    }

    /// The next call, not sent yet.
    fn next(&self, tenant: &str, need: Amount, want: Amount) -> LeaseAsk {
        LeaseAsk {
            tenant: TenantId::new(tenant).unwrap(),
            call: self.calls.fetch_add(1, Ordering::Relaxed) + 1,
            stamp: String::new(),
            need,
            want,
            spent: Amount::ZERO,
            refund: Amount::ZERO,
            owe: Amount::ZERO,
            fresh: false,
        }
    }

    async fn send_all(&self, leases: Vec<LeaseAsk>) -> Result<Vec<LeaseAnswer>> {
        let (gateway, worker) = (self.gateway.clone(), self.worker.clone());
        let request = LeaseRequest { version: 1, gateway, worker, revision: 0, leases };
        let answer = self.api.post("/leases", &serde_json::to_value(&request)?).await?.ok()?;
        Ok(serde_json::from_value::<LeaseResponse>(answer)?.leases)
    }

    async fn send(&self, ask: &LeaseAsk) -> Result<LeaseAnswer> {
        self.send_all(vec![ask.clone()]).await?.pop().context("no answer")
    }

    /// Repeats the call until it is decided on, at the pace of gateways.
    async fn send_until_decided(&self, ask: &LeaseAsk) -> Result<LeaseAnswer> {
        let deadline = Instant::now() + SOON;
        loop {
            match self.send(ask).await {
                Err(_) if Instant::now() < deadline => tokio::time::sleep(BACKOFF).await,
                decided => return decided,
            }
        }
    }

    pub(crate) async fn ask(
        &self,
        tenant: &str,
        need: Amount,
        want: Amount,
    ) -> Result<LeaseAnswer> {
        self.send(&self.next(tenant, need, want)).await
    }

    /// Asks for one token a time until there is none; how many there were.
    async fn drain(&self, tenant: &str) -> Result<u64> {
        let mut sum = 0;
        loop {
            let ask = self.next(tenant, amount(1, 1), amount(1_000, 1));
            let answer = self.send_until_decided(&ask).await?;
            if answer.granted.is_zero() {
                return Ok(sum);
            }
            sum += answer.granted.tokens.get();
        }
    }
}

/// One bucket, as the admin API shows it.
pub(crate) async fn bucket(fleet: &Fleet, tenant: &str, limit: &str) -> Result<Value> {
    let buckets = fleet.admin.get(&format!("/tenants/{tenant}/buckets")).await?.ok()?;
    let items = buckets["items"].as_array().context("no items")?;
    items.iter().find(|bucket| bucket["limit"] == limit).cloned().context("no such bucket")
}

async fn adjust(
    fleet: &Fleet,
    tenant: &str,
    limit: &str,
    amount: i64,
) -> Result<crate::harness::Answer> {
    let path = format!("/tenants/{tenant}/buckets/{limit}/adjustments");
    fleet.admin.post(&path, &json!({ "amount": amount, "reason": "test" })).await
}

/// Numbers that look random and are the same in each run (Knuth's MMIX generator).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 11
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
