//! `weir reconcile` and its endpoint: quiet where all is well, and each broken row is found and named.

mod late;
mod priced;
mod providers;
mod quiet;
mod rows;
mod whole;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    harness::*,
    invoices::{run, start, tenant_since},
};

const JANUARY: &str = "2025-01-20T10:00:00Z";
const FEBRUARY: &str = "2025-02-20T10:00:00Z";

/// A tenant in USD since January 2025, at 10.00 a month and 0.01 a token.
async fn tenant(fleet: &Fleet, id: &str) -> Result<()> {
    let plan = json!({ "currency": "USD", "prices": [flat("10.00"), per_unit("0.01")] });
    tenant_since(fleet, id, "2025-01-01T00:00:00Z", plan, "UTC").await
}

/// Usage as the ledger stores it: a record, and the sum of its quarter hour.
async fn used(fleet: &Fleet, tenant: &str, quarter: &str, tokens: u64) -> Result<()> {
    let sql = format!(
        "insert into usage_record (gateway, worker, sequence, position, tenant_id, minute, meter, model,
                                   policy_version, tokens, requests)
         select 'g', 'w', count(*) + 1, 0, '{tenant}', '{quarter}'::timestamptz + interval '7 minutes',
                'default', '', 0, {tokens}, 1
         from usage_record"
    );
    fleet.stack.database.query(&sql).await?;
    crate::invoices::use_tokens(fleet, tenant, quarter, tokens).await
}

/// Runs SQL as somebody who gets past all triggers.
async fn break_by(fleet: &Fleet, sql: &str) -> Result<()> {
    let changed = fleet
        .stack
        .database
        .query(&format!("set session_replication_role = replica; {sql} returning 'changed'"))
        .await?;
    ensure!(changed.contains("changed"), "nothing was broken by {sql}: {changed}");
    Ok(())
}

/// What `weir reconcile` says, and whether it found nothing.
async fn reconcile(fleet: &Fleet, arguments: &[&str]) -> Result<(bool, String)> {
    let arguments: Vec<&str> = ["reconcile"].iter().chain(arguments).copied().collect();
    let output = fleet.stack.weir(&arguments).await?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(text)?))
}

/// All sections are there, something was compared, and nothing differs, by the command and by the
/// endpoint.
pub(crate) async fn agrees(fleet: &Fleet) -> Result<Value> {
    let (success, text) = reconcile(fleet, &[]).await?;
    ensure!(success && !text.contains("DIFFER"), "{text}");
    let report = fleet.admin.get("/reconciliation?providers=true").await?.ok()?;
    for section in report["sections"].as_array().context("sections")? {
        ensure!(section["differing"] == 0, "{section}");
    }
    ensure!(report["sections"][0]["compared"] != 0, "there is no usage: {report}");
    Ok(report)
}

/// A section of the report.
async fn section(fleet: &Fleet, check: &str) -> Result<Value> {
    let report = fleet.admin.get("/reconciliation?providers=true").await?.ok()?;
    let sections = report["sections"].as_array().context("sections")?;
    let found = sections.iter().find(|section| section["check"] == check);
    found.cloned().with_context(|| format!("no section {check}: {report}"))
}

/// Holds that these checks differ and no others, each once, and that the command fails and names the
/// difference; returns the differences.
async fn differ(fleet: &Fleet, checks: &[&str]) -> Result<Vec<Value>> {
    let report = fleet.admin.get("/reconciliation?providers=true").await?.ok()?;
    let mut found = Vec::new();
    for section in report["sections"].as_array().context("sections")? {
        let expected = checks.iter().any(|check| section["check"] == *check);
        ensure!((section["differing"] == 1) == expected, "{section}");
        found.extend(section["differences"].as_array().into_iter().flatten().cloned());
    }
    let (success, text) = reconcile(fleet, &[]).await?;
    ensure!(!success, "it found nothing: {text}");
    for difference in &found {
        let values = ["tenant", "number", "what", "first", "second", "difference"];
        for value in values.iter().filter_map(|name| difference[name].as_str()) {
            ensure!(text.contains(value), "{value} is not in {text}");
        }
    }
    Ok(found)
}
