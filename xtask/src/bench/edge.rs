//! What a decision costs at the edge: CPU time of the gateway, and of whatever it asks, per request.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};
use serde_json::json;

use super::{
    Effort, cpu, driver::Target, filters::Peer, noop, ratelimit_service::REDIS_VARIABLE,
    stats::Spread,
};
use crate::{
    admin::Admin,
    stack::{Gateway, Stack},
};

/// Far more than is spent.
const PLENTY: &str = "plenty";
/// Has nothing left.
const SPENT: &str = "spent";
const CLIENTS: u64 = 8;
/// For the latency at a load that leaves the machine idle most of the time.
const PACE_PER_SECOND: u64 = 400;

/// One configuration that is measured.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) explained: &'static str,
    target: Target,
    /// Everything that works for it.
    processes: Vec<u32>,
    /// CPU µs per request, one per round.
    cpu_us: Vec<f64>,
    rps: Vec<f64>,
    latencies_us: Vec<u64>,
}

impl Row {
    pub(super) fn cpu_us(&self) -> Spread {
        Spread::of(&self.cpu_us)
    }

    pub(super) fn rps(&self) -> Spread {
        Spread::of(&self.rps)
    }

    /// The latency that so many of a thousand stay below, in µs; 0 when it was not measured.
    pub(super) fn latency_us(&self, per_mille: usize) -> u64 {
        let index = self.latencies_us.len() * per_mille / 1_000;
        self.latencies_us
            .get(index.min(self.latencies_us.len().saturating_sub(1)))
            .copied()
            .unwrap_or(0)
    }

    fn used_ns(&self) -> Result<u64> {
        self.processes.iter().map(|process| cpu::used_ns(*process)).sum()
    }
}

/// All rows, and how they compare.
pub(super) struct Edge {
    pub(super) rows: Vec<Row>,
    pub(super) ratios: BTreeMap<&'static str, Spread>,
    /// Requests that waited for a lease, of all that Weir admitted.
    pub(super) waited_share: f64,
    /// Calls to the control plane per 1,000 admitted requests.
    pub(super) calls_per_1000: f64,
}

pub(super) async fn measure(stack: &mut Stack, effort: Effort) -> Result<Edge> {
    let service = RatelimitService::start(&stack.redis.url())?;
    let mut rows = set_up(stack, &service).await?;
    for row in &rows {
        row.target.send(CLIENTS, effort.requests / 4).await.with_context(|| row.name)?;
    }
    let before = Counts::of(&stack.gateways[0]).await?;
    for _ in 0..effort.rounds {
        for row in &mut rows {
            let used_ns = row.used_ns()?;
            row.target.send(CLIENTS, effort.requests).await.with_context(|| row.name)?;
            let used_ns = row.used_ns()?.saturating_sub(used_ns);
            row.cpu_us.push(used_ns as f64 / 1_000.0 / effort.requests as f64);
        }
    }
    let steady = Counts::of(&stack.gateways[0]).await?.since(&before);
    for _ in 0..effort.timed_rounds {
        for row in &mut rows {
            row.rps.push(row.target.saturate(32, effort.span).await?);
            let paced = row.target.pace(CLIENTS, PACE_PER_SECOND, effort.span).await?;
            row.latencies_us.extend(paced);
            row.latencies_us.sort_unstable();
        }
    }
    Ok(Edge {
        ratios: ratios(&rows),
        rows,
        waited_share: steady.waited / steady.admitted,
        calls_per_1000: steady.calls * 1_000.0 / steady.admitted,
    })
}

/// The gateways in the order of the rows; the first one is Weir's, which the stack has already.
async fn set_up(stack: &mut Stack, service: &RatelimitService) -> Result<Vec<Row>> {
    let admin = Admin::new(stack)?;
    for (tenant, capacity) in [(PLENTY, 1_000_000_000), (SPENT, 1)] {
        let refill = json!({ "kind": "periodic", "period": "year" });
        let limit =
            json!({ "name": "limit", "unit": "tokens", "capacity": capacity, "refill": refill });
        let terms = json!({ "currency": "USD", "limits": [limit], "prices": [] });
        admin.put_json(&format!("/plans/{tenant}"), &terms).await?;
        admin.post_json("/tenants", &json!({ "id": tenant, "plan": tenant })).await?;
    }
    let refused = refusal(&stack.gateways[0]).await?;
    let module = stack.folder().join("noop.wasm");
    noop::write(&module)?;
    for peer in [
        Peer::Bare,
        Peer::Wasm(&module),
        Peer::LocalRatelimit,
        Peer::RatelimitService(service.port),
        Peer::DirectAnswer(refused),
    ] {
        stack.add_gateway_with(&json!({}), |config| peer.instead_of_weir(&config)).await?;
    }
    stack.add_gateway(&json!({ "rate_limit_fields": "always" })).await?;

    let control_plane =
        [stack.control_planes[0].pid(), stack.redis.pid(), stack.database.postgres.pid()];
    let control_plane: Vec<u32> = control_plane.into_iter().flatten().collect();
    let service: Vec<u32> =
        [Some(service.process.id()), stack.redis.pid()].into_iter().flatten().collect();
    let row = |name, explained, gateway: usize, tenant, status, asks: &[u32]| -> Result<Row> {
        let envoy = &stack.gateways[gateway];
        let own = envoy.pid().context("an Envoy has ended")?;
        Ok(Row {
            name,
            explained,
            target: Target::new(envoy.port(), tenant, status),
            processes: [&[own], asks].concat(),
            cpu_us: Vec::new(),
            rps: Vec::new(),
            latencies_us: Vec::new(),
        })
    };
    Ok(vec![
        row("bare", "Envoy, no filter", 1, PLENTY, 200, &[])?,
        row("wasm_noop", "a wasm module that does nothing", 2, PLENTY, 200, &[])?,
        row("local_ratelimit", "Envoy's local_ratelimit (no global limit)", 3, PLENTY, 200, &[])?,
        row("weir_allow", "Weir admits", 0, PLENTY, 200, &control_plane)?,
        row(
            "weir_fields",
            "Weir admits, RateLimit on each answer",
            6,
            PLENTY,
            200,
            &control_plane,
        )?,
        row("ratelimit_service", "Envoy's ratelimit, a service, Redis", 4, PLENTY, 200, &service)?,
        row("direct_answer", "Envoy itself answers 429", 5, PLENTY, 429, &[])?,
        row("weir_deny", "Weir refuses (429)", 0, SPENT, 429, &control_plane)?,
    ])
}

/// How long the body of a refusal is; spends the last token on the way.
async fn refusal(gateway: &Gateway) -> Result<usize> {
    let client = reqwest::Client::new();
    for _ in 0..100 {
        let answer = client.get(gateway.url()).header("x-tenant-id", SPENT).send().await?;
        if answer.status().as_u16() == 429 {
            return Ok(answer.bytes().await?.len());
        }
    }
    anyhow::bail!("a tenant without tokens is not refused")
}

/// Each round's ratio by itself, so that what slows the machine down slows both.
fn ratios(rows: &[Row]) -> BTreeMap<&'static str, Spread> {
    let cpu = |name: &str| {
        let row = rows.iter().find(|row| row.name == name);
        row.map(|row| row.cpu_us.as_slice()).unwrap_or_default()
    };
    let over = |of: &str, to: &str| -> Vec<f64> {
        cpu(of).iter().zip(cpu(to)).map(|(of, to)| of / to).collect()
    };
    let added = cpu("weir_allow").iter().zip(cpu("ratelimit_service")).zip(cpu("bare"));
    let added: Vec<f64> =
        added.map(|((weir, service), bare)| (weir - bare) / (service - bare)).collect();
    [
        ("wasm_noop_over_bare", over("wasm_noop", "bare")),
        ("local_ratelimit_over_bare", over("local_ratelimit", "bare")),
        ("weir_allow_over_bare", over("weir_allow", "bare")),
        ("weir_allow_over_wasm_noop", over("weir_allow", "wasm_noop")),
        ("weir_fields_over_bare", over("weir_fields", "bare")),
        ("ratelimit_service_over_bare", over("ratelimit_service", "bare")),
        ("weir_added_over_ratelimit_service_added", added),
        ("weir_deny_over_direct_answer", over("weir_deny", "direct_answer")),
    ]
    .into_iter()
    .map(|(name, values)| (name, Spread::of(&values)))
    .collect()
}

/// What the filter has counted.
struct Counts {
    admitted: f64,
    waited: f64,
    calls: f64,
}

impl Counts {
    async fn of(gateway: &Gateway) -> Result<Self> {
        let calls =
            gateway.weir_stat("lease_calls").await? + gateway.weir_stat("usage_batches").await?;
        Ok(Self {
            admitted: gateway.weir_stat("admitted").await? as f64,
            waited: gateway.weir_stat("waited").await? as f64,
            calls: calls as f64,
        })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            admitted: self.admitted - before.admitted,
            waited: self.waited - before.waited,
            calls: self.calls - before.calls,
        }
    }
}

/// The service as a child of this program, which is told to be it.
struct RatelimitService {
    process: Child,
    port: u16,
}

impl RatelimitService {
    fn start(redis: &str) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("ratelimit-service")
            .env(REDIS_VARIABLE, redis)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = process.stdout.take().context("no standard output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let port = line.trim().parse().context("the rate limit service did not start")?;
        Ok(Self { process, port })
    }
}

impl Drop for RatelimitService {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
