//! The configurations whose decisions are measured beside each other.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{
    cpu,
    driver::{Clients, Target},
    filters::Peer,
    noop,
    stats::Spread,
};
use crate::{
    admin::Admin,
    stack::{Gateway, Stack},
};

/// A tenant with far more than is spent.
pub(super) const PLENTY: &str = "plenty";
/// Has nothing left.
const SPENT: &str = "spent";
pub(super) const CLIENTS: u64 = 8;
/// More inputs than a filter remembers decisions for.
const PROMPTS: u32 = 10_000;
/// Six rules, which read three parts of a request.
const POLICY: &str = r#"package weir.rating

default allow := true

allow := false if closed

closed if {
    startswith(input.path, "/admin/")
    not input.method == "GET"
}

default cost := 1

cost := 2 if input.headers["x-prompt-tokens"] == "1000000"

reason := "closed" if closed
"#;

/// One configuration that is measured.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) explained: &'static str,
    pub(super) target: Target,
    pub(super) clients: Clients,
    /// Everything that works for it.
    processes: Vec<u32>,
    /// CPU µs per request, one per round.
    pub(super) cpu_us: Vec<f64>,
    pub(super) rps: Vec<f64>,
    pub(super) latencies_us: Vec<u64>,
}

impl Row {
    async fn new(
        name: &'static str,
        explained: &'static str,
        (gateway, tenant, status): (&Gateway, &str, u16),
        asks: &[u32],
    ) -> Result<Self> {
        let target = Target::new(gateway.port(), tenant, status);
        Self::of(name, explained, (gateway, target), asks).await
    }

    async fn of(
        name: &'static str,
        explained: &'static str,
        (gateway, target): (&Gateway, Target),
        asks: &[u32],
    ) -> Result<Self> {
        let own = gateway.pid().context("an Envoy has ended")?;
        Ok(Self {
            name,
            explained,
            clients: target.connect(CLIENTS).await?,
            target,
            processes: [&[own], asks].concat(),
            cpu_us: Vec::new(),
            rps: Vec::new(),
            latencies_us: Vec::new(),
        })
    }

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

    /// CPU time so far.
    pub(super) fn used_ns(&self) -> Result<u64> {
        self.processes.iter().map(|process| cpu::used_ns(*process)).sum()
    }
}

/// All rows, and the service that one of them asks. Gateways of `rated` have a policy.
pub(super) async fn set_up(
    stack: &mut Stack,
    rated: &Stack,
    service: &Path,
) -> Result<(Vec<Row>, RatelimitService)> {
    let service = RatelimitService::start(service, &stack.redis.url())?;
    let admin = Admin::new(stack)?;
    tenant(&admin, PLENTY, 1_000_000_000).await?;
    tenant(&admin, SPENT, 1).await?;
    let admin = Admin::new(rated)?;
    tenant(&admin, PLENTY, 1_000_000_000).await?;
    admin.rate_by("bench", POLICY).await?;
    let refused = refusal(&stack.gateways[0]).await?;
    let noop = noop::write(stack.folder(), noop::Does::Nothing)?;
    let header = noop::write(stack.folder(), noop::Does::ReadsHeader)?;
    // The first gateway is Weir's, which the stack has already.
    for peer in [
        Peer::Bare,
        Peer::Wasm(&noop),
        Peer::Wasm(&header),
        Peer::LocalRatelimit,
        Peer::RatelimitService(service.port),
        Peer::DirectAnswer(refused),
    ] {
        stack.add_gateway_with(&json!({}), |config| peer.instead_of_weir(&config)).await?;
    }
    stack.add_gateway(&json!({ "rate_limit_fields": "always" })).await?;

    let weir_of = |stack: &Stack| -> Vec<u32> {
        let all = [stack.control_planes[0].pid(), stack.redis.pid(), stack.database.postgres.pid()];
        all.into_iter().flatten().collect()
    };
    let (weir, weir_rated) = (weir_of(stack), weir_of(rated));
    let (memoized, each) = (&rated.gateways[0], &rated.gateways[1]);
    let prompts = Target::with_prompts(each.port(), PLENTY, PROMPTS, 200);
    let asked: Vec<u32> =
        [Some(service.process.id()), stack.redis.pid()].into_iter().flatten().collect();
    let envoy = |index: usize| (&stack.gateways[index], PLENTY, 200);
    let rows = vec![
        Row::new("bare", "Envoy, no filter", envoy(1), &[]).await?,
        Row::new("wasm_noop", "a wasm module that does nothing", envoy(2), &[]).await?,
        Row::new("wasm_header", "a wasm module that reads one header", envoy(3), &[]).await?,
        Row::new("local_ratelimit", "Envoy's local_ratelimit (no global limit)", envoy(4), &[])
            .await?,
        Row::new("weir_allow", "Weir admits", envoy(0), &weir).await?,
        Row::new("weir_fields", "Weir admits, RateLimit on each answer", envoy(7), &weir).await?,
        Row::new("weir_policy", "Weir admits by a policy", (memoized, PLENTY, 200), &weir_rated)
            .await?,
        Row::of(
            "weir_policy_each",
            "Weir admits by a policy, each input is new",
            (each, prompts),
            &weir_rated,
        )
        .await?,
        Row::new("ratelimit_service", "Envoy's ratelimit, a service, Redis", envoy(5), &asked)
            .await?,
        Row::new(
            "direct_answer",
            "Envoy itself answers 429",
            (&stack.gateways[6], PLENTY, 429),
            &[],
        )
        .await?,
        Row::new("weir_deny", "Weir refuses (429)", (&stack.gateways[0], SPENT, 429), &weir)
            .await?,
    ];
    Ok((rows, service))
}

/// A tenant with a plan of its own, and so many tokens.
async fn tenant(admin: &Admin, id: &str, capacity: u64) -> Result<()> {
    let refill = json!({ "kind": "periodic", "period": "year" });
    let limit =
        json!({ "name": "limit", "unit": "tokens", "capacity": capacity, "refill": refill });
    let terms = json!({ "currency": "USD", "limits": [limit], "prices": [] });
    admin.put_json(&format!("/plans/{id}"), &terms).await?;
    admin.post_json("/tenants", &json!({ "id": id, "plan": id })).await?;
    Ok(())
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
    bail!("a tenant without tokens is not refused")
}

/// The service that Envoy asks.
pub(super) struct RatelimitService {
    process: Child,
    port: u16,
}

impl RatelimitService {
    fn start(program: &Path, redis: &str) -> Result<Self> {
        let mut process =
            Command::new(program).arg(redis).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
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
