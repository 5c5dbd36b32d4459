//! How a bucket refills, and how much of it a lease gets.
//!
//! This is the reference. The control plane's Lua script decides the same way inside Redis, and a
//! test holds the two against each other.

use crate::quantity::Quantity;

/// A continuous bucket at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// What may be granted now; negative while a debt is being paid.
    pub level: i64,
    /// The part of a token that has refilled, in `1 / interval_ms` tokens; below `interval_ms`.
    pub fraction: u64,
    /// When `level` was true, in ms.
    pub at_ms: i64,
}

/// How fast a continuous bucket refills: `amount` per `interval_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub amount: Quantity,
    pub interval_ms: u64,
}

impl Level {
    /// The level at `now_ms`. A bucket fills up to `capacity − held`, so what gateways hold in leases
    /// cannot add to a burst. They hold more than the capacity only after it was cut; that is no debt
    /// of the bucket's. A clock that moves back changes nothing.
    #[must_use]
    pub fn refilled(self, rate: Rate, capacity: Quantity, held: Quantity, now_ms: i64) -> Self {
        let ceiling = i128::from(capacity.saturating_sub(held).get());
        let elapsed_ms = i128::from((now_ms - self.at_ms).max(0));
        let interval_ms = i128::from(rate.interval_ms.max(1));
        let parts = elapsed_ms * i128::from(rate.amount.get()) + i128::from(self.fraction);
        let level = i128::from(self.level) + parts / interval_ms;
        let at_ms = self.at_ms.max(now_ms);
        if level >= ceiling {
            return Self { level: saturate(ceiling), fraction: 0, at_ms };
        }
        let fraction = u64::try_from(parts % interval_ms).unwrap_or(0);
        Self { level: saturate(level), fraction, at_ms }
    }

    /// How long until `need` is there, in ms; `None` where `capacity` never holds that much.
    #[must_use]
    pub fn wait_ms(self, rate: Rate, capacity: Quantity, need: Quantity) -> Option<u64> {
        if need > capacity || rate.amount.is_zero() {
            return None;
        }
        let missing = i128::from(need.get()) - i128::from(self.level);
        if missing <= 0 {
            return Some(0);
        }
        let parts = missing * i128::from(rate.interval_ms) - i128::from(self.fraction);
        let amount = i128::from(rate.amount.get());
        u64::try_from((parts + amount - 1) / amount).ok()
    }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// How much of `available` a gateway gets that needs `need` and would like `want`, when `gateways`
/// share the tenant: all of `need` or nothing, and of the rest at most half an equal share, so that
/// scarce tokens are dealt in ever smaller pieces.
#[must_use]
pub fn grant(need: Quantity, want: Quantity, available: i64, gateways: u32) -> Option<Quantity> {
    let available = u64::try_from(available).unwrap_or(0);
    if need.get() > available {
        return None;
    }
    let share = available / (2 * u64::from(gateways.max(1)));
    Some(Quantity::clamped(need.get().max(share)).min(want.max(need)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const RATE: Rate = Rate { amount: Quantity::ONE, interval_ms: 3 };

    fn quantity(value: u64) -> Quantity {
        Quantity::new(value).unwrap()
    }

    #[test]
    fn thirds_of_a_token_are_kept() {
        let mut level = Level { level: 0, fraction: 0, at_ms: 0 };
        for now_ms in 1..=300 {
            level = level.refilled(RATE, quantity(1000), Quantity::ZERO, now_ms);
        }
        assert_eq!(level, Level { level: 100, fraction: 0, at_ms: 300 });
    }

    #[test]
    fn a_debt_is_paid_first() {
        let level = Level { level: -5, fraction: 0, at_ms: 0 };
        assert_eq!(level.refilled(RATE, quantity(10), Quantity::ZERO, 12).level, -1);
        assert_eq!(level.wait_ms(RATE, quantity(10), Quantity::ONE), Some(18));
        assert_eq!(level.wait_ms(RATE, quantity(10), quantity(11)), None);
    }

    #[test]
    fn grants_shrink_near_the_end() {
        let want = quantity(1000);
        let mut available = 100;
        let mut grants = Vec::new();
        while let Some(granted) = grant(Quantity::ONE, want, available, 2) {
            available -= i64::try_from(granted.get()).unwrap();
            grants.push(granted.get());
        }
        assert_eq!(available, 0);
        assert_eq!(grants.first(), Some(&25));
        assert!(grants.windows(2).all(|pair| pair[1] <= pair[0]), "{grants:?}");
    }

    proptest! {
        /// Looking more often neither mints nor loses a token.
        #[test]
        fn refill_does_not_depend_on_when_it_is_looked_at(
            amount in 1u64..1 << 40, interval_ms in 1u64..1 << 35, capacity in 1u64..1 << 53,
            mut times in prop::collection::vec(0i64..1 << 35, 1..20),
        ) {
            times.sort_unstable();
            let rate = Rate { amount: quantity(amount), interval_ms };
            let start = Level { level: 0, fraction: 0, at_ms: 0 };
            let stepwise = times.iter().fold(start, |level, now_ms| {
                level.refilled(rate, quantity(capacity), Quantity::ZERO, *now_ms)
            });
            let at_once = start.refilled(rate, quantity(capacity), Quantity::ZERO, times[times.len() - 1]);
            prop_assert_eq!(stepwise, at_once);
        }

        /// In any span, grants are at most capacity + rate × span.
        #[test]
        fn grants_keep_the_law(
            amount in 1u64..1000, interval_ms in 1u64..1000, capacity in 1u64..1000,
            asks in prop::collection::vec((0i64..500, 1u64..50, 0u64..200), 1..60),
        ) {
            let rate = Rate { amount: quantity(amount), interval_ms };
            let mut bucket = Level { level: i64::try_from(capacity).unwrap(), fraction: 0, at_ms: 0 };
            let mut granted: Vec<(i64, u64)> = Vec::new();
            let mut now_ms = 0;
            for (pause_ms, need, want) in asks {
                now_ms += pause_ms;
                bucket = bucket.refilled(rate, quantity(capacity), Quantity::ZERO, now_ms);
                if let Some(got) = grant(quantity(need), quantity(want), bucket.level, 2) {
                    prop_assert!(got.get() >= need);
                    bucket.level -= i64::try_from(got.get()).unwrap();
                    granted.push((now_ms, got.get()));
                }
            }
            for (index, (from_ms, _)) in granted.iter().enumerate() {
                let mut sum = 0;
                for (to_ms, got) in &granted[index..] {
                    sum += u128::from(*got);
                    let span_ms = u128::try_from(to_ms - from_ms).unwrap();
                    prop_assert!(sum * u128::from(interval_ms)
                        <= u128::from(capacity) * u128::from(interval_ms)
                            + span_ms * u128::from(amount) + u128::from(interval_ms));
                }
            }
        }

        /// `wait_ms` is the first instant at which the need is there.
        #[test]
        fn the_wait_is_exact(
            amount in 1u64..1000, interval_ms in 1u64..10_000, need in 1u64..500, level in -500i64..500, fraction in 0u64..10_000,
        ) {
            let rate = Rate { amount: quantity(amount), interval_ms };
            let capacity = quantity(500);
            let bucket = Level { level, fraction: fraction % interval_ms, at_ms: 0 };
            let wait_ms = i64::try_from(bucket.wait_ms(rate, capacity, quantity(need)).unwrap()).unwrap();
            let at = |now_ms| bucket.refilled(rate, capacity, Quantity::ZERO, now_ms).level;
            let need = i64::try_from(need).unwrap();
            prop_assert!(at(wait_ms) >= need);
            if wait_ms > 0 {
                prop_assert!(at(wait_ms - 1) < need);
            }
        }
    }
}
