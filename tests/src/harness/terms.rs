//! Limits and prices of plans, in the words of the admin API.

use serde_json::{Value, json};

pub(crate) type Limit = Value;
pub(crate) type Price = Value;

/// A limit `monthly` of so many tokens each calendar month.
pub(crate) fn monthly(tokens: u64) -> Limit {
    periodic("monthly", "tokens", tokens, json!("month"))
}

/// `period` is such as `"day"` or `{"every_minutes": 15}`.
pub(crate) fn periodic(name: &str, unit: &str, capacity: u64, period: Value) -> Limit {
    json!({ "name": name, "unit": unit, "capacity": capacity,
            "refill": { "kind": "periodic", "period": period } })
}

/// Refills by `amount` per `interval_ms`.
pub(crate) fn continuous(
    name: &str,
    unit: &str,
    capacity: u64,
    amount: u64,
    interval_ms: u64,
) -> Limit {
    json!({ "name": name, "unit": unit, "capacity": capacity,
            "refill": { "kind": "continuous", "amount": amount, "interval_ms": interval_ms } })
}

/// So much per token, as a decimal string.
pub(crate) fn per_unit(unit_price: &str) -> Price {
    json!({ "name": "Tokens", "charge": { "kind": "per_unit", "unit": "tokens",
            "unit_price": unit_price, "included": 0 } })
}

/// So much per token above those included.
pub(crate) fn per_unit_above(included: u64, unit_price: &str) -> Price {
    json!({ "name": "Tokens", "charge": { "kind": "per_unit", "unit": "tokens",
            "unit_price": unit_price, "included": included } })
}

/// So much per period, as a decimal string.
pub(crate) fn flat(amount: &str) -> Price {
    json!({ "name": "Base fee", "charge": { "kind": "flat", "amount": amount } })
}

/// Each tier prices the tokens that fall into it: `(up to, unit price)`, the last up to `None`.
pub(crate) fn graduated(tiers: &[(Option<u64>, &str)]) -> Price {
    let tiers =
        tiers.iter().map(|(up_to, unit_price)| json!({ "up_to": up_to, "unit_price": unit_price }));
    json!({ "name": "Tokens", "charge": { "kind": "graduated", "unit": "tokens",
            "included": 0, "tiers": tiers.collect::<Vec<Value>>() } })
}
