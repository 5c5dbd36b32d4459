//! A policy gets to every worker of every gateway, and so does each change of it.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{books_are, detail, everywhere, is_everywhere, is_shown, marked};
use crate::harness::{Fleet, monthly};

/// Chosen, given a new text, taken back, exchanged for another and taken away: all workers of both
/// gateways follow, and operators see the version that each gateway has.
#[tokio::test]
async fn every_change_of_a_policy_is_everywhere() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(2)).await?;
    fleet.tenant("acme", &[monthly(super::PLENTY)], &[]).await?;
    let none = |answer: &crate::harness::Answer| answer.status == 200;
    let without = everywhere(&fleet, "acme", "/which", "no policy", none).await?;
    is_shown(&fleet, 0).await?;

    let first = fleet.rate_by_marked("first", "cost := 2").await?;
    is_shown(&fleet, first).await?;
    // What is not chosen, or does not compile, changes nothing.
    fleet.put_policy("other", &marked("other", "cost := 9")).await?.ok()?;
    ensure!(fleet.put_policy("main", "package weir.rating\nallow :=").await?.status == 400);
    ensure!(detail(&fleet.ask(1, "acme", "/which").await?) == "first");

    let second = fleet.rate_by_marked("second", "cost := 3").await?;
    is_shown(&fleet, second).await?;
    let back = json!({ "version": first });
    fleet.admin.post("/policies/main/roll-back", &back).await?.ok()?;
    is_everywhere(&fleet, "first").await?;
    is_shown(&fleet, first).await?;
    fleet.choose(Some("other")).await?.ok()?;
    is_everywhere(&fleet, "other").await?;
    is_shown(&fleet, fleet.policy_version("other").await?).await?;

    fleet.choose(None).await?.ok()?;
    let after = everywhere(&fleet, "acme", "/which", "no policy", none).await?;
    is_shown(&fleet, 0).await?;
    let all = without + after;
    books_are(&fleet, "acme", &[("default", 0, all, all)]).await
}

/// Two operators' changes in a row, the second of which comes while the first is on its way.
#[tokio::test]
async fn the_last_of_many_changes_stays() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(2)).await?;
    fleet.tenant("acme", &[monthly(super::PLENTY)], &[]).await?;
    for round in 0..4 {
        for number in 0..6 {
            let text = marked(&format!("{round}-{number}"), "");
            fleet.put_policy("main", &text).await?.ok()?;
            fleet.choose(if number == 3 { None } else { Some("main") }).await?.ok()?;
        }
        is_everywhere(&fleet, &format!("{round}-5")).await?;
        is_shown(&fleet, fleet.policy_version("main").await?).await?;
    }
    Ok(())
}
