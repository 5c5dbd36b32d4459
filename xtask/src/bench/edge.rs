//! What a decision costs at the edge: CPU time of the gateway, and of whatever it asks, per request.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};

use super::{
    Effort,
    rows::{self, PLENTY, Row},
    stats::Spread,
    target::Target,
};
use crate::stack::{Gateway, Stack};

/// For the latency at a load that leaves the machine idle most of the time.
const PACE_PER_SECOND: u64 = 400;
/// Requests before each measurement, which are not counted: a row that waited for its turn finds
/// caches cold, and Weir has given its leases back.
const WARM_UP: u64 = 300;

/// All rows, and how they compare.
pub(super) struct Edge {
    pub(super) rows: Vec<Row>,
    pub(super) ratios: BTreeMap<&'static str, Spread>,
    pub(super) steady: Steady,
}

/// How often a hot tenant's gateway needs its control plane.
pub(super) struct Steady {
    /// Requests that waited for a lease, of all that Weir admitted.
    pub(super) waited_share: f64,
    /// Calls to the control plane per 1,000 admitted requests.
    pub(super) calls_per_1000: f64,
}

/// `programs` are the one that Envoy's `ratelimit` filter asks, and Weir's filter as a wasm module; the
/// stacks have the native one. Gateways of `rated` get a policy.
pub(super) async fn measure(
    stack: &mut Stack,
    rated: &mut Stack,
    programs: (&Path, &Path),
    effort: Effort,
) -> Result<Edge> {
    let (mut rows, _service) = rows::set_up(stack, rated, programs).await?;
    for row in &mut rows {
        row.clients.send(effort.requests * 2).await.with_context(|| row.name)?;
    }
    for round in 0..effort.rounds {
        // Nobody always comes after the same one.
        let first = round as usize % rows.len();
        rows.rotate_left(first);
        for row in &mut rows {
            row.clients.send(WARM_UP).await.with_context(|| row.name)?;
            row.measure_gateway(effort.requests).await.with_context(|| row.name)?;
        }
        rows.rotate_right(first);
    }
    for row in &mut rows {
        row.measure_asked(effort.asking).await.with_context(|| row.name)?;
    }
    let steady = Steady::measure(stack, &mut rows, effort).await?;
    for _ in 0..effort.timed_rounds {
        for row in &mut rows {
            row.rps.push(row.target.saturate(32, effort.span).await?);
            let paced = row.target.pace(rows::CLIENTS, PACE_PER_SECOND, effort.span).await?;
            row.latencies_us.extend(paced);
            row.latencies_us.sort_unstable();
        }
    }
    Ok(Edge { ratios: ratios(&rows), rows, steady })
}

impl Edge {
    pub(super) fn targets(&self) -> Vec<Target> {
        let at_most = |name: &'static str, bound| {
            let value = self.ratios.get(name).map_or(f64::NAN, |ratio| ratio.median);
            Target::at_most(name, value, bound)
        };
        vec![
            at_most("weir_allow_over_bare", 1.12),
            at_most("weir_allow_over_wasm_noop", 1.05),
            at_most("weir_added_over_ratelimit_service_added", 0.1),
            at_most("weir_deny_over_direct_answer", 1.35),
            at_most("policy_added_over_bare", 0.05),
            at_most("weir_policy_each_over_ratelimit_service", 1.0),
            // The same of the wasm module.
            at_most("weir_wasm_allow_over_bare", 1.12),
            at_most("weir_wasm_allow_over_wasm_noop", 1.05),
            at_most("weir_wasm_added_over_ratelimit_service_added", 0.1),
            at_most("weir_wasm_deny_over_direct_answer", 1.35),
            at_most("wasm_policy_added_over_bare", 0.05),
            at_most("weir_wasm_policy_each_over_ratelimit_service", 1.0),
            Target::at_most("waited_share", self.steady.waited_share, 0.001),
            Target::at_most("calls_per_1000", self.steady.calls_per_1000, 5.0),
        ]
    }
}

/// Each round's ratio by itself, so that what slows the machine down slows both.
fn ratios(rows: &[Row]) -> BTreeMap<&'static str, Spread> {
    let cpu = |name: &str| {
        let row = rows.iter().find(|row| row.name == name);
        row.map(Row::cpu_us).unwrap_or_default()
    };
    let over = |of: &str, to: &str| -> Vec<f64> {
        cpu(of).iter().zip(&cpu(to)).map(|(of, to)| of / to).collect()
    };
    // What is added is a small difference of large numbers: of the medians, or one noisy round of
    // the bare Envoy makes it anything.
    let median = |name: &str| Spread::of(&cpu(name)).median;
    let added = |to: &str, base: &str| median(to) - median(base);
    let share = |weir| vec![added(weir, "bare") / added("ratelimit_service", "bare")];
    let policy_added = |weir, plain| vec![added(weir, plain) / median("bare")];
    [
        ("policy_added_over_bare", policy_added("weir_policy", "weir_allow")),
        ("wasm_policy_added_over_bare", policy_added("weir_wasm_policy", "weir_wasm_allow")),
        ("weir_wasm_allow_over_bare", over("weir_wasm_allow", "bare")),
        ("weir_wasm_allow_over_wasm_noop", over("weir_wasm_allow", "wasm_noop")),
        ("weir_wasm_allow_over_wasm_header", over("weir_wasm_allow", "wasm_header")),
        ("weir_wasm_fields_over_bare", over("weir_wasm_fields", "bare")),
        ("weir_wasm_deny_over_direct_answer", over("weir_wasm_deny", "direct_answer")),
        ("weir_wasm_added_over_ratelimit_service_added", share("weir_wasm_allow")),
        (
            "weir_wasm_policy_each_over_ratelimit_service",
            over("weir_wasm_policy_each", "ratelimit_service"),
        ),
        ("weir_allow_over_local_ratelimit", over("weir_allow", "local_ratelimit")),
        ("weir_policy_over_bare", over("weir_policy", "bare")),
        ("weir_policy_each_over_ratelimit_service", over("weir_policy_each", "ratelimit_service")),
        ("wasm_noop_over_bare", over("wasm_noop", "bare")),
        ("local_ratelimit_over_bare", over("local_ratelimit", "bare")),
        ("weir_allow_over_bare", over("weir_allow", "bare")),
        ("weir_allow_over_wasm_noop", over("weir_allow", "wasm_noop")),
        ("weir_fields_over_bare", over("weir_fields", "bare")),
        ("ratelimit_service_over_bare", over("ratelimit_service", "bare")),
        ("weir_added_over_ratelimit_service_added", share("weir_allow")),
        ("weir_deny_over_direct_answer", over("weir_deny", "direct_answer")),
    ]
    .into_iter()
    .map(|(name, values)| (name, Spread::of(&values)))
    .collect()
}

impl Steady {
    /// One tenant without pause, as an agent would be.
    async fn measure(stack: &Stack, rows: &mut [Row], effort: Effort) -> Result<Self> {
        let row = rows.iter_mut().find(|row| row.name == "weir_allow").context("no weir_allow")?;
        row.clients.send(effort.steady / 4).await.context(PLENTY)?;
        let before = Counts::of(&stack.gateways[1]).await?;
        row.clients.send(effort.steady).await?;
        let counted = Counts::of(&stack.gateways[1]).await?.since(&before);
        Ok(Self {
            waited_share: counted.waited / counted.admitted,
            calls_per_1000: counted.calls * 1_000.0 / counted.admitted,
        })
    }
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
