//! A policy that fails at run time.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{books_are, is_refused};
use crate::harness::{Answer, Fleet, SOON, monthly, wait_for};

/// Undefined but for one path; endless for another.
const FAILS: &str = "cost := 3 if input.path == \"/priced\"

cost := count(pairs) if input.path == \"/endless\"

cost := 1 / 2 if input.path == \"/half\"

cost := \"much\" if input.path == \"/much\"

cost := 4 if input.path == \"/two\"

cost := 5 if startswith(input.path, \"/tw\")

meter := \"no such meter\" if input.path == \"/meter\"

default meter := \"default\"

numbers := [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]

pairs := [1 | numbers[_]; numbers[_]; numbers[_]; numbers[_]]";

const FAILING: [(&str, &str); 5] = [
    ("/unpriced", "`cost` is undefined"),
    ("/endless", "more than 20000 steps"),
    ("/half", "`cost` must be a whole number"),
    ("/much", "`cost` must be a whole number"),
    ("/two", ""),
];

/// By default it denies what it fails for, and nothing else; the stat counts, and the log says which
/// policy, which version and why.
#[tokio::test]
async fn what_fails_is_refused_and_named() -> Result<()> {
    let fleet = Fleet::start().await?;
    fleet.tenant("acme", &[monthly(1_000)], &[]).await?;
    let version = fleet.rate_by_marked("fails", FAILS).await?;
    let gateway = &fleet.stack.gateways[0];
    let passed = fleet.stack.upstream.requests();
    for (path, cause) in FAILING {
        let before = gateway.log()?.len();
        // The log says so once a second in each worker.
        wait_for(&format!("the log to name {path}"), SOON, async || {
            let answer = fleet.ask(0, "acme", path).await?;
            is_refused(&answer, 503, "policy_failed")?;
            ensure!(answer.header("retry-after") == "1", "{answer:?}");
            let log = gateway.log()?;
            let log = log.get(before..).unwrap_or_default();
            let name = format!("the policy main, version {version}, failed: ");
            let said = log.lines().any(|line| line.contains(&name) && line.contains(cause));
            ensure!(said, "{log}");
            Ok(Some(()))
        })
        .await?;
    }
    ensure!(fleet.stack.upstream.requests() == passed);
    for _ in 0..10 {
        ensure!(fleet.ask(0, "acme", "/priced").await?.status == 200);
    }
    let stat = async |name: &str| gateway.weir_stat(name).await;
    wait_for("the stats", SOON, async || {
        let (failures, refused) =
            (stat("policy_failures").await?, stat("refused.policy_failed").await?);
        ensure!(failures >= 5 && failures == refused, "{failures} failures, {refused} refused");
        Ok(Some(()))
    })
    .await?;
    books_are(&fleet, "acme", &[("default", version, 30, 10)]).await
}

/// A failure that comes with each request is logged now and then only.
#[tokio::test]
async fn failures_do_not_fill_the_log() -> Result<()> {
    let fleet = Fleet::start().await?;
    fleet.tenant("acme", &[monthly(1_000)], &[]).await?;
    let version = fleet.rate_by_marked("fails", FAILS).await?;
    let began = std::time::Instant::now();
    let gateway = &fleet.stack.gateways[0];
    let load = xtask::load::Load {
        urls: vec![format!("{}/endless", gateway.url())],
        ..fleet.load("acme", 8)
    };
    let counts = std::sync::Arc::default();
    load.run(xtask::load::Until::requests(4_000), &counts).await?;
    let took = began.elapsed();
    ensure!(counts.of(503) == 4_000, "{:?}", counts.by_status());
    let name = format!("the policy main, version {version}, failed: ");
    let lines = gateway.log()?.lines().filter(|line| line.contains(&name)).count();
    println!("{lines} lines in {took:?}");
    ensure!((1..=2 * (took.as_secs() + 1)).contains(&(lines as u64)), "{lines} in {took:?}");
    Ok(())
}

/// `policy_failure: allow` lets it pass at the configured cost, under the version that failed.
#[tokio::test]
async fn what_fails_can_pass_at_the_configured_cost() -> Result<()> {
    let plugin = json!({ "policy_failure": "allow", "cost": 6 });
    let fleet = Fleet::with(|stack| stack.plugin(plugin)).await?;
    fleet.tenant("acme", &[monthly(1_000)], &[]).await?;
    let version = fleet.rate_by_marked("fails", FAILS).await?;
    for (path, _) in FAILING {
        for _ in 0..2 {
            let answer: Answer = fleet.ask(0, "acme", path).await?;
            ensure!(answer.status == 200, "{path}: {answer:?}");
        }
    }
    ensure!(fleet.ask(0, "acme", "/priced").await?.status == 200);
    wait_for("the stat", SOON, async || {
        let failures = fleet.stack.gateways[0].weir_stat("policy_failures").await?;
        ensure!(failures == 10, "{failures} failures");
        Ok(Some(()))
    })
    .await?;
    books_are(&fleet, "acme", &[("default", version, 63, 11)]).await
}
