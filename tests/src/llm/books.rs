//! The ledger and the buckets, held against the books of the upstream.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use weir_domain::llm::usage::TokenUsage;

use super::{
    Models,
    upstream::{
        Call, Ending,
        ask::{Ask, estimated},
    },
};
use crate::{
    harness::{Fleet, SOON, wait_for},
    leases::bucket,
};

/// What is reserved for the answer of a call without a bound.
pub(super) const DEFAULT_OUTPUT: u64 = 4_096;

/// Tokens of the three meters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Used {
    pub(super) input: u64,
    pub(super) cached: u64,
    pub(super) output: u64,
}

impl Used {
    pub(super) fn new(input: u64, cached: u64, output: u64) -> Self {
        Self { input, cached, output }
    }

    pub(super) fn total(self) -> u64 {
        self.input + self.cached + self.output
    }

    pub(super) fn plus(self, other: Self) -> Self {
        let Self { input, cached, output } = other;
        Self::new(self.input + input, self.cached + cached, self.output + output)
    }

    /// None of the three is more than that of `other`.
    pub(super) fn is_within(self, other: Self) -> bool {
        self.input <= other.input && self.cached <= other.cached && self.output <= other.output
    }
}

impl From<TokenUsage> for Used {
    fn from(usage: TokenUsage) -> Self {
        Self::new(usage.input.get(), usage.cached.get(), usage.output.get())
    }
}

/// What one tenant's calls of one model used, and how many they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) used: Used,
    pub(super) calls: u64,
}

/// By model.
pub(super) type Sums = BTreeMap<String, Sum>;

/// What a call is to be settled at: at least, and at most. They are the same unless it was given up,
/// when nobody knows how much of it had come. `upstream_errors` is `free`.
pub(super) fn settlement(call: &Call, seen_text_bytes: u64) -> Result<(Used, Used)> {
    let ask = call.ask.as_ref().context("no call of a model")?;
    let prompt = ask.estimated_prompt();
    let exactly = |used: Used| Ok((used, used));
    if call.status >= 400 || call.ending == Ending::Failed {
        return exactly(Used::default());
    }
    if call.opaque {
        return exactly(Used::new(prompt, 0, ask.most_output(DEFAULT_OUTPUT)));
    }
    let guess = |text_bytes| match call.said_input {
        Some((input, cached)) => Used::new(input, cached, estimated(text_bytes)),
        None => Used::new(prompt, 0, estimated(text_bytes)),
    };
    match (call.ending, call.said) {
        (Ending::Whole, Some(said)) => exactly(said.into()),
        (Ending::Whole, None) => exactly(guess(call.text_bytes)),
        _ => {
            let most = guess(call.text_bytes);
            let said = call.said.map_or(Used::default(), Used::from);
            // What was said of the prompt may not have arrived.
            let (input, cached) = (most.input.max(prompt), most.cached);
            let most = Used::new(input, cached, most.output.max(said.output));
            let least = Used::new(
                most.input.min(prompt).min(guess(0).input),
                0,
                estimated(seen_text_bytes),
            );
            Ok((least, most))
        }
    }
}

/// What is reserved for a call.
pub(super) fn reserved(ask: &Ask) -> u64 {
    ask.estimated_prompt() + ask.most_output(DEFAULT_OUTPUT)
}

/// What the ledger has of a tenant's calls.
pub(super) async fn ledger(fleet: &Fleet, tenant: &str) -> Result<Sums> {
    let sums = format!(
        "select model, meter, sum(tokens), sum(requests) from usage_record
         where tenant_id = '{tenant}' group by model, meter"
    );
    let mut ledger = Sums::new();
    for row in fleet.stack.database.query(&sums).await?.lines() {
        let [model, meter, tokens, requests] = row.split('|').collect::<Vec<_>>()[..] else {
            anyhow::bail!("not four columns: {row}");
        };
        let (tokens, requests): (u64, u64) = (tokens.parse()?, requests.parse()?);
        let sum = ledger.entry(model.to_owned()).or_default();
        sum.calls += requests;
        match meter {
            "input" => sum.used.input = tokens,
            "cached" => sum.used.cached = tokens,
            "output" => sum.used.output = tokens,
            meter => anyhow::bail!("{tokens} tokens are on the meter {meter}"),
        }
        ensure!(meter == "input" || requests == 0, "requests are on the meter {meter}");
    }
    Ok(ledger)
}

/// Waits until the ledger has so many calls of a tenant, and no more; what they used.
pub(super) async fn settled(fleet: &Fleet, tenant: &str, calls: u64) -> Result<Sums> {
    wait_for(&format!("{calls} calls of {tenant} in the ledger"), 2 * SOON, async || {
        let ledger = ledger(fleet, tenant).await?;
        let count: u64 = ledger.values().map(|sum| sum.calls).sum();
        ensure!(count == calls, "the ledger has {count} calls: {ledger:?}");
        Ok(Some(ledger))
    })
    .await
}

/// The only model's usage, in the ledger.
pub(super) async fn settled_at(fleet: &Fleet, tenant: &str, calls: u64) -> Result<Used> {
    let ledger = settled(fleet, tenant, calls).await?;
    ensure!(ledger.len() == 1, "there are several models: {ledger:?}");
    Ok(ledger.into_values().next().unwrap_or_default().used)
}

/// Nothing is reserved or held any more, and what the bucket `monthly` lost is what was used.
pub(super) async fn is_debited(
    fleet: &Fleet,
    tenant: &str,
    capacity: u64,
    tokens: u64,
) -> Result<()> {
    wait_for(&format!("the bucket of {tenant} to have paid {tokens}"), 2 * SOON, async || {
        let bucket = bucket(fleet, tenant, "monthly").await?;
        let held = bucket["held"].as_object().context("no held")?;
        ensure!(held.values().all(|held| *held == 0), "{bucket}");
        ensure!(bucket["remaining"] == capacity - tokens, "{tokens} are used: {bucket}");
        Ok(Some(()))
    })
    .await
}

/// Everything a tenant's calls used is in the ledger exactly as the upstream has it, and gone from the
/// bucket, and nothing else is.
pub(super) async fn are_exact(models: &Models, tenant: &str, capacity: u64) -> Result<Sums> {
    let mut expected = Sums::new();
    let calls = models.upstream.calls_of(tenant);
    for call in &calls {
        let (least, most) = settlement(call, 0)?;
        ensure!(least == most, "nobody knows what this is to be settled at: {call:?}");
        let ask = call.ask.as_ref().context("no call of a model")?;
        let sum = expected.entry(ask.model.clone()).or_default();
        sum.used = sum.used.plus(least);
        sum.calls += 1;
    }
    let ledger = settled(&models.fleet, tenant, calls.len() as u64).await?;
    ensure!(ledger == expected, "the ledger of {tenant} has {ledger:?}\nexpected {expected:?}");
    is_debited(&models.fleet, tenant, capacity, total(&ledger)).await?;
    Ok(ledger)
}

pub(super) fn total(sums: &Sums) -> u64 {
    sums.values().map(|sum| sum.used.total()).sum()
}
