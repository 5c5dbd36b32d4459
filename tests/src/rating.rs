//! Rating by policies in gateways: each request by exactly one version, and the ledger says by which.
//!
//! Policies here are [`marked`]: who asks for `/which` is denied with the mark as the reason, which costs
//! nothing and tells which policy a worker has.

mod cost;
mod denied;
mod examples;
mod failing;
mod hostile;
mod models;
mod outage;
mod plans;
mod replaced;
mod spread;
mod strangers;
mod traffic;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::harness::{Answer, Fleet, SOON, wait_for};

/// More than any test takes.
const PLENTY: u64 = 100_000_000;

/// A policy with these rules that allows all but `/which`, unless they say otherwise.
fn marked(mark: &str, rules: &str) -> String {
    format!(
        "package weir.rating\n\ndefault allow := true\n\nallow := false if input.path == \"/which\"\n\n\
         reason := \"{mark}\" if input.path == \"/which\"\n\n{rules}\n"
    )
}

impl Fleet {
    /// Has all gateways rate by this text, as the policy `main`; its version. They may not have it yet.
    async fn rate_by(&self, text: &str) -> Result<u64> {
        self.put_policy("main", text).await?.ok()?;
        self.choose(Some("main")).await?.ok()?;
        self.policy_version("main").await
    }

    /// The same with a [`marked`] one, which every worker has when this returns.
    async fn rate_by_marked(&self, mark: &str, rules: &str) -> Result<u64> {
        let version = self.rate_by(&marked(mark, rules)).await?;
        is_everywhere(self, mark).await?;
        Ok(version)
    }

    /// One request to this gateway, on a connection of its own, so that it gets to any worker.
    async fn ask(&self, gateway: usize, tenant: &str, path: &str) -> Result<Answer> {
        let url = format!("{}{path}", self.stack.gateways[gateway].url());
        let client = reqwest::Client::builder().timeout(2 * SOON).build()?;
        Answer::of(client.get(url).header("x-tenant-id", tenant)).await
    }
}

/// How often in a row a gateway must answer alike, on connections of their own: so that none of its two
/// workers is left out.
const IN_A_ROW: usize = 12;

/// Whom workers are asked as for their policy: those that have none yet admit it.
const PROBE: &str = "probe";

/// Waits until every worker of every gateway answers `/which` with this mark; to [`PROBE`], which is made
/// if need be.
async fn is_everywhere(fleet: &Fleet, mark: &str) -> Result<()> {
    if fleet.admin.get(&format!("/tenants/{PROBE}")).await?.status == 404 {
        fleet.tenant(PROBE, &[], &[]).await?;
    }
    let is_it = |answer: &Answer| answer.status == 403 && detail(answer) == mark;
    everywhere(fleet, PROBE, "/which", mark, is_it).await.map(drop)
}

/// Waits until every worker of every gateway answers so; how many requests were admitted meanwhile.
async fn everywhere(
    fleet: &Fleet,
    tenant: &str,
    path: &str,
    what: &str,
    is_it: impl Fn(&Answer) -> bool,
) -> Result<u64> {
    let mut admitted = 0;
    for gateway in 0..fleet.stack.gateways.len() {
        let seen = std::cell::Cell::new(0);
        wait_for(&format!("`{what}` at the gateway {gateway}"), SOON, async || {
            for _ in 0..IN_A_ROW {
                let answer = fleet.ask(gateway, tenant, path).await?;
                seen.set(seen.get() + u64::from(answer.status == 200));
                ensure!(is_it(&answer), "{answer:?}");
            }
            Ok(Some(()))
        })
        .await?;
        admitted += seen.get();
    }
    Ok(admitted)
}

/// Waits until all gateways, and no others, show this version to operators; 0 for none.
async fn is_shown(fleet: &Fleet, version: u64) -> Result<()> {
    wait_for(&format!("the version {version} to be shown"), SOON, async || {
        let shown = fleet.admin.get("/gateways").await?.ok()?;
        let items = shown["items"].as_array().context("no items")?;
        let alike = items.iter().all(|gateway| gateway["policy_version"] == version);
        ensure!(alike && items.len() == fleet.stack.gateways.len(), "{shown}");
        Ok(Some(()))
    })
    .await
}

/// The detail of a problem; empty of anything else.
fn detail(answer: &Answer) -> String {
    let problem = answer.json().unwrap_or_default();
    problem["detail"].as_str().unwrap_or_default().to_owned()
}

/// Tokens and requests by meter and version of the policy.
type Books = BTreeMap<(String, u64), (u64, u64)>;

/// What the ledger has of a tenant.
async fn books(fleet: &Fleet, tenant: &str) -> Result<Books> {
    let sums = format!(
        "select meter, policy_version, sum(tokens), sum(requests) from usage_record
         where tenant_id = '{tenant}' group by meter, policy_version"
    );
    let mut books = Books::new();
    for row in fleet.stack.database.query(&sums).await?.lines() {
        let [meter, version, tokens, requests] = row.split('|').collect::<Vec<_>>()[..] else {
            anyhow::bail!("not four columns: {row}");
        };
        let key = (meter.to_owned(), version.parse()?);
        books.insert(key, (tokens.parse()?, requests.parse()?));
    }
    Ok(books)
}

/// Waits until the ledger has exactly this of a tenant: meter, version, tokens, requests.
async fn books_are(fleet: &Fleet, tenant: &str, expected: &[(&str, u64, u64, u64)]) -> Result<()> {
    let rows = expected.iter().filter(|(.., requests)| *requests > 0);
    let expected: Books = rows
        .map(|(meter, version, tokens, requests)| {
            (((*meter).to_owned(), *version), (*tokens, *requests))
        })
        .collect();
    wait_for(&format!("the ledger of {tenant}"), SOON, async || {
        let books = books(fleet, tenant).await?;
        ensure!(books == expected, "the ledger has {books:?}\nexpected {expected:?}");
        Ok(Some(()))
    })
    .await
}

/// Refused for this reason, as a problem.
fn is_refused(answer: &Answer, status: u16, reason: &str) -> Result<()> {
    let told = answer.header("x-weir-reason");
    ensure!((answer.status, told) == (status, reason), "expected {status} {reason}: {answer:?}");
    ensure!(answer.header("content-type") == "application/problem+json", "{answer:?}");
    let problem = answer.json()?;
    ensure!(problem["reason"] == reason && problem["status"] == status, "{problem}");
    Ok(())
}

/// The plugin configuration of a gateway that is added later: as patient as the harness' own.
fn patient(fields: Value) -> Value {
    let mut plugin = json!({ "max_wait_ms": 5_000, "control_plane": { "timeout_ms": 3_000 } });
    if let (Value::Object(plugin), Value::Object(fields)) = (&mut plugin, fields) {
        plugin.extend(fields);
    }
    plugin
}
