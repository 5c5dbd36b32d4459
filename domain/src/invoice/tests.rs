//! Invoices computed by hand.

mod charges;
mod grants;
mod models;
mod rules;

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

const DAY: i64 = 96;

/// April 2026 in UTC: 30 days of 96 quarter hours.
fn april() -> BillingPeriod {
    BillingPeriod::new(at("2026-04-01T00:00:00Z"), at("2026-05-01T00:00:00Z")).unwrap()
}

fn at(text: &str) -> Quarter {
    Quarter::containing(text.parse().unwrap())
}

/// The first quarter hour of a day of April.
fn day(day: i64) -> Quarter {
    let start = april().start().start().as_second() + (day - 1) * DAY * 900;
    Quarter::containing(jiff::Timestamp::from_second(start).unwrap())
}

fn terms(from: Quarter, currency: &str, prices: &str) -> TermsFrom {
    let json = format!(r#"{{"currency":"{currency}","prices":[{prices}]}}"#);
    let terms: PlanTerms = serde_json::from_str(&json).unwrap();
    terms.check().unwrap();
    TermsFrom { from, terms }
}

fn tokens(quarter: Quarter, tokens: u64) -> Usage {
    used(quarter, "default", Used { tokens, requests: 0 })
}

fn used(quarter: Quarter, meter: &str, used: Used) -> Usage {
    Usage { quarter, meter: Meter::new(meter).unwrap(), model: String::new(), used }
}

fn amounts(invoice: &Invoice) -> Vec<String> {
    invoice.lines.iter().map(|line| line.amount.to_string()).collect()
}

/// The amounts of the lines for `prices`, in force all of April.
fn april_at(currency: &str, prices: &str, usage: &[Usage]) -> Vec<String> {
    let terms = [terms(april().start(), currency, prices)];
    amounts(&draw_up(april(), &terms, usage, &[]).unwrap())
}

const FLAT: &str = r#"{"name":"Base fee","charge":{"kind":"flat","amount":"49.00"}}"#;
const PER_TOKEN: &str =
    r#"{"name":"Tokens","charge":{"kind":"per_unit","unit":"tokens","unit_price":"0.0001"}}"#;
const INCLUDED: &str = r#"{"name":"Tokens","charge":{"kind":"per_unit","unit":"tokens","unit_price":"0.01","included":300}}"#;
const TIERS: &str = r#"{"name":"Tokens","charge":{"kind":"graduated","unit":"tokens","included":10,"tiers":[
    {"up_to":50,"unit_price":"0.01"},{"up_to":80,"unit_price":"0.005"},{"up_to":null,"unit_price":"0.001"}]}}"#;

#[test]
fn a_flat_amount_does_not_depend_on_usage() {
    assert_eq!(april_at("USD", FLAT, &[]), ["49.00 USD"]);
    assert_eq!(april_at("USD", FLAT, &[tokens(day(3), 1_000_000)]), ["49.00 USD"]);
}

#[test]
fn per_unit_rounds_once_and_half_to_even() {
    for (used, amount) in [
        (0, "0.00 USD"),
        (49, "0.00 USD"),  // 0.0049
        (50, "0.00 USD"),  // 0.0050: to the even 0.00
        (51, "0.01 USD"),  // 0.0051
        (150, "0.02 USD"), // 0.0150: to the even 0.02
        (250, "0.02 USD"), // 0.0250: to the even 0.02
        (1_234, "0.12 USD"),
        (123_456_789, "12345.68 USD"),
    ] {
        assert_eq!(april_at("USD", PER_TOKEN, &[tokens(day(1), used)]), [amount], "{used}");
    }
}

#[test]
fn included_units_come_first() {
    for (used, amount) in
        [(0, "0.00 USD"), (300, "0.00 USD"), (301, "0.01 USD"), (1_000, "7.00 USD")]
    {
        assert_eq!(april_at("USD", INCLUDED, &[tokens(day(30), used)]), [amount], "{used}");
    }
}

#[test]
fn each_unit_is_charged_in_its_tier() {
    for (used, amount) in [
        (10, "0.00 USD"),    // all included
        (11, "0.01 USD"),    // 1 × 0.01
        (60, "0.50 USD"),    // 50 × 0.01
        (62, "0.51 USD"),    // + 2 × 0.005
        (90, "0.65 USD"),    // + 30 × 0.005
        (1_090, "1.65 USD"), // + 1000 × 0.001
        (1_094, "1.65 USD"), // 1.654
        (1_095, "1.66 USD"), // 1.655: to the even 1.66
        (1_085, "1.64 USD"), // 1.645: to the even 1.64
    ] {
        assert_eq!(april_at("USD", TIERS, &[tokens(day(1), used)]), [amount], "{used}");
    }
}

#[test]
fn currencies_without_and_with_three_digits() {
    let price =
        r#"{"name":"T","charge":{"kind":"per_unit","unit":"tokens","unit_price":"0.0015"}}"#;
    let usage = [tokens(day(1), 1_001)]; // 1.5015
    assert_eq!(april_at("JPY", price, &usage), ["2 JPY"]);
    assert_eq!(april_at("USD", price, &usage), ["1.50 USD"]);
    assert_eq!(april_at("KWD", price, &usage), ["1.502 KWD"]);
}

#[test]
fn meters_and_units_are_charged_apart() {
    let prices = r#"
        {"name":"Chat","meter":"chat","charge":{"kind":"per_unit","unit":"tokens","unit_price":"1"}},
        {"name":"Calls","meter":"chat","charge":{"kind":"per_unit","unit":"requests","unit_price":"10"}},
        {"name":"Default","charge":{"kind":"per_unit","unit":"tokens","unit_price":"100"}}"#;
    let usage = [
        used(day(1), "chat", Used { tokens: 3, requests: 2 }),
        used(day(2), "chat", Used { tokens: 4, requests: 1 }),
        used(day(2), "default", Used { tokens: 5, requests: 9 }),
        used(day(2), "unpriced", Used { tokens: 5, requests: 9 }),
    ];
    assert_eq!(april_at("USD", prices, &usage), ["7.00 USD", "30.00 USD", "500.00 USD"]);
}

#[test]
fn terms_that_change_within_the_period_are_in_force_for_their_share() {
    // 10 of 30 days of 49.00 with 300 included, then 20 days of 10.00 with 30 included.
    let first = terms(april().start(), "USD", &[FLAT, INCLUDED].join(","));
    let second = terms(
        day(11),
        "USD",
        r#"{"name":"Small","charge":{"kind":"flat","amount":"10.00"}},
           {"name":"Tokens","charge":{"kind":"per_unit","unit":"tokens","unit_price":"0.02","included":30}}"#,
    );
    // Until day 11: 160 tokens, 100 of them included. From day 11: 70 tokens, 20 of them included.
    let usage = [tokens(day(1), 100), tokens(day(10), 60), tokens(day(11), 70)];
    let invoice = draw_up(april(), &[first, second], &usage, &[]).unwrap();
    // 49 × 1/3 = 16.333…, 60 × 0.01, 10 × 2/3 = 6.666…, 50 × 0.02
    assert_eq!(amounts(&invoice), ["16.33 USD", "0.60 USD", "6.67 USD", "1.00 USD"]);
    assert_eq!(invoice.total.to_string(), "24.60 USD");
    let Subject::Price { share, quantity, .. } = &invoice.lines[1].subject else { panic!() };
    assert_eq!((*share, *quantity), (Share { quarters: 960, of: 2880 }, 160));
}

#[test]
fn tiers_end_earlier_in_a_share_of_the_period() {
    // Half of April: 5 included, tiers end at 25 and 40.
    let half = [terms(april().start(), "USD", TIERS), terms(day(16), "USD", "")];
    for (used, amount) in [(5, "0.00 USD"), (30, "0.25 USD"), (45, "0.32 USD"), (145, "0.42 USD")] {
        // 25 × 0.01 = 0.25; + 15 × 0.005 = 0.325, to the even 0.32; + 100 × 0.001 = 0.425
        let invoice = draw_up(april(), &half, &[tokens(day(15), used)], &[]).unwrap();
        assert_eq!(amounts(&invoice), [amount], "{used}");
    }
    // What is used once the price is gone costs nothing.
    let invoice = draw_up(april(), &half, &[tokens(day(16), 1_000)], &[]).unwrap();
    assert_eq!(amounts(&invoice), ["0.00 USD"]);
}

#[test]
fn a_price_that_both_plans_have_is_one_line() {
    let first = terms(april().start(), "USD", &[FLAT, FLAT, INCLUDED].join(","));
    let second = terms(day(11), "USD", &[INCLUDED, FLAT].join(","));
    let usage = [tokens(day(1), 10), tokens(day(20), 390)];
    let invoice = draw_up(april(), &[first, second], &usage, &[]).unwrap();
    // The second of the two base fees was in force for a third of the month.
    assert_eq!(amounts(&invoice), ["49.00 USD", "16.33 USD", "1.00 USD"]);
}

#[test]
fn terms_from_before_and_after_the_period_only_matter_inside_it() {
    let all = [
        terms(at("2025-01-01T00:00:00Z"), "JPY", ""),
        terms(at("2026-03-20T00:00:00Z"), "USD", FLAT),
        terms(april().end(), "JPY", ""),
    ];
    assert_eq!(amounts(&draw_up(april(), &all, &[], &[]).unwrap()), ["49.00 USD"]);
}

#[test]
fn an_adjustment_is_the_difference_and_a_line_that_names_its_period() {
    let terms = [terms(april().start(), "USD", TIERS)];
    let billed = [tokens(day(1), 60)];
    assert_eq!(adjust(april(), &terms, &billed, &billed), Ok(None));
    // 2 more tokens, in the second tier.
    let adjustment = adjust(april(), &terms, &billed, &[tokens(day(1), 62)]).unwrap().unwrap();
    assert_eq!(adjustment.amount.to_string(), "0.01 USD");
    let less = adjust(april(), &terms, &billed, &[tokens(day(1), 59)]).unwrap().unwrap();
    assert_eq!(less.amount.to_string(), "-0.01 USD");

    let may = BillingPeriod::new(april().end(), at("2026-06-01T00:00:00Z")).unwrap();
    let invoice = draw_up(may, &terms, &[], &[adjustment]).unwrap();
    assert_eq!(amounts(&invoice), ["0.00 USD", "0.01 USD"]);
    assert_eq!(
        invoice.lines[1].subject.name(&TimeZone::UTC),
        "Late or corrected usage of 1 Apr 2026, 00:00 to 1 May 2026, 00:00"
    );
    assert_eq!(invoice.total.to_string(), "0.01 USD");
}

#[test]
fn what_can_not_be_priced_is_an_error() {
    let usd = terms(april().start(), "USD", PER_TOKEN);
    let jpy = terms(day(5), "JPY", "");
    let draw = |terms: &[TermsFrom], usage: &[Usage]| draw_up(april(), terms, usage, &[]);
    assert_eq!(draw(&[], &[]), Err(InvoiceError::NoTerms));
    assert_eq!(draw(std::slice::from_ref(&jpy), &[]), Err(InvoiceError::NoTerms));
    assert_eq!(draw(&[usd.clone(), usd.clone()], &[]), Err(InvoiceError::TermsOrder),);
    assert!(matches!(draw(&[usd.clone(), jpy], &[]), Err(InvoiceError::Currencies(..))));
    assert!(matches!(
        draw(std::slice::from_ref(&usd), &[tokens(april().end(), 1)]),
        Err(InvoiceError::OutsidePeriod(_)),
    ));
    assert!(matches!(
        draw(&[usd], &[tokens(day(1), u64::MAX), tokens(day(2), 1)]),
        Err(InvoiceError::Line { .. }),
    ));
    let dear = r#"{"name":"T","charge":{"kind":"per_unit","unit":"tokens","unit_price":"79228162514264337593543950335"}}"#;
    assert!(matches!(
        draw(&[terms(april().start(), "USD", dear)], &[tokens(day(1), u64::MAX)]),
        Err(InvoiceError::Line { cause: MoneyError::Overflow, .. }),
    ));
}

#[test]
fn large_products_stay_exact() {
    // 2^53 - 1 tokens at 8.999999999999: 81064793292659733.024… needs more than 28 digits.
    let price = r#"{"name":"T","charge":{"kind":"per_unit","unit":"tokens","unit_price":"8.999999999999"}}"#;
    let used = (1_u64 << 53) - 1;
    let exact = i128::from(used) * 8_999_999_999_999;
    let cents = (exact + 5_000_000_000) / 10_000_000_000;
    let expected = format!("{}.{:02} USD", cents / 100, cents % 100);
    assert_eq!(april_at("USD", price, &[tokens(day(1), used)]), [expected]);
}
