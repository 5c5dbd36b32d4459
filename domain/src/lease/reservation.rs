//! Sparing for a large need, so that small ones do not starve it.
//!
//! Where small needs take each token as it comes, a large one never finds enough at once. So a need
//! that a continuous bucket refuses is noted, and while that lasts, asks that need less get only what
//! is there above it. Those that need as much or more are not held back, so that gateways with one
//! cost for all lose nothing. One need is spared for at a time, the oldest. After it, all take what
//! they find for as long as it lasted: large needs do not starve small ones either.

use super::{Bucket, Refill, of, signed};
use crate::{
    bucket::Level,
    protocol::LeaseAsk,
    quantity::{Amount, Quantity},
};

/// The longest that a need is spared for without being asked for again, in ms.
const MAX_MS: i64 = 60_000;

/// A need that is spared for, or was last.
#[derive(Debug, Clone)]
pub(super) struct Reservation {
    since_ms: i64,
    ends_ms: i64,
    need: Amount,
    gateway: String,
}

/// What `ask`, of whichever gateway, must leave in `bucket`.
pub(super) fn spared(
    reservation: Option<&Reservation>,
    bucket: &Bucket,
    ask: &LeaseAsk,
    now_ms: i64,
) -> Quantity {
    let live = reservation.filter(|reservation| reservation.ends_ms > now_ms);
    let need = live.map_or(Quantity::ZERO, |live| of(live.need, bucket.unit));
    let held_back = bucket.is_continuous() && of(ask.need, bucket.unit) < need;
    // More than the capacity is never there; the limit has changed.
    if held_back && need <= bucket.capacity { need } else { Quantity::ZERO }
}

/// After `need` has been met: it is over where that covers what was spared for.
pub(super) fn after_meeting(
    reservation: Option<Reservation>,
    need: Amount,
    now_ms: i64,
) -> Option<Reservation> {
    reservation.map(|mut reservation| {
        if need.covers(reservation.need) {
            reservation.ends_ms = reservation.ends_ms.min(now_ms);
        }
        reservation
    })
}

/// After `need` of a gateway was refused: it is spared for if it is more than one, nothing but
/// continuous buckets that could hold it stand in its way, and it is its turn.
pub(super) fn after_refusing(
    before: Option<Reservation>,
    buckets: &[Bucket],
    (gateway, need): (&str, Amount),
    claims: bool,
    now_ms: i64,
    lease_ttl_ms: i64,
) -> Option<Reservation> {
    let mut since_ms = now_ms;
    match &before {
        Some(before) if before.ends_ms > now_ms => {
            // Its own gateway may ask again, for more.
            if before.gateway != gateway || !need.covers(before.need) {
                return before.clone().into();
            }
            since_ms = before.since_ms;
        }
        Some(before) if now_ms < 2 * before.ends_ms - before.since_ms => {
            return before.clone().into();
        }
        _ => {}
    }
    let refusing = || buckets.iter().filter(|b| b.available(claims) < signed(of(need, b.unit)));
    let is_large = refusing().any(|bucket| of(need, bucket.unit) > Quantity::ONE);
    let waits: Option<Vec<i64>> =
        refusing().map(|bucket| wait_ms(bucket, of(need, bucket.unit), now_ms)).collect();
    let wait_ms = waits.filter(|_| is_large).and_then(|waits| waits.into_iter().max());
    let Some(wait_ms) = wait_ms else { return before };
    let ends_ms = now_ms + (wait_ms + lease_ttl_ms).min(MAX_MS);
    Some(Reservation { since_ms, ends_ms, need, gateway: gateway.to_owned() })
}

/// How long until `bucket` has `need` if nobody else takes from it; `None` where that is not to be
/// waited for.
fn wait_ms(bucket: &Bucket, need: Quantity, now_ms: i64) -> Option<i64> {
    let Refill::Continuous { rate, fraction, at_ms } = bucket.refill else { return None };
    let level = Level { level: bucket.level, fraction, at_ms };
    let wait_ms = level.wait_ms(rate, bucket.capacity, need)?;
    Some(i64::try_from(wait_ms).unwrap_or(MAX_MS).min(MAX_MS) + (at_ms - now_ms).max(0))
}
