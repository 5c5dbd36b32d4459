//! Leases through the edge API, a hundred tenants per call, as gateways with many tenants ask.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use reqwest::StatusCode;
use tokio::task::JoinSet;
use weir_domain::{
    id::TenantId,
    protocol::{self, LeaseAsk, LeaseRequest, LeaseResponse, MAX_LEASES_PER_CALL},
    quantity::{Amount, Quantity},
};

use super::tenants;
use crate::{
    bench::{cpu, stats::Spread},
    stack::Stack,
};

const ROUNDS: usize = 5;
const WORKERS: u64 = 8;
/// Of each worker; it asks for all of them in each pass.
const TENANTS: u64 = 1_000;
/// In each round.
const PASSES: u64 = 1;
const WANT: u64 = 200;
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// One value of each per round.
pub(super) struct Leases {
    per_second: Vec<f64>,
    cpu_us: Vec<f64>,
}

impl Leases {
    pub(super) fn per_second(&self) -> Spread {
        Spread::of(&self.per_second)
    }

    pub(super) fn cpu_us(&self) -> Spread {
        Spread::of(&self.cpu_us)
    }
}

pub(super) async fn measure(stack: &Stack) -> Result<Leases> {
    let mut workers: Vec<Worker> =
        (0..WORKERS).map(|number| Worker::new(stack, number)).collect::<Result<_>>()?;
    let processes =
        [stack.control_planes[0].pid(), stack.redis.pid(), stack.database.postgres.pid()];
    let used_ns = || -> Result<u64> {
        processes.iter().flatten().map(|process| cpu::used_ns(*process)).sum()
    };
    let mut measured = Leases { per_second: Vec::new(), cpu_us: Vec::new() };
    // The first rounds read terms, claim first blocks and learn the demand.
    for round in 0..ROUNDS + 2 {
        let (began, before) = (Instant::now(), used_ns()?);
        let mut asking = JoinSet::new();
        for mut worker in workers.drain(..) {
            asking.spawn(async move {
                for _ in 0..PASSES {
                    worker.ask_for_all().await?;
                }
                anyhow::Ok(worker)
            });
        }
        while let Some(done) = asking.join_next().await {
            workers.push(done??);
        }
        let items = (WORKERS * TENANTS * PASSES) as f64;
        if round >= 2 {
            measured.per_second.push(items / began.elapsed().as_secs_f64());
            let used_us = used_ns()?.saturating_sub(before) as f64 / 1_000.0;
            measured.cpu_us.push(used_us / items);
        }
    }
    Ok(measured)
}

/// A worker of a gateway that spends all that it gets.
struct Worker {
    client: reqwest::Client,
    url: String,
    token: String,
    name: String,
    tenants: Vec<TenantId>,
    held: HashMap<TenantId, Held>,
}

/// What it has got for a tenant.
#[derive(Clone, Default)]
struct Held {
    call: u64,
    stamp: String,
    granted: Option<Amount>,
}

impl Worker {
    fn new(stack: &Stack, number: u64) -> Result<Self> {
        let ids = (number * TENANTS..(number + 1) * TENANTS).map(tenants::id);
        Ok(Self {
            client: reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?,
            url: format!("{}{}", stack.control_planes[0].url(), protocol::LEASES_PATH),
            token: stack.gateway_token.clone(),
            name: format!("{number:032x}"),
            tenants: ids.map(TenantId::new).collect::<Result<_, _>>()?,
            held: HashMap::new(),
        })
    }

    async fn ask_for_all(&mut self) -> Result<()> {
        let (mut granted, mut of) = (0, 0);
        for tenants in self.tenants.clone().chunks(MAX_LEASES_PER_CALL) {
            let request = LeaseRequest {
                version: protocol::VERSION,
                gateway: "bench".to_owned(),
                revision: 0,
                worker: self.name.clone(),
                leases: tenants.iter().map(|tenant| self.ask(tenant)).collect(),
            };
            for lease in self.call(&request).await?.leases {
                // 0 is not decided: to be asked again, unchanged, with the next call.
                if lease.call == 0 {
                    continue;
                }
                of += 1;
                granted += u64::from(lease.granted.tokens > Quantity::ZERO);
                let held = self.held.entry(lease.tenant).or_default();
                held.call = lease.call;
                held.stamp = lease.stamp;
                held.granted = Some(lease.granted);
            }
        }
        // A burst may run out; what is measured must not be refusals.
        ensure!(granted * 10 >= of * 9, "only {granted} of {of} leases were granted");
        Ok(())
    }

    /// Repeats the call while it is answered 503, as a gateway does: at first there is much to claim.
    async fn call(&self, request: &LeaseRequest) -> Result<LeaseResponse> {
        let deadline = Instant::now() + ANSWERED_WITHIN;
        loop {
            let call = self.client.post(&self.url).bearer_auth(&self.token).json(request);
            let answer = call.send().await?;
            if answer.status() != StatusCode::SERVICE_UNAVAILABLE || Instant::now() > deadline {
                return Ok(answer.error_for_status()?.json().await?);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn ask(&self, tenant: &TenantId) -> LeaseAsk {
        let held = self.held.get(tenant).cloned().unwrap_or_default();
        let want = Quantity::clamped(WANT);
        LeaseAsk {
            tenant: tenant.clone(),
            call: held.call + 1,
            stamp: held.stamp,
            need: Amount { tokens: Quantity::ONE, requests: Quantity::ONE },
            want: Amount { tokens: want, requests: want },
            spent: held.granted.unwrap_or(Amount::ZERO),
            refund: Amount::ZERO,
            owe: Amount::ZERO,
            fresh: false,
        }
    }
}
