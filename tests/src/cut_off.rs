//! An Envoy whose network is cut while a billing period ends: what it admitted before the end is on the next
//! invoice, priced as if it had been on time.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xtask::{
    load::{Counts, Load, Until},
    stack::Network,
};

use crate::{
    harness::*,
    invoices::{invoices, run},
};

/// What a period costs in cents: 49.00, the first 200 tokens at 0.05, and all above at 0.01.
fn cost_minor(tokens: i64) -> i64 {
    4_900 + 5 * tokens.min(200) + (tokens - 200).max(0)
}

/// Seconds until the quarter hour ends by Postgres' clock, by which billing periods end.
async fn quarter_left_s(fleet: &Fleet) -> Result<i64> {
    let left = "select 900 - extract(epoch from clock_timestamp())::bigint % 900";
    Ok(fleet.stack.database.query(left).await?.trim().parse()?)
}

/// Lets the clock by which usage is stamped be ahead of Postgres', so that the quarter hour ends by it in
/// so many seconds.
async fn quarter_ends_in(fleet: &Fleet, seconds: i64) -> Result<()> {
    wait_for("a quarter hour that lasts", SOON * 4, async || {
        Ok((quarter_left_s(fleet).await? > 35).then_some(()))
    })
    .await?;
    let control_plane = &fleet.stack.control_planes[0];
    control_plane.kill();
    let ahead_s = quarter_left_s(fleet).await? - seconds;
    fleet.stack.redis.set_clock(ahead_s)?;
    control_plane.set_clock(ahead_s)?;
    control_plane.restart().await
}

/// Tokens and requests of the ledger, from a time or up to it.
async fn used(fleet: &Fleet, quarters: &str) -> Result<i64> {
    let sql = format!(
        "select coalesce(sum(tokens), 0), coalesce(sum(requests), 0) from usage_rollup where {quarters}"
    );
    let sums = fleet.stack.database.query(&sql).await?;
    let (tokens, requests) = sums.trim().split_once('|').context("two sums")?;
    ensure!(tokens == requests, "{sums}");
    Ok(tokens.parse()?)
}

fn minor(amount: &Value) -> Result<i64> {
    Ok(amount.as_str().context("no amount")?.replace('.', "").parse()?)
}

/// What clients saw admitted is what the ledger has, and the invoices' sum is what both periods cost with
/// that, by tiers that the first period had not used up when its invoice was made.
#[tokio::test]
async fn usage_across_the_end_of_a_period_comes_late_and_is_priced_as_if_on_time() -> Result<()> {
    let contract = json!({ "max_wait_ms": 500, "outage": { "then": "allow" } });
    let fleet = Fleet::with(|stack| stack.links().own_wall_clocks().plugin(contract)).await?;
    let prices = [flat("49.00"), graduated(&[(Some(200), "0.05"), (None, "0.01")])];
    fleet.tenant("acme", &[monthly(1_000_000)], &prices).await?;
    let seconds = 9;
    quarter_ends_in(&fleet, seconds).await?;
    let counts = Arc::new(Counts::default());
    fleet.load("acme", 4).run(Until::requests(150), &counts).await?;
    ensure!(counts.of(200) == 150, "{} of 150", counts.of(200));
    wait_for("usage in the ledger", SOON, async || {
        Ok((used(&fleet, "true").await? == 150).then_some(()))
    })
    .await?;

    fleet.stack.links[0].set(Network::Cut);
    // Until that quarter hour has ended for the Envoy, and some seconds longer.
    let cut_off = Load { pause: Duration::from_millis(20), ..fleet.load("acme", 4) };
    let span = Duration::from_secs(u64::try_from(seconds)? + 3);
    let ended = async {
        wait_for("somebody to be admitted meanwhile", SOON, async || {
            Ok((counts.of(200) > 250).then_some(()))
        })
        .await?;
        fleet.admin.post("/tenants/acme/billing-period/end", &json!({})).await?.ok()
    };
    let (loaded, ended) = tokio::join!(cut_off.run(Until::elapsed(span), &counts), ended);
    loaded?;
    let ended = ended?;
    let end = ended["period_end"].as_str().context("no end")?;
    assert_eq!(minor(&ended["total"])?, cost_minor(150));
    assert_eq!(used(&fleet, "true").await?, 150, "the cut lets usage through");

    fleet.stack.links[0].set(Network::Up);
    let admitted = i64::try_from(counts.of(200))?;
    wait_for("what was admitted in the ledger", SOON, async || {
        let used = used(&fleet, "true").await?;
        ensure!(used >= admitted, "{used} of {admitted}");
        Ok(Some(()))
    })
    .await?;
    let (before, after) = (
        used(&fleet, &format!("quarter < '{end}'")).await?,
        used(&fleet, &format!("quarter >= '{end}'")).await?,
    );
    ensure!(before > 200 && after > 0, "{before} and {after} of {admitted}");
    assert_eq!(before + after, admitted);

    let next = fleet.admin.get("/tenants/acme/invoices/preview?invoice=current").await?.ok()?;
    let after_grace =
        format!("select timestamptz {} + interval '1 hour'", quoted(&next["period_end"]));
    let after_grace = fleet.stack.database.query(&after_grace).await?;
    run(&fleet, &after_grace.trim().replace(' ', "T").replace("+00", "Z")).await?;
    let made = invoices(&fleet, "acme").await?;
    let [first, second] = &made[..] else { anyhow::bail!("{made:?}") };
    assert_eq!(first, &ended);
    let lines = second["lines"].as_array().context("lines")?;
    let amounts = lines.iter().map(|line| minor(&line["amount"])).collect::<Result<Vec<_>>>()?;
    let late = cost_minor(before) - cost_minor(150);
    assert_eq!(amounts, [4_900, cost_minor(after) - 4_900, late]);
    assert_eq!(lines[2]["kind"], "adjustment");
    assert_eq!(
        minor(&first["total"])? + minor(&second["total"])?,
        cost_minor(before) + cost_minor(after)
    );
    let billed = "select sum(tokens), sum(requests) from invoice_quantity";
    assert_eq!(fleet.stack.database.query(billed).await?.trim(), format!("{admitted}|{admitted}"));
    crate::reconciliation::agrees(&fleet).await.map(drop)
}

fn quoted(time: &Value) -> String {
    time.to_string().replace('"', "'")
}
