//! `kill -9` of the control plane while services call it.

use std::{
    collections::BTreeMap,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::task::{JoinSet, LocalSet};

use super::{ALLOW, request, services, stored};
use crate::harness::*;

const LIMIT: u64 = 100_000;
/// What each caller sends at least.
const CALLS: usize = 30;

/// Reports of all callers of the other test.
const REPORTS: usize = 60;

/// What a caller was told of each of its requests: true or false; nothing where it was not answered.
type Told = BTreeMap<String, Option<bool>>;

async fn call(api: Api, caller: usize, over: Arc<AtomicBool>) -> Result<Told> {
    let mut told = Told::new();
    for number in 0.. {
        if number >= CALLS && over.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("{caller}-{number}");
        let answer = match api.post(ALLOW, &request("acme", &id)).await {
            Ok(answer) if answer.status == 200 => answer.json()?["result"].as_bool(),
            Ok(answer) => {
                ensure!(answer.status >= 500, "{} {}", answer.status, answer.body);
                None
            }
            Err(_) => None,
        };
        told.insert(id, answer);
    }
    Ok(told)
}

/// Callers whose control plane is killed in the middle of their calls: each request that was admitted is
/// in the ledger once, one that was not answered is there once at most; repeated afterwards, all are
/// there once.
#[tokio::test]
async fn requests_that_are_repeated_after_a_kill_count_once() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.control_planes(2).gateways(0)).await?;
    fleet.tenant("acme", &[monthly(LIMIT)], &[]).await?;
    let over = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for caller in 0..8 {
        let api = services(&fleet).await?.into_iter().nth(caller % 2).context("a replica")?;
        callers.spawn(call(api, caller, Arc::clone(&over)));
    }
    for round in 0..4 {
        let replica = &fleet.stack.control_planes[round % 2];
        let counted = async || stored(&fleet, "acme").await;
        let before = counted().await?;
        wait_for("calls to be under way", SOON, async || {
            Ok((counted().await? != before).then_some(()))
        })
        .await?;
        replica.kill();
        replica.restart().await?;
    }
    over.store(true, Ordering::Relaxed);
    let mut told = Told::new();
    while let Some(ended) = callers.join_next().await {
        told.append(&mut ended??);
    }

    let count = |what: Option<bool>| told.values().filter(|answer| **answer == what).count();
    let (admitted, unanswered) = (count(Some(true)), count(None));
    ensure!(count(Some(false)) == 0 && unanswered > 0, "{unanswered} were not answered");
    let ledger = stored(&fleet, "acme").await?;
    let recorded: usize = ledger.split('|').nth(1).context("no requests")?.parse()?;
    ensure!(
        (admitted..=admitted + unanswered).contains(&recorded),
        "{admitted} were admitted and {unanswered} not answered, but {recorded} are recorded"
    );

    let api = services(&fleet).await?.swap_remove(0);
    for id in told.keys() {
        let answer = api.post(ALLOW, &request("acme", id)).await?.ok()?;
        ensure!(answer == json!({ "result": true }), "{id}: {answer}");
    }
    assert_eq!(stored(&fleet, "acme").await?, format!("{0}|{0}", told.len()));
    Ok(())
}

/// Reports a sixth, each until it is answered.
async fn report(api: Rc<Api>, caller: usize) -> Result<()> {
    for number in 0..REPORTS / 6 {
        let key = format!("{caller}-{number}");
        let body = json!({ "key": key, "tenant": "acme", "tokens": 3, "requests": 1 });
        wait_for("a report to be answered", SOON, async || {
            Ok(api.post("/usage", &body).await.ok().filter(|answer| answer.status == 200))
        })
        .await?;
    }
    Ok(())
}

/// The same for what was used before it is reported: it is recorded once, and owed at least once.
#[tokio::test]
async fn reports_that_are_repeated_after_a_kill_count_once() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(0)).await?;
    fleet.tenant("acme", &[monthly(LIMIT)], &[]).await?;
    let api = Rc::new(services(&fleet).await?.swap_remove(0));
    let mut callers = JoinSet::new();
    LocalSet::new()
        .run_until(async {
            for caller in 0..6 {
                callers.spawn_local(report(Rc::clone(&api), caller));
            }
            for _ in 0..3 {
                fleet.stack.control_planes[0].kill();
                fleet.stack.control_planes[0].restart().await?;
            }
            while let Some(ended) = callers.join_next().await {
                ended??;
            }
            anyhow::Ok(())
        })
        .await?;
    assert_eq!(stored(&fleet, "acme").await?, format!("{}|{REPORTS}", 3 * REPORTS));
    let left = crate::leases::bucket(&fleet, "acme", "monthly").await?["remaining"].as_u64();
    ensure!(left.context("nothing is left")? <= LIMIT - 3 * REPORTS as u64, "{left:?} are left");
    Ok(())
}
