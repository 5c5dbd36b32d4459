//! The law, for calls of language models: the ledger has what the upstream said, and what was reserved
//! beyond that is back in the bucket.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{
    CAPACITY, Models,
    books::{self, Sums, Used, settlement},
    clients::{self, Seen},
    upstream::Call,
};
use crate::harness::{SOON, wait_for};

/// A thousand calls by the providers' own clients: both APIs, streams and not, cut anywhere, answered
/// with errors, without usage or compressed, and given up by either side. Those that came to their end
/// are in the ledger as the upstream said, meter by meter; those that were given up at what had come.
#[tokio::test]
async fn a_thousand_mixed_calls_are_settled_as_the_upstream_says() -> Result<()> {
    let models = Models::start(json!({})).await?;
    models.tenants(&["whole", "broken"]).await?;
    let seen = clients::call(&models.fleet, &["--calls", "1000", "--seed", "17"]).await?;
    ensure!(seen.len() == 1_000, "{} calls were made", seen.len());
    let calls = calls_by_id(&models)?;
    ensure!(calls.len() == 1_000, "{} of 1000 calls reached the upstream", calls.len());
    for seen in &seen {
        saw_what_was_said(seen, calls.get(&seen.id).context("it did not reach the upstream")?)?;
    }

    let whole = books::are_exact(&models, "whole", CAPACITY).await?;
    let broken = are_within_bounds(&models, &seen, &calls).await?;
    ensure!(whole.len() == 4 && broken.len() == 4, "each model has calls: {whole:?}, {broken:?}");
    let gateway = &models.fleet.stack.gateways[0];
    let used = books::total(&whole) + books::total(&broken);
    wait_for("the stats to agree", SOON, async || {
        let stats = [
            gateway.weir_stat("model_calls").await?,
            gateway.weir_stat("admitted").await?,
            gateway.weir_stat("stored").await?,
            gateway.weir_stat("admitted_tokens").await?,
        ];
        ensure!(stats == [1_000, 1_000, 1_000, used], "{stats:?}, {used} tokens");
        Ok(Some(()))
    })
    .await?;
    let free = calls.values().filter(|call| call.tenant == "whole" && is_free(call)).count();
    let counted = gateway.weir_stat("settled_free").await?;
    ensure!(counted >= free as u64 && free > 50, "{counted} are free, {free} failed");
    ensure!(gateway.weir_stat("settled_estimated").await? > 50);
    Ok(())
}

fn is_free(call: &Call) -> bool {
    settlement(call, 0).is_ok_and(|(_, most)| most == Used::default())
}

fn calls_by_id(models: &Models) -> Result<BTreeMap<String, Call>> {
    let calls = models.upstream.calls();
    let count = calls.len();
    let by_id: BTreeMap<_, _> = calls.into_iter().map(|call| (call.id.clone(), call)).collect();
    ensure!(
        by_id.len() == count,
        "{} of {count} calls arrived more than once",
        count - by_id.len()
    );
    Ok(by_id)
}

/// The gateway changed nothing of an answer: the client understood what the upstream said.
fn saw_what_was_said(seen: &Seen, call: &Call) -> Result<()> {
    if seen.tenant == "broken" {
        return Ok(());
    }
    let said = call.said.map(Used::from).filter(|_| call.status < 400);
    let understood = seen.usage.map(Used::from);
    let failed = seen.error.is_some();
    let fails = call.status >= 400 || call.ending == super::upstream::Ending::Failed;
    ensure!(seen.status == call.status && failed == fails, "{seen:?} of {call:?}");
    ensure!(fails || understood == said, "{seen:?} of {call:?}");
    ensure!(fails || !seen.stream || seen.text_bytes == call.text_bytes, "{seen:?} of {call:?}");
    Ok(())
}

/// What was given up costs the prompt at least, and what its caller had seen; at most what was sent, and
/// never more than was reserved.
async fn are_within_bounds(
    models: &Models,
    seen: &[Seen],
    calls: &BTreeMap<String, Call>,
) -> Result<Sums> {
    let (mut least, mut most) = (Sums::new(), Sums::new());
    let (mut count, mut reserved) = (0, 0);
    for seen in seen.iter().filter(|seen| seen.tenant == "broken") {
        let call = calls.get(&seen.id).context("it did not reach the upstream")?;
        let ask = call.ask.as_ref().context("no call of a model")?;
        let (lower, upper) = settlement(call, seen.text_bytes)?;
        let said = call.said_input.map_or(0, |(input, cached)| input + cached);
        let fits = upper.output <= ask.most_output(0) && said <= ask.estimated_prompt();
        ensure!(fits || ask.bound.is_none(), "{upper:?} of {call:?}");
        reserved += books::reserved(ask);
        for (sums, used) in [(&mut least, lower), (&mut most, upper)] {
            let sum = sums.entry(ask.model.clone()).or_default();
            sum.used = sum.used.plus(used);
        }
        count += 1;
    }
    let left = seen.iter().filter(|seen| seen.left).count();
    ensure!(
        left > 30 && count > 100,
        "{count} calls were given up, {left} of them by their caller"
    );
    let ledger = books::settled(&models.fleet, "broken", count).await?;
    for (model, sum) in &ledger {
        let (least, most) = (least[model].used, most[model].used);
        let fits = least.is_within(sum.used) && sum.used.is_within(most);
        ensure!(fits, "{model}: {:?} is not from {least:?} to {most:?}", sum.used);
    }
    ensure!(books::total(&ledger) <= reserved, "{reserved} were reserved: {ledger:?}");
    books::is_debited(&models.fleet, "broken", CAPACITY, books::total(&ledger)).await?;
    Ok(ledger)
}
