//! What holds for every invoice.

mod strategies;

use proptest::prelude::*;
use rust_decimal::Decimal;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use self::strategies::*;
use super::*;
use crate::{
    billing_period::{Cadence, Schedule, quarters},
    price::Charge,
};

const START: i64 = 1_775_001_600; // 2026-04-01T00:00:00Z
const QUARTERS: i64 = 2_880;

fn quarter(offset: i64) -> Quarter {
    Quarter::containing(jiff::Timestamp::from_second(START + offset * 900).unwrap())
}

fn april() -> BillingPeriod {
    BillingPeriod::new(quarter(0), quarter(QUARTERS)).unwrap()
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
        terms in terms(), usage in usage(), cuts in prop::collection::vec(0u64..=100, 8),
    ) {
        let split: Vec<Usage> = usage
            .iter()
            .zip(cuts)
            .flat_map(|(whole, percent)| {
                let part = Used {
                    tokens: whole.used.tokens * percent / 100,
                    requests: whole.used.requests * percent / 100,
                };
                let rest = Used {
                    tokens: whole.used.tokens - part.tokens,
                    requests: whole.used.requests - part.requests,
                };
                [Usage { used: rest, ..whole.clone() }, Usage { used: part, ..whole.clone() }]
            })
            .rev()
            .collect();
        prop_assert_eq!(
            draw_up(april(), &terms, &usage, &[]).unwrap(),
            draw_up(april(), &terms, &split, &[]).unwrap()
        );
    }

    #[test]
    fn each_line_counts_what_it_says(terms in terms(), usage in usage()) {
        let invoice = draw_up(april(), &terms, &usage, &[]).unwrap();
        let prices = invoice.lines.iter().filter_map(|line| match &line.subject {
            Subject::Price { price, quantity, .. } => Some((price, *quantity)),
            _ => None,
        });
        for (nth, (price, quantity)) in prices.enumerate() {
            let counted = counted_by(april(), &terms, nth, &usage).unwrap();
            let counted = usage.iter().zip(counted).filter(|(_, is_counted)| *is_counted);
            let unit = price.charge.unit();
            let sum: u64 = counted.map(|(row, _)| unit.map_or(1, |unit| row.used.of(unit))).sum();
            prop_assert_eq!(sum, quantity);
        }
    }

    /// But where volume tiers say so.
    #[test]
    fn more_usage_never_lowers_the_total(
        terms in terms(), usage in usage(), more in usage_of(0u64..100_000),
    ) {
        let mut terms = terms;
        for TermsFrom { terms, .. } in &mut terms {
            terms.prices.retain(|price| !matches!(price.charge, Charge::Volume { .. }));
        }
        let before = draw_up(april(), &terms, &usage, &[]).unwrap().total;
        let mut usage = usage;
        usage.push(more);
        prop_assert!(draw_up(april(), &terms, &usage, &[]).unwrap().total.minor() >= before.minor());
    }

    /// Each unit that was used is charged once, or told as not charged.
    #[test]
    fn all_usage_is_in_one_line_or_unpriced(terms in terms(), usage in usage()) {
        let terms = &terms[..1];
        let invoice = draw_up(april(), terms, &usage, &[]).unwrap();
        for unit in [Unit::Tokens, Unit::Requests] {
            let counted = |line: &Line| match &line.subject {
                Subject::Price { price, quantity, .. } if price.charge.unit() == Some(unit) => *quantity,
                _ => 0,
            };
            let told: u64 = invoice.unpriced.iter().map(|rest| rest.used.of(unit)).sum();
            let sum: u64 = invoice.lines.iter().map(counted).sum::<u64>() + told;
            let used: u64 = usage.iter().map(|row| row.used.of(unit)).sum();
            let counts = terms[0].terms.prices.iter().any(|price| price.charge.unit() == Some(unit));
            let whole = if counts { sum == used } else { sum <= used };
            prop_assert!(whole, "{} of {}", sum, used);
        }
    }

    /// A minimum is what is paid at least, each with its share of the period.
    #[test]
    fn the_minimum_is_paid_at_least(terms in terms(), usage in usage()) {
        let invoice = draw_up(april(), &terms, &usage, &[]).unwrap();
        let starts = terms.iter().map(|terms| terms.from);
        let ends = starts.clone().skip(1).chain([april().end()]);
        let share = |(from, to)| Decimal::from(quarters(from, to)) / Decimal::from(QUARTERS);
        let minimum: Decimal = starts
            .zip(ends)
            .map(share)
            .zip(&terms)
            .map(|(share, terms)| share * terms.terms.minimum.unwrap_or_default())
            .sum();
        let half_a_minor_unit = Decimal::new(5, invoice.total.currency().minor_digits() + 1);
        let slack = half_a_minor_unit + Decimal::new(1, 12);
        prop_assert!(invoice.total.decimal() >= minimum - slack);
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
        let schedule = Schedule::since(Cadence::CalendarMonth, start, &zone);
        let first = BillingPeriod::scheduled(start, schedule, &zone, &zone).unwrap();
        let second = BillingPeriod::scheduled(first.end(), schedule, &zone, &zone).unwrap();
        prop_assert!(first.quarters() <= 31 * 96 + 4);
        prop_assert!((28 * 96 - 4..=31 * 96 + 4).contains(&second.quarters()));
        prop_assert_eq!(second.start(), first.end());
    }
}
