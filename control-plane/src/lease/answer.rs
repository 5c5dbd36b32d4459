//! Shapes the script's decision into what the gateway is told.

use weir_domain::{
    bucket::Level,
    limit::{Limit, Unit},
    protocol::{LeaseAnswer, LeaseAsk, LimitStatus, TenantState},
    quantity::{Amount, Quantity},
};

use super::script::{self, Bucket, Decided, Placed};

/// The shortest time that a gateway refuses on its own.
const MIN_ASK_AGAIN_MS: u64 = 20;

/// How long a refused need has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The limit does not stand in the way.
    None,
    Ms(u64),
    /// The limit can never hold that much.
    Never,
}

/// When to come back for what gateways hold: they give back what they don't need, and calls of language
/// models what they did not take. It may be soon, and the period's end is far.
const HELD_AGAIN_MS: u64 = 1_000;

/// Of a tenant that nothing is granted to: suspended or unknown.
pub fn without_lease(ask: &LeaseAsk, state: TenantState, now_ms: i64) -> LeaseAnswer {
    LeaseAnswer {
        tenant: ask.tenant.clone(),
        call: ask.call,
        state,
        stamp: String::new(),
        granted: Amount::ZERO,
        ttl_ms: 0,
        now_ms,
        plan: String::new(),
        retry_after_ms: 0,
        ask_again_ms: 0,
        limits: Vec::new(),
    }
}

/// Of a tenant that could not be decided on. It answers no call, so the gateway keeps its lease and
/// repeats the ask, with what it spent and gives back.
pub fn undecided(ask: &LeaseAsk, now_ms: i64) -> LeaseAnswer {
    LeaseAnswer { call: 0, ..without_lease(ask, TenantState::Active, now_ms) }
}

/// Of an active tenant.
pub fn decided(
    ask: &LeaseAsk,
    placed: &[Placed<'_>],
    decided: &Decided,
    now_ms: i64,
    lease_ttl_ms: u64,
) -> LeaseAnswer {
    let nothing = decided.granted.is_zero() && !ask.want.is_zero();
    let waits: Vec<Wait> = placed
        .iter()
        .zip(&decided.state.buckets)
        .map(|(placed, bucket)| {
            let held = of(decided.state.held, placed.limit.unit);
            if nothing { wait(placed, bucket, held, ask, now_ms) } else { Wait::None }
        })
        .collect();
    // The same call again, whose lease has ended meanwhile: no limit explains that it gets nothing,
    // and the gateway must not tell its clients so, but ask anew.
    let refused = waits.iter().any(|wait| *wait != Wait::None);
    let limits = placed
        .iter()
        .zip(&decided.state.buckets)
        .zip(&waits)
        .map(|((placed, bucket), wait)| status(placed, bucket, decided.state.held, *wait, now_ms))
        .collect();
    let retry_after_ms = retry_after_ms(&waits);
    LeaseAnswer {
        stamp: decided.stamp.clone(),
        granted: decided.granted,
        ttl_ms: decided.ttl_ms,
        retry_after_ms: if refused { retry_after_ms.unwrap_or(0) } else { 0 },
        ask_again_ms: if refused {
            let soonest = retry_after_ms.unwrap_or(lease_ttl_ms);
            soonest.clamp(MIN_ASK_AGAIN_MS.min(lease_ttl_ms), lease_ttl_ms)
        } else {
            0
        },
        limits,
        ..without_lease(ask, TenantState::Active, now_ms)
    }
}

/// The longest wait; `None` where one never ends.
fn retry_after_ms(waits: &[Wait]) -> Option<u64> {
    waits.iter().try_fold(MIN_ASK_AGAIN_MS, |longest, wait| match wait {
        Wait::None => Some(longest),
        Wait::Ms(ms) => Some(longest.max(*ms)),
        Wait::Never => None,
    })
}

pub fn of(amount: Amount, unit: Unit) -> Quantity {
    match unit {
        Unit::Tokens => amount.tokens,
        Unit::Requests => amount.requests,
    }
}

fn wait(placed: &Placed<'_>, bucket: &Bucket, held: Quantity, ask: &LeaseAsk, now_ms: i64) -> Wait {
    let limit = placed.limit;
    let wish = of(ask.want, limit.unit);
    // Nothing was needed, and not even one was to be had.
    let need = of(ask.need, limit.unit).max(wish.min(Quantity::ONE));
    let needed = script::signed(need);
    let there = match placed.window {
        None => bucket.level.level.saturating_sub(script::signed(bucket.spared)),
        Some(_) if !bucket.known => i64::MAX,
        Some(_) => bucket.level.level.saturating_add(script::signed(bucket.unclaimed)),
    };
    match (script::rate(limit), placed.window) {
        _ if there >= needed => Wait::None,
        _ if need > limit.capacity => Wait::Never,
        (Some(rate), _) => {
            let delay = u64::try_from(bucket.level.at_ms - now_ms).unwrap_or(0);
            // As if what is spared were refilled before; it may exceed the capacity with the need,
            // but then it has been taken, or is no longer spared.
            let filled = need.saturating_add(bucket.spared);
            bucket
                .level
                .wait_ms(rate, limit.capacity.max(filled), filled)
                .map_or(Wait::Never, |ms| Wait::Ms(delay.saturating_add(ms)))
        }
        (None, Some(_)) if there.saturating_add(script::signed(held)) >= needed => {
            Wait::Ms(HELD_AGAIN_MS)
        }
        (None, Some(window)) => Wait::Ms(u64::try_from(window.end_ms - now_ms).unwrap_or(0)),
        (None, None) => Wait::Never,
    }
}

pub fn status(
    placed: &Placed<'_>,
    bucket: &Bucket,
    held: Amount,
    wait: Wait,
    now_ms: i64,
) -> LimitStatus {
    let limit = placed.limit;
    let remaining = remaining(placed, bucket, of(held, limit.unit));
    let (window_ms, reset_ms) = match placed.window {
        Some(window) => (
            u64::try_from(window.end_ms - window.start_ms).unwrap_or(0),
            u64::try_from(window.end_ms - now_ms).unwrap_or(0),
        ),
        None => {
            let full_ms = until_full_ms(limit, remaining);
            let reset_ms = if let Wait::Ms(ms) = wait { ms } else { full_ms };
            (until_full_ms(limit, Quantity::ZERO), reset_ms)
        }
    };
    LimitStatus {
        name: limit.name.clone(),
        unit: limit.unit,
        capacity: limit.capacity,
        remaining,
        window_s: window_ms.div_ceil(1000),
        reset_s: reset_ms.div_ceil(1000),
        violated: wait != Wait::None,
    }
}

/// What a tenant has left of a limit: in the bucket, in Postgres, and with gateways.
fn remaining(placed: &Placed<'_>, bucket: &Bucket, held: Quantity) -> Quantity {
    let sum = not_held(placed, bucket).saturating_add(script::signed(held));
    let sum = Quantity::clamped(u64::try_from(sum).unwrap_or(0));
    // Adjustments lift a periodic bucket above its capacity.
    if placed.window.is_some() && bucket.known { sum } else { sum.min(placed.limit.capacity) }
}

/// How far the limit is below zero: what passed in an outage, or was cut, and is not paid yet.
pub fn owed(placed: &Placed<'_>, bucket: &Bucket) -> Quantity {
    Quantity::clamped(u64::try_from(not_held(placed, bucket).saturating_neg()).unwrap_or(0))
}

/// What is in the bucket and in Postgres; below zero when it owes.
fn not_held(placed: &Placed<'_>, bucket: &Bucket) -> i64 {
    let unclaimed = match placed.window {
        Some(_) if bucket.known => bucket.unclaimed,
        Some(_) => placed.limit.capacity,
        None => Quantity::ZERO,
    };
    bucket.level.level.saturating_add(script::signed(unclaimed))
}

fn until_full_ms(limit: &Limit, remaining: Quantity) -> u64 {
    let level = Level { level: script::signed(remaining), fraction: 0, at_ms: 0 };
    script::rate(limit)
        .and_then(|rate| level.wait_ms(rate, limit.capacity, limit.capacity))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use weir_domain::id::TenantId;

    use super::*;

    /// Taken for an answer, it would end the gateway's lease, and lose what was given back.
    #[test]
    fn what_is_not_decided_answers_no_call() {
        let ask = LeaseAsk {
            tenant: TenantId::new("acme").unwrap(),
            call: 7,
            stamp: "s1".to_owned(),
            need: Amount::ZERO,
            want: Amount::ZERO,
            spent: Amount::ZERO,
            refund: Amount::ZERO,
            owe: Amount::ZERO,
            fresh: false,
        };
        assert_eq!(undecided(&ask, 1).call, 0);
    }
}
