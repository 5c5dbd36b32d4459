//! Tenants with limits of each kind, their load, and what was changed for them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{
    fleet::trace::{Trace, Traffic},
    harness::{Fleet, Limit, SOON, continuous, monthly, per_unit, periodic, wait_for},
};

/// Tokens of a request at each gateway.
pub(super) const COSTS: [u64; 3] = [1, 1, 3];

/// So many tokens, and so many per second that come back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    pub(super) capacity: u64,
    pub(super) per_second: u64,
}

const fn rate(capacity: u64, per_second: u64) -> Rate {
    Rate { capacity, per_second }
}

/// The limit of `spent`, which is adjusted.
pub(super) const SPENT: u64 = 1_500;
/// Tenants, and their continuous limit where they have one; of two plans the more generous one.
pub(super) const CUSTOMERS: [(&str, Option<Rate>); 6] = [
    ("wide", None),
    ("spent", None),
    ("rate", Some(rate(100, 50))),
    ("both", Some(rate(60, 40))),
    ("moving", Some(rate(100, 50))),
    ("paused", None),
];

/// A limit was changed while it was under load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Adjusted {
    pub(super) by: i64,
    pub(super) sent: Instant,
    pub(super) answered: Instant,
    /// Otherwise nobody knows whether it came about.
    pub(super) confirmed: bool,
}

/// A tenant was suspended from when the control plane said so until it was told to end that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Suspended {
    pub(super) told: Instant,
    pub(super) resumed: Option<Instant>,
}

#[derive(Default)]
pub(super) struct Changes {
    /// Of `spent`.
    pub(super) adjusted: Vec<Adjusted>,
    /// Of `paused`.
    pub(super) suspended: Vec<Suspended>,
}

pub(super) struct Customers {
    loads: Vec<(&'static str, Traffic)>,
    pub(super) changes: Changes,
}

/// What clients saw, by tenant.
pub(super) struct Observed {
    pub(super) traces: Vec<(&'static str, Trace)>,
    pub(super) changes: Changes,
}

fn limits(tenant: &str) -> Vec<Limit> {
    let tokens = |rate: Rate| continuous("rate", "tokens", rate.capacity, rate.per_second, 1_000);
    let of_rate = CUSTOMERS.iter().find(|(name, _)| *name == tenant).and_then(|(_, rate)| *rate);
    let mut limits: Vec<_> = of_rate.map(tokens).into_iter().collect();
    match tenant {
        "spent" => limits.push(monthly(SPENT)),
        "both" => limits.push(periodic("daily", "requests", 1_000_000, json!("day"))),
        "wide" | "paused" => limits.push(monthly(10_000_000)),
        _ => {}
    }
    limits
}

impl Customers {
    pub(super) async fn start(fleet: &Fleet) -> Result<Self> {
        let prices = [per_unit("0.01")];
        let slow = json!({
            "currency": "USD",
            "limits": [continuous("rate", "tokens", 60, 20, 1_000)],
            "prices": prices,
        });
        fleet.admin.put("/plans/slow", &slow).await?.ok()?;
        let mut loads = Vec::new();
        for (tenant, _) in CUSTOMERS {
            fleet.tenant(tenant, &limits(tenant), &prices).await?;
            let pause = Duration::from_millis(if tenant == "wide" { 20 } else { 40 });
            loads.push((tenant, Traffic::start(fleet, tenant, &[1; COSTS.len()], pause)?));
        }
        Ok(Self { loads, changes: Changes::default() })
    }

    pub(super) fn count(&self, status: u16) -> usize {
        self.loads.iter().map(|(_, load)| load.count(status)).sum()
    }

    /// Who is not served since then: a tenant that no gateway has admitted, or a gateway that has
    /// neither admitted it nor refused it for its limit.
    pub(super) fn unserved_since(&self, since: Instant) -> Vec<String> {
        let mut unserved = Vec::new();
        for (tenant, load) in &self.loads {
            let count = |gateway, status| load.count_since(gateway, status, since);
            if (0..COSTS.len()).all(|gateway| count(gateway, 200) == 0) {
                unserved.push(format!("{tenant} anywhere"));
            }
            for gateway in 0..COSTS.len() {
                if count(gateway, 200) + count(gateway, 429) == 0 {
                    let last = load.last_at(gateway);
                    unserved.push(format!("{tenant} at gateway {gateway}, last: {last:?}"));
                }
            }
        }
        unserved
    }

    /// Adds to the limit of `spent`, or takes from it; the control plane may be away.
    pub(super) async fn adjust(&mut self, fleet: &Fleet, by: i64) {
        let sent = Instant::now();
        let path = "/tenants/spent/buckets/monthly/adjustments";
        let answer = fleet.admin.post(path, &json!({ "amount": by, "reason": "soak" })).await;
        let confirmed = answer.is_ok_and(|answer| answer.status == 201);
        self.changes.adjusted.push(Adjusted { by, sent, answered: Instant::now(), confirmed });
    }

    /// Adds to the limit of `spent`, now that all works.
    pub(super) async fn top_up(&mut self, fleet: &Fleet, by: i64) -> Result<()> {
        // What has just come back may still refuse; what was refused may have been done.
        let deadline = Instant::now() + SOON;
        loop {
            self.adjust(fleet, by).await;
            if self.changes.adjusted.last().is_some_and(|last| last.confirmed) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "no top-up");
        }
    }

    /// The control plane may be away.
    pub(super) async fn suspend(&mut self, fleet: &Fleet) {
        let answer = fleet.admin.post("/tenants/paused/suspend", &json!(null)).await;
        if answer.is_ok_and(|answer| answer.status < 300) {
            self.changes.suspended.push(Suspended { told: Instant::now(), resumed: None });
        }
    }

    pub(super) async fn resume(&mut self, fleet: &Fleet) -> Result<()> {
        if let Some(last) = self.changes.suspended.last_mut() {
            last.resumed.get_or_insert_with(Instant::now);
        }
        wait_for("the tenant to be resumed", SOON, async || {
            fleet.admin.post("/tenants/paused/resume", &json!(null)).await?.ok().map(Some)
        })
        .await
        .map(drop)
    }

    /// The control plane may be away.
    pub(super) async fn slow_down(&self, fleet: &Fleet) {
        let _ = fleet.admin.patch("/tenants/moving", &json!({ "plan": "slow" })).await;
    }

    pub(super) async fn speed_up(&self, fleet: &Fleet) -> Result<()> {
        wait_for("the plan to be changed", SOON, async || {
            let plan = json!({ "plan": "moving-plan" });
            fleet.admin.patch("/tenants/moving", &plan).await?.ok().map(Some)
        })
        .await
        .map(drop)
    }

    pub(super) async fn stop(self) -> Result<Observed> {
        let mut traces = Vec::new();
        for (tenant, load) in self.loads {
            traces.push((tenant, load.stop().await?));
        }
        Ok(Observed { traces, changes: self.changes })
    }
}
