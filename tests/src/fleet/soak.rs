//! All faults at once: a run of random faults under load, and the laws at its end.
//!
//! `cargo xtask soak --minutes N` runs it for longer; a failure says with which seed the same faults
//! come again.

mod customers;
mod faults;
mod laws;

use std::{
    cell::Cell,
    env,
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use self::{
    customers::{COSTS, Customers},
    faults::{Fault, Kill},
};
use crate::{
    harness::{Fleet, SOON, trapping_filter, wait_for},
    leases::Numbers,
};

const SEED: &str = "WEIR_SOAK_SEED";
const MINUTES: &str = "WEIR_SOAK_MINUTES";
/// What a worker leaves that is gone is stored within this.
const STORED_WITHIN: Duration = Duration::from_secs(8);
/// The most faults at once.
const AT_ONCE: usize = 3;

/// A run, and what must be known of it to check the laws.
struct Soak {
    fleet: Fleet,
    customers: Customers,
    kills: Vec<Kill>,
    started: Instant,
}

/// A fault that has struck.
struct Active {
    fault: Fault,
    until: Instant,
}

fn number_in(variable: &str) -> Result<Option<u64>> {
    let text = env::var(variable).ok();
    text.map(|text| text.parse().with_context(|| format!("{variable}={text}"))).transpose()
}

/// Faults at random for a minute, or as long as asked for. Whatever struck: no limit is exceeded, what
/// clients saw admitted is in the ledger and on the invoice once, and only what was on its way in an
/// Envoy that was killed is missing there.
#[tokio::test]
async fn the_laws_hold_through_random_faults() -> Result<()> {
    let minutes = number_in(MINUTES)?.unwrap_or(1);
    let seed = number_in(SEED)?.unwrap_or_else(|| RandomState::new().hash_one(minutes) >> 32);
    println!("{MINUTES}={minutes} {SEED}={seed}");
    let again = || format!("{SEED}={seed} (cargo xtask soak --minutes {minutes} --seed {seed})");
    let mut soak = Soak::start().await.with_context(again)?;
    soak.go_on(seed, Duration::from_secs(60 * minutes)).await.with_context(again)?;
    soak.end().await.with_context(again)
}

impl Soak {
    /// Two replicas, and a gateway for each of [`COSTS`] behind a link.
    async fn start() -> Result<Self> {
        let plugin = json!({ "max_wait_ms": 2_000, "control_plane": { "timeout_ms": 1_000 } });
        let filter = trapping_filter().await?;
        let mut fleet = Fleet::with_own_postgres(|stack| {
            stack.control_planes(2).gateways(0).links().filter(filter).own_wall_clocks()
        })
        .await?;
        for cost in COSTS {
            let mut plugin = plugin.clone();
            plugin["cost"] = cost.into();
            fleet.stack.add_gateway(&plugin).await?;
        }
        let customers = Customers::start(&fleet).await?;
        Ok(Self { fleet, customers, kills: Vec::new(), started: Instant::now() })
    }

    /// Lets faults strike and mends them, for so long; then mends all.
    async fn go_on(&mut self, seed: u64, span: Duration) -> Result<()> {
        // How many pauses there are depends on time; which faults come must not.
        let (mut faults, mut pauses) = (Numbers(seed), Numbers(seed));
        let ends = self.started + span;
        let mut active: Vec<Active> = Vec::new();
        while Instant::now() < ends || !active.is_empty() {
            if Instant::now() < ends && active.len() < AT_ONCE {
                let (fault, lasts) = Fault::at_random(&mut faults);
                if !active.iter().any(|active| active.fault.excludes(&fault)) {
                    self.say("strikes", &fault);
                    fault.strike(self).await.with_context(|| format!("{fault:?}"))?;
                    active.push(Active { fault, until: Instant::now() + lasts });
                }
            }
            tokio::time::sleep(Duration::from_millis(100 + pauses.below(600))).await;
            self.mend_what_is_due(&mut active, ends).await?;
        }
        Ok(())
    }

    /// One that needs what is still broken waits.
    async fn mend_what_is_due(&mut self, active: &mut Vec<Active>, ends: Instant) -> Result<()> {
        let mut at = 0;
        while at < active.len() {
            let fault = active[at].fault;
            let due = Instant::now() >= active[at].until.min(ends);
            let needs = |other: &Active| fault.needs(&other.fault);
            if due && !active.iter().any(needs) {
                fault.mend(self).await.with_context(|| format!("the end of {fault:?}"))?;
                self.say("is over", &fault);
                active.remove(at);
                at = 0;
            } else {
                at += 1;
            }
        }
        Ok(())
    }

    fn say(&self, what: &str, fault: &Fault) {
        let (at, seen) = (self.started.elapsed(), self.customers.count(200));
        println!("{:6.1} s, {seen} admitted: {fault:?} {what}", at.as_secs_f64());
    }

    /// All is mended: every customer is served again, and the laws held.
    async fn end(self) -> Result<()> {
        let healed = Instant::now();
        let mut customers = self.customers;
        customers.top_up(&self.fleet, 500).await?;
        wait_for("everybody to be served", SOON * 2, async || {
            let unserved = customers.unserved_since(healed);
            ensure!(unserved.is_empty(), "{unserved:?} are not");
            Ok(Some(()))
        })
        .await?;
        let observed = customers.stop().await?;
        nothing_is_stored_any_more(&self.fleet).await?;
        laws::check(&self.fleet, &observed, &self.kills).await
    }
}

/// Waits until all is stored that ever will be: what workers that trapped had counted is lost, so what
/// gateways have stored stays behind what they admitted.
async fn nothing_is_stored_any_more(fleet: &Fleet) -> Result<()> {
    let last = Cell::new((0, Instant::now()));
    wait_for("all usage to be stored", SOON * 2, async || {
        let mut stored = 0;
        for gateway in &fleet.stack.gateways {
            stored += gateway.weir_stat("stored").await?;
        }
        let (before, since) = last.get();
        if stored != before {
            last.set((stored, Instant::now()));
        }
        Ok((stored == before && since.elapsed() >= STORED_WITHIN).then_some(()))
    })
    .await
}
