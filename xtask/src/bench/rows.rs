//! The configurations whose decisions are measured beside each other.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

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
/// Usage is sent every half a second.
const ALL_IS_SAID: Duration = Duration::from_secs(1);
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
    gateway: u32,
    /// The processes that its gateway asks, which other rows' gateways ask too.
    asks: Vec<u32>,
    /// CPU µs of the gateway per request, one per round.
    pub(super) gateway_us: Vec<f64>,
    /// CPU µs per request of all that it asks.
    pub(super) asked_us: f64,
    pub(super) rps: Vec<f64>,
    pub(super) latencies_us: Vec<u64>,
}

impl Row {
    async fn of(
        name: &'static str,
        explained: &'static str,
        (gateway, target): (&Gateway, Target),
        asks: &[u32],
    ) -> Result<Self> {
        Ok(Self {
            name,
            explained,
            clients: target.connect(CLIENTS).await?,
            target,
            gateway: gateway.pid().context("an Envoy has ended")?,
            asks: asks.to_vec(),
            gateway_us: Vec::new(),
            asked_us: 0.0,
            rps: Vec::new(),
            latencies_us: Vec::new(),
        })
    }

    /// CPU µs per request of the gateway and of all that it asks, one per round.
    pub(super) fn cpu_us(&self) -> Vec<f64> {
        self.gateway_us.iter().map(|gateway| gateway + self.asked_us).collect()
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

    /// One round: what so many requests cost the gateway.
    pub(super) async fn measure_gateway(&mut self, requests: u64) -> Result<()> {
        let used_ns = cpu::used_ns(self.gateway)?;
        self.clients.send(requests).await?;
        self.gateway_us.push(us_per(requests, cpu::used_ns(self.gateway)? - used_ns));
        Ok(())
    }

    /// What so many requests cost all that the gateway asks. It is asked for many requests at once, and
    /// after they have come; so they come without pause here, and what other rows have left to be said is
    /// said before.
    pub(super) async fn measure_asked(&mut self, requests: u64) -> Result<()> {
        if self.asks.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        while began.elapsed() < ALL_IS_SAID {
            self.clients.send(500).await?;
        }
        let used_ns = self.asks_used_ns()?;
        self.clients.send(requests).await?;
        self.asked_us = us_per(requests, self.asks_used_ns()?.saturating_sub(used_ns));
        Ok(())
    }

    fn asks_used_ns(&self) -> Result<u64> {
        self.asks.iter().map(|process| cpu::used_ns(*process)).sum()
    }
}

fn us_per(requests: u64, used_ns: u64) -> f64 {
    used_ns as f64 / 1_000.0 / requests as f64
}

/// All rows, and the service that one of them asks. Gateways of `rated` have a policy. The first gateway of
/// each stack has the filter as a native module; `wasm` is the other one.
pub(super) async fn set_up(
    stack: &mut Stack,
    rated: &mut Stack,
    (service, wasm): (&Path, &Path),
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
    let fields = json!({ "rate_limit_fields": "always" });

    let weir = asked(stack);
    let native = added(stack, &json!({}), &Peer::Weir).await?;
    let native_fields = added(stack, &fields, &Peer::Weir).await?;
    stack.use_filter(wasm);
    let wasm_plain = added(stack, &json!({}), &Peer::Weir).await?;
    let wasm_fields = added(stack, &fields, &Peer::Weir).await?;
    let rated_by = asked(rated);
    let (memoized, each) = (0, added(rated, &json!({}), &Peer::Weir).await?);
    rated.use_filter(wasm);
    let wasm_memoized = added(rated, &json!({}), &Peer::Weir).await?;
    let wasm_each = added(rated, &json!({}), &Peer::Weir).await?;

    let mut rows = Rows::default();
    for (name, explained, peer) in [
        ("bare", "Envoy, no filter", Peer::Bare),
        ("wasm_noop", "a wasm module that does nothing", Peer::Wasm(&noop)),
        ("wasm_header", "a wasm module that reads one header", Peer::Wasm(&header)),
        ("local_ratelimit", "Envoy's local_ratelimit (no global limit)", Peer::LocalRatelimit),
    ] {
        let index = added(stack, &json!({}), &peer).await?;
        rows.add(name, explained, &stack.gateways[index], (PLENTY, 200), &[]).await?;
    }
    for (name, explained, gateway, tenant) in [
        ("weir_allow", "Weir admits", native, (PLENTY, 200)),
        ("weir_fields", "Weir admits, RateLimit on each answer", native_fields, (PLENTY, 200)),
        ("weir_deny", "Weir refuses (429)", native, (SPENT, 429)),
        ("weir_wasm_allow", "Weir as wasm admits", wasm_plain, (PLENTY, 200)),
        ("weir_wasm_fields", "Weir as wasm admits, RateLimit on each", wasm_fields, (PLENTY, 200)),
        ("weir_wasm_deny", "Weir as wasm refuses (429)", wasm_plain, (SPENT, 429)),
    ] {
        rows.add(name, explained, &stack.gateways[gateway], tenant, &weir).await?;
    }
    for (name, explained, gateway) in [
        ("weir_policy", "Weir admits by a policy", memoized),
        ("weir_wasm_policy", "Weir as wasm admits by a policy", wasm_memoized),
    ] {
        rows.add(name, explained, &rated.gateways[gateway], (PLENTY, 200), &rated_by).await?;
    }
    for (name, explained, gateway) in [
        ("weir_policy_each", "Weir admits by a policy, each input new", each),
        ("weir_wasm_policy_each", "Weir as wasm, each input new", wasm_each),
    ] {
        let gateway = &rated.gateways[gateway];
        let target = Target::with_prompts(gateway.port(), PLENTY, PROMPTS, 200);
        rows.0.push(Row::of(name, explained, (gateway, target), &rated_by).await?);
    }
    let asked: Vec<u32> =
        [Some(service.process.id()), stack.redis.pid()].into_iter().flatten().collect();
    for (name, explained, peer, status, asked) in [
        (
            "ratelimit_service",
            "Envoy's ratelimit, a service, Redis",
            Peer::RatelimitService(service.port),
            200,
            &asked[..],
        ),
        ("direct_answer", "Envoy itself answers 429", Peer::DirectAnswer(refused), 429, &[]),
    ] {
        let index = added(stack, &json!({}), &peer).await?;
        rows.add(name, explained, &stack.gateways[index], (PLENTY, status), asked).await?;
    }
    Ok((rows.0, service))
}

/// Adds a gateway with `peer`, and says where it stands.
async fn added(stack: &mut Stack, plugin: &Value, peer: &Peer<'_>) -> Result<usize> {
    stack.add_gateway_with(plugin, |config| peer.instead_of_weir(&config)).await?;
    Ok(stack.gateways.len() - 1)
}

/// All that Weir's gateways ask.
fn asked(stack: &Stack) -> Vec<u32> {
    let all = [stack.control_planes[0].pid(), stack.redis.pid(), stack.database.postgres.pid()];
    all.into_iter().flatten().collect()
}

#[derive(Default)]
struct Rows(Vec<Row>);

impl Rows {
    async fn add(
        &mut self,
        name: &'static str,
        explained: &'static str,
        gateway: &Gateway,
        (tenant, status): (&str, u16),
        asks: &[u32],
    ) -> Result<()> {
        let target = Target::new(gateway.port(), tenant, status);
        self.0.push(Row::of(name, explained, (gateway, target), asks).await?);
        Ok(())
    }
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
