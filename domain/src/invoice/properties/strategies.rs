//! Any terms, any usage.

use proptest::prelude::*;
use rust_decimal::Decimal;

use super::{
    super::{TermsFrom, Usage, Used},
    QUARTERS, quarter,
};
use crate::{
    billing_period::Cadence,
    currency::Currency,
    id::Meter,
    limit::Unit,
    plan::PlanTerms,
    price::{Charge, ModelPattern, Price, Tier},
    quantity::Quantity,
};

pub(super) fn currency() -> impl Strategy<Value = Currency> {
    prop::sample::select(vec!["JPY", "USD", "KWD"]).prop_map(|code| Currency::new(code).unwrap())
}

pub(super) fn meter() -> impl Strategy<Value = Meter> {
    prop::sample::select(vec!["default", "chat"]).prop_map(|name| Meter::new(name).unwrap())
}

pub(super) fn unit() -> impl Strategy<Value = Unit> {
    prop::sample::select(vec![Unit::Tokens, Unit::Requests])
}

/// Up to 100.0 with up to 12 decimals.
pub(super) fn unit_price() -> impl Strategy<Value = Decimal> {
    (0i64..1_000_000, 4u32..=12).prop_map(|(mantissa, scale)| Decimal::new(mantissa, scale))
}

pub(super) fn tiers() -> impl Strategy<Value = Vec<Tier>> {
    (prop::collection::btree_set(1u32..10_000, 0..4), prop::collection::vec(unit_price(), 5))
        .prop_map(|(ends, prices)| {
            let ends = ends.into_iter().map(|end| Some(Quantity::from(end))).chain([None]);
            ends.zip(prices).map(|(up_to, unit_price)| Tier { up_to, unit_price }).collect()
        })
}

pub(super) fn charge() -> impl Strategy<Value = Charge> {
    let included = || (0u32..1_000).prop_map(Quantity::from);
    prop_oneof![
        (0i64..100_000).prop_map(|amount| Charge::Flat { amount: Decimal::from(amount) }),
        (unit(), unit_price(), included()).prop_map(|(unit, unit_price, included)| {
            Charge::PerUnit { unit, unit_price, included }
        }),
        (unit(), tiers(), included()).prop_map(|(unit, tiers, included)| Charge::Graduated {
            unit,
            tiers,
            included
        }),
        (unit(), tiers(), included()).prop_map(|(unit, tiers, included)| Charge::Volume {
            unit,
            tiers,
            included
        }),
        (unit(), 1u32..5_000, unit_price(), included()).prop_map(
            |(unit, size, package_price, included)| Charge::Package {
                unit,
                package_size: Quantity::from(size),
                package_price,
                included
            }
        ),
    ]
}

pub(super) fn model() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "gpt-4", "gpt-4o", "gpt-4o-mini", "llama"])
        .prop_map(str::to_owned)
}

pub(super) fn pattern() -> impl Strategy<Value = Option<ModelPattern>> {
    let patterns = vec!["gpt-4", "gpt-4*", "gpt-4o*", "gpt*", "gpt-4o"];
    prop::option::of(
        prop::sample::select(patterns).prop_map(|text| ModelPattern::new(text).unwrap()),
    )
}

pub(super) fn percent() -> impl Strategy<Value = Option<Decimal>> {
    prop::option::of((1i64..=100_000_000).prop_map(|percent| Decimal::new(percent, 6)))
}

pub(super) fn minimum() -> impl Strategy<Value = Option<Decimal>> {
    prop::option::of((0i64..10_000).prop_map(Decimal::from))
}

pub(super) fn price() -> impl Strategy<Value = Price> {
    (meter(), pattern(), charge(), percent(), minimum()).prop_map(
        |(meter, model, charge, discount_percent, minimum)| {
            let counts = charge.unit().is_some();
            Price {
                name: "Price".to_owned(),
                meter,
                model: model.filter(|_| counts),
                charge,
                discount_percent,
                minimum: minimum.filter(|_| counts),
            }
        },
    )
}

/// Terms that a plan may have; the currency is set by the caller.
pub(super) fn plan() -> impl Strategy<Value = PlanTerms> {
    (prop::collection::vec(price(), 0..6), percent(), minimum()).prop_map(
        |(prices, discount_percent, minimum)| {
            let mut terms = PlanTerms {
                currency: Currency::new("KWD").unwrap(),
                limits: Vec::new(),
                prices: Vec::new(),
                discount_percent,
                minimum,
                billing_period: Cadence::default(),
            };
            for price in prices {
                if !terms.prices.iter().any(|known| known.ties_with(&price)) {
                    terms.prices.push(price);
                }
            }
            terms.check().unwrap();
            terms
        },
    )
}

/// Terms of one currency, from the start of the period and from up to three quarter hours within.
pub(super) fn terms() -> impl Strategy<Value = Vec<TermsFrom>> {
    (currency(), plan(), prop::collection::btree_map(1..QUARTERS, plan(), 0..4)).prop_map(
        |(currency, first, later)| {
            [(0, first)]
                .into_iter()
                .chain(later)
                .map(|(from, terms)| TermsFrom {
                    from: quarter(from),
                    terms: PlanTerms { currency, ..terms },
                })
                .collect()
        },
    )
}

pub(super) fn usage_of(amount: impl Strategy<Value = u64> + Clone) -> impl Strategy<Value = Usage> {
    (0..QUARTERS, meter(), model(), amount.clone(), amount).prop_map(
        |(at, meter, model, tokens, requests)| Usage {
            quarter: quarter(at),
            meter,
            model,
            used: Used { tokens, requests },
        },
    )
}

pub(super) fn usage() -> impl Strategy<Value = Vec<Usage>> {
    prop::collection::vec(usage_of(0u64..100_000), 0..8)
}

/// Decimals and quantities from the far ends of their ranges, checked or not.
pub(super) fn extreme_terms() -> impl Strategy<Value = TermsFrom> {
    let decimal = || {
        (any::<i64>(), any::<u32>(), any::<u32>(), any::<bool>(), 0u32..=28).prop_map(
            |(low, mid, high, negative, scale)| {
                Decimal::from_parts(low as u32, mid, high, negative, scale)
            },
        )
    };
    let quantity = || any::<u64>().prop_map(Quantity::clamped);
    let tier = || {
        (prop::option::of(quantity()), decimal())
            .prop_map(|(up_to, unit_price)| Tier { up_to, unit_price })
    };
    let charge = prop_oneof![
        decimal().prop_map(|amount| Charge::Flat { amount }),
        (unit(), decimal(), quantity()).prop_map(|(unit, unit_price, included)| {
            Charge::PerUnit { unit, unit_price, included }
        }),
        (unit(), prop::collection::vec(tier(), 0..4), quantity())
            .prop_map(|(unit, tiers, included)| Charge::Graduated { unit, tiers, included }),
        (unit(), prop::collection::vec(tier(), 0..4), quantity())
            .prop_map(|(unit, tiers, included)| Charge::Volume { unit, tiers, included }),
        (unit(), quantity(), decimal(), quantity()).prop_map(
            |(unit, package_size, package_price, included)| Charge::Package {
                unit,
                package_size,
                package_price,
                included
            }
        ),
    ];
    let optional = || prop::option::of(decimal());
    let rules = (optional(), optional(), optional(), optional());
    (currency(), -10..QUARTERS, meter(), pattern(), charge, rules).prop_map(
        |(currency, from, meter, model, charge, rules)| {
            let name = "Price".to_owned();
            let price =
                Price { name, meter, model, charge, discount_percent: rules.0, minimum: rules.1 };
            let terms = PlanTerms {
                currency,
                limits: Vec::new(),
                prices: vec![price],
                discount_percent: rules.2,
                minimum: rules.3,
                billing_period: Cadence::default(),
            };
            TermsFrom { from: quarter(from), terms }
        },
    )
}
