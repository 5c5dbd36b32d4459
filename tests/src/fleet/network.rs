//! The network between gateways and the control plane fails in the middle of fleet load, and heals.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use xtask::stack::Network;

use super::{
    busy::{Busy, DRY, RECOVERS_WITHIN, Traces},
    trace::{Seen, Traffic},
};
use crate::{
    harness::{Fleet, SOON, monthly, per_unit, wait_for},
    leases::bucket,
};

const MAX_WAIT: Duration = Duration::from_secs(4);
/// Those whose network fails; that of the third is up all the time.
const STRUCK: [usize; 2] = [0, 1];

const LEASES: &str = "/edge/v1/leases";
const USAGE: &str = "/edge/v1/usage";
/// Two workers may call in turn; were it every other one, it could be all those of one of them.
const EVERY_THIRD: u64 = 3;

async fn linked() -> Result<Fleet> {
    let plugin = json!({
        "max_wait_ms": MAX_WAIT.as_millis(),
        "control_plane": { "timeout_ms": 1_000 },
    });
    Fleet::with(|stack| stack.gateways(3).links().plugin(plugin)).await
}

/// What each gateway calls itself, in their order.
async fn names(fleet: &Fleet) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (gateway, tenant) in fleet.stack.gateways.iter().zip(["first", "second", "third"]) {
        fleet.tenant(tenant, &[monthly(1_000)], &[]).await?;
        let request = reqwest::Client::new().get(gateway.url()).header("x-tenant-id", tenant);
        ensure!(request.send().await?.status() == 200);
        let held = &bucket(fleet, tenant, "monthly").await?["held"];
        let name = held.as_object().and_then(|held| held.keys().next()).context("not held")?;
        names.push(name.clone());
    }
    Ok(names)
}

/// When a network was not up, and what of `dry` may strand by that.
#[derive(Debug)]
struct Outage {
    #[allow(dead_code, reason = "errors show it")]
    network: Network,
    failed: Instant,
    healed: Instant,
    /// What [`STRUCK`] held when it failed, and what was granted to them while it lasted: a call whose
    /// answer is lost is a lease once, however often it is repeated.
    at_stake: u64,
}

impl Outage {
    /// Whether this client may be told so: it asked a gateway that could not ask the control plane.
    fn explains(&self, seen: &Seen) -> bool {
        let over = self.healed + RECOVERS_WITHIN;
        STRUCK.contains(&seen.gateway) && seen.answered >= self.failed && seen.sent <= over
    }
}

impl Busy {
    /// Lets the network of [`STRUCK`] fail until clients feel it, and heals it.
    async fn lose(&self, network: Network, names: &[String]) -> Result<Outage> {
        let links = &self.fleet.stack.links;
        let is_served = matches!(network, Network::Delay(delay) if delay < MAX_WAIT / 10);
        let before = self.held(names).await?;
        let failed = Instant::now();
        STRUCK.iter().for_each(|gateway| links[*gateway].set(network));
        let held = Cell::new((before, 0));
        // By gateway: where a lease of one ends, another may be granted something.
        let note_grants = async || {
            let (last, mut granted) = held.get();
            let now = self.held(names).await?;
            granted +=
                now.iter().zip(last).map(|(now, last)| now.saturating_sub(last)).sum::<u64>();
            held.set((now, granted));
            anyhow::Ok(())
        };
        wait_for("clients to feel it", SOON, async || {
            note_grants().await?;
            let felt = STRUCK.iter().all(|gateway| {
                let since = |status| self.wide.count_since(*gateway, status, failed);
                if is_served { since(200) >= 100 } else { since(503) > 0 }
            });
            let others_go_on = self.wide.count_since(2, 200, failed) >= 100;
            Ok((felt && others_go_on).then_some(()))
        })
        .await?;
        STRUCK.iter().for_each(|gateway| links[*gateway].set(Network::Up));
        let healed = Instant::now();
        // What was granted last may not be heard of before its lease ends: calls are repeated ever later.
        note_grants().await?;
        self.is_served_since(healed).await?;
        let at_stake = if is_served { 0 } else { before.iter().sum::<u64>() + held.get().1 };
        Ok(Outage { network, failed, healed, at_stake })
    }

    /// What each of [`STRUCK`] holds of `dry`.
    async fn held(&self, names: &[String]) -> Result<[u64; STRUCK.len()]> {
        let held = &bucket(&self.fleet, "dry", "monthly").await?["held"];
        Ok(STRUCK.map(|gateway| held[names[gateway].as_str()].as_u64().unwrap_or(0)))
    }
}

/// Networks fail in turn. At the end: what clients saw admitted is in the ledger, no limit is
/// exceeded, what is stranded is bounded, and no client is refused for another reason than its limit
/// unless its gateway's network is down.
async fn survives(networks: &[Network]) -> Result<()> {
    let fleet = linked().await?;
    let names = names(&fleet).await?;
    let busy = Busy::start(fleet).await?;
    busy.is_served_since(Instant::now()).await?;
    let mut outages = Vec::new();
    for network in networks {
        outages.push(busy.lose(*network, &names).await?);
    }
    let (fleet, traces) = busy.finish().await?;

    let mut admitted = u64::try_from(names.len())?;
    for (tenant, trace) in traces.by_tenant() {
        for seen in trace.0.iter().filter(|seen| ![200, 429].contains(&seen.status)) {
            let explained = outages.iter().any(|outage| outage.explains(seen));
            ensure!(seen.status == 503 && explained, "{seen:?} of {tenant} with {outages:?}");
            let waited = seen.answered - seen.sent;
            ensure!(waited <= MAX_WAIT + Duration::from_secs(3), "a 503 after {waited:?}");
        }
        fleet.ledger_reaches(tenant, trace.admitted()).await?;
        admitted += trace.admitted();
    }
    ensure!(fleet.stack.upstream.requests() == admitted, "some passed that clients did not see");
    let Traces { wide, dry, rate } = traces;
    ensure!(wide.of(429).next().is_none(), "a wide limit refuses");
    rate.keeps_the_law(100, 50)?;
    ensure!(dry.admitted() <= DRY, "{} of {DRY} are admitted", dry.admitted());
    let stranded = DRY - dry.admitted();
    let may_strand: u64 = outages.iter().map(|outage| outage.at_stake).sum();
    println!("{networks:?}: {stranded} of {DRY} are stranded, {may_strand} may be");
    ensure!(stranded <= may_strand, "{stranded} are stranded, {may_strand} may be: {outages:?}");
    let struck: u64 = fleet.stack.links.iter().map(|link| link.struck()).sum();
    let strikes = networks.iter().any(|network| !matches!(network, Network::Delay(_)));
    ensure!(struck > 0 || !strikes, "nothing was struck");
    Ok(())
}

/// Connections are reset, and new ones too.
#[tokio::test]
async fn the_network_is_cut() -> Result<()> {
    survives(&[Network::Cut]).await
}

/// Nothing is refused and nothing is answered.
#[tokio::test]
async fn the_network_swallows_everything() -> Result<()> {
    survives(&[Network::BlackHole]).await
}

/// Streams that end on one side, and answers without an end.
#[tokio::test]
async fn streams_are_half_closed() -> Result<()> {
    survives(&[Network::HalfClose, Network::EndlessAnswers]).await
}

/// A slow network is no outage; one so slow that each answer comes after its call was given up is
/// one, and each call is repeated before the control plane has heard it.
#[tokio::test]
async fn the_network_is_slow() -> Result<()> {
    survives(&[
        Network::Delay(Duration::from_millis(200)),
        Network::Delay(Duration::from_millis(1_500)),
    ])
    .await
}

/// The control plane does what it is asked, and nobody hears of it.
#[tokio::test]
async fn every_answer_is_lost() -> Result<()> {
    survives(&[Network::DropAnswers { path: "/", one_in: 1 }]).await
}

/// Of the answers that grant or take back leases every third is lost, at all gateways: their calls are
/// repeated and not debited again, so that exactly the limit is admitted.
#[tokio::test]
async fn lost_leases_are_not_debited_twice() -> Result<()> {
    const LIMIT: u64 = 3_000;
    let fleet = linked().await?;
    fleet.tenant("acme", &[monthly(LIMIT)], &[]).await?;
    for link in &fleet.stack.links {
        link.set(Network::DropAnswers { path: LEASES, one_in: EVERY_THIRD });
    }
    let traffic = Traffic::start(&fleet, "acme", &[6, 3, 2], Duration::from_millis(5))?;
    wait_for("the last token", SOON * 2, async || {
        let admitted = traffic.count(200);
        ensure!(admitted >= usize::try_from(LIMIT)?, "{admitted} of {LIMIT} are admitted");
        Ok(Some(()))
    })
    .await?;
    let refused = traffic.count(429);
    wait_for("more refusals", SOON, async || {
        Ok((traffic.count(429) >= refused + 500).then_some(()))
    })
    .await?;
    let trace = traffic.stop().await?;

    trace.only_admits_and_limits()?;
    ensure!(trace.admitted() == LIMIT, "{} of {LIMIT} are admitted", trace.admitted());
    for link in &fleet.stack.links {
        ensure!(link.struck() >= 2, "{} answers were lost", link.struck());
    }
    fleet.ledger_reaches("acme", LIMIT).await
}

/// Of the answers to usage every third is lost, at all gateways: each batch is stored once, and
/// billed once.
#[tokio::test]
async fn usage_that_is_sent_again_is_billed_once() -> Result<()> {
    let fleet = linked().await?;
    fleet.tenant("acme", &[monthly(1_000_000)], &[per_unit("0.01")]).await?;
    for link in &fleet.stack.links {
        link.set(Network::DropAnswers { path: USAGE, one_in: EVERY_THIRD });
    }
    let traffic = Traffic::start(&fleet, "acme", &[2, 2, 2], Duration::from_millis(5))?;
    wait_for("lost answers", SOON, async || {
        Ok(fleet.stack.links.iter().all(|link| link.struck() >= 4).then_some(()))
    })
    .await?;
    let trace = traffic.stop().await?;
    ensure!(trace.of(200).count() == trace.0.len(), "a wide limit refuses");
    fleet.ledger_reaches("acme", trace.admitted()).await?;
    wait_for("all to be acknowledged", SOON, async || {
        let mut stored = 0;
        for gateway in &fleet.stack.gateways {
            stored += gateway.weir_stat("stored").await?;
        }
        Ok((stored == trace.admitted()).then_some(()))
    })
    .await?;
    let preview = fleet.admin.get("/tenants/acme/invoices/preview").await?.ok()?;
    let cents = trace.admitted();
    let total = format!("{}.{:02}", cents / 100, cents % 100);
    ensure!(preview["total"] == total.as_str(), "{total} in {preview}");
    fleet.ledger_reaches("acme", trace.admitted()).await
}
