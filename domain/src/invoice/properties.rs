//! What holds for every invoice.

use proptest::prelude::*;
use rust_decimal::Decimal;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::{
    price::{Charge, Tier},
    quantity::Quantity,
};

const START: i64 = 1_775_001_600; // 2026-04-01T00:00:00Z
const QUARTERS: i64 = 2_880;

fn quarter(offset: i64) -> Quarter {
    Quarter::containing(jiff::Timestamp::from_second(START + offset * 900).unwrap())
}

fn april() -> BillingPeriod {
    BillingPeriod::new(quarter(0), quarter(QUARTERS)).unwrap()
}

fn currency() -> impl Strategy<Value = Currency> {
    prop::sample::select(vec!["JPY", "USD", "KWD"]).prop_map(|code| Currency::new(code).unwrap())
}

fn meter() -> impl Strategy<Value = Meter> {
    prop::sample::select(vec!["default", "chat"]).prop_map(|name| Meter::new(name).unwrap())
}

fn unit() -> impl Strategy<Value = Unit> {
    prop::sample::select(vec![Unit::Tokens, Unit::Requests])
}

/// Up to 100.0 with up to 12 decimals.
fn unit_price() -> impl Strategy<Value = Decimal> {
    (0i64..1_000_000, 4u32..=12).prop_map(|(mantissa, scale)| Decimal::new(mantissa, scale))
}

fn tiers() -> impl Strategy<Value = Vec<Tier>> {
    (prop::collection::btree_set(1u32..10_000, 0..4), prop::collection::vec(unit_price(), 5))
        .prop_map(|(ends, prices)| {
            let ends = ends.into_iter().map(|end| Some(Quantity::from(end))).chain([None]);
            ends.zip(prices).map(|(up_to, unit_price)| Tier { up_to, unit_price }).collect()
        })
}

fn charge() -> impl Strategy<Value = Charge> {
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
    ]
}

fn prices() -> impl Strategy<Value = Vec<Price>> {
    let price = (meter(), charge()).prop_map(|(meter, charge)| Price {
        name: "Price".to_owned(),
        meter,
        charge,
    });
    prop::collection::vec(price, 0..5)
}

/// Terms of one currency, from the start of the period and from up to three quarter hours within.
fn terms() -> impl Strategy<Value = Vec<TermsFrom>> {
    (currency(), prices(), prop::collection::btree_map(1..QUARTERS, prices(), 0..4)).prop_map(
        |(currency, first, later)| {
            [(0, first)]
                .into_iter()
                .chain(later)
                .map(|(from, prices)| TermsFrom {
                    from: quarter(from),
                    terms: PlanTerms { currency, limits: Vec::new(), prices },
                })
                .collect()
        },
    )
}

fn usage_of(amount: impl Strategy<Value = u64> + Clone) -> impl Strategy<Value = Usage> {
    (0..QUARTERS, meter(), amount.clone(), amount).prop_map(|(at, meter, tokens, requests)| Usage {
        quarter: quarter(at),
        meter,
        model: String::new(),
        used: Used { tokens, requests },
    })
}

fn usage() -> impl Strategy<Value = Vec<Usage>> {
    prop::collection::vec(usage_of(0u64..100_000), 0..8)
}

/// Decimals and quantities from the far ends of their ranges, checked or not.
fn extreme_terms() -> impl Strategy<Value = TermsFrom> {
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
    ];
    (currency(), -10..QUARTERS, meter(), charge).prop_map(|(currency, from, meter, charge)| {
        let prices = vec![Price { name: "Price".to_owned(), meter, charge }];
        TermsFrom { from: quarter(from), terms: PlanTerms { currency, limits: Vec::new(), prices } }
    })
}

proptest! {
    #[test]
    fn lines_add_up_to_the_total(
        terms in terms(), usage in usage(), late in prop::collection::vec(any::<i32>(), 0..3),
    ) {
        let currency = terms[0].terms.currency;
        let late: Vec<Adjustment> = late
            .into_iter()
            .map(|minor| Adjustment { period: april(), amount: Money::new(minor.into(), currency) })
            .collect();
        let invoice = draw_up(april(), &terms, &usage, &late).unwrap();
        let sum: Decimal = invoice.lines.iter().map(|line| line.amount.decimal()).sum();
        prop_assert_eq!(sum, invoice.total.decimal());
        for line in &invoice.lines {
            prop_assert!(line.amount.decimal().scale() <= currency.minor_digits());
        }
    }

    #[test]
    fn how_usage_is_split_over_rows_does_not_matter(
        terms in terms(), usage in usage(), cuts in prop::collection::vec((0u64..=100, any::<bool>()), 8),
    ) {
        let split: Vec<Usage> = usage
            .iter()
            .zip(cuts)
            .flat_map(|(whole, (percent, model))| {
                let part = Used {
                    tokens: whole.used.tokens * percent / 100,
                    requests: whole.used.requests * percent / 100,
                };
                let rest = Used {
                    tokens: whole.used.tokens - part.tokens,
                    requests: whole.used.requests - part.requests,
                };
                let model = if model { "gpt".to_owned() } else { String::new() };
                [Usage { used: rest, ..whole.clone() }, Usage { used: part, model, ..whole.clone() }]
            })
            .rev()
            .collect();
        prop_assert_eq!(
            draw_up(april(), &terms, &usage, &[]).unwrap(),
            draw_up(april(), &terms, &split, &[]).unwrap()
        );
    }

    #[test]
    fn more_usage_never_lowers_the_total(
        terms in terms(), usage in usage(), more in usage_of(0u64..100_000),
    ) {
        let before = draw_up(april(), &terms, &usage, &[]).unwrap().total;
        let mut usage = usage;
        usage.push(more);
        prop_assert!(draw_up(april(), &terms, &usage, &[]).unwrap().total.minor() >= before.minor());
    }

    /// Invoiced in any number of adjustments, a period costs what it would have cost at once.
    #[test]
    fn adjustments_make_up_for_what_came_late(
        terms in terms(), usage in usage(), late in usage(),
    ) {
        let mut billed = draw_up(april(), &terms, &usage, &[]).unwrap().total;
        let mut known = usage;
        for row in late {
            let mut now = known.clone();
            now.push(row);
            if let Some(adjustment) = adjust(april(), &terms, &known, &now).unwrap() {
                billed = billed.checked_add(adjustment.amount).unwrap();
            }
            known = now;
        }
        prop_assert_eq!(billed, draw_up(april(), &terms, &known, &[]).unwrap().total);
    }

    #[test]
    fn extreme_input_is_an_error_and_not_a_panic(
        terms in prop::collection::vec(extreme_terms(), 0..3),
        usage in prop::collection::vec(usage_of(any::<u64>()), 0..4),
        late in any::<i64>(),
    ) {
        let late = terms.first().map(|first| Adjustment {
            period: april(),
            amount: Money::new(late, first.terms.currency),
        });
        let _ = draw_up(april(), &terms, &usage, late.as_slice());
        let _ = adjust(april(), &terms, &usage, &[]);
    }

    /// Months follow each other without a gap, whatever the zone.
    #[test]
    fn months_tile_time(
        start in 0i64..4_000_000_000,
        zone in prop::sample::select(vec![
            "UTC", "Europe/Zurich", "America/Sao_Paulo", "Africa/Monrovia", "Australia/Lord_Howe", "Asia/Kathmandu",
        ]),
    ) {
        let zone = jiff::tz::TimeZone::get(zone).unwrap();
        let start = Quarter::containing(jiff::Timestamp::from_second(start).unwrap());
        let first = BillingPeriod::month(start, &zone, &zone).unwrap();
        let second = BillingPeriod::month(first.end(), &zone, &zone).unwrap();
        prop_assert!(first.quarters() <= 31 * 96 + 4);
        prop_assert!((28 * 96 - 4..=31 * 96 + 4).contains(&second.quarters()));
        prop_assert_eq!(second.start(), first.end());
    }
}
