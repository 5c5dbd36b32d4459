//! Discounts and minimums, by hand.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

/// Terms with a discount, a minimum, or both, as JSON members of the plan.
fn plan(from: Quarter, currency: &str, rules: &str, prices: &str) -> TermsFrom {
    let json = format!(r#"{{"currency":"{currency}",{rules},"prices":[{prices}]}}"#);
    let terms: PlanTerms = serde_json::from_str(&json).unwrap();
    terms.check().unwrap();
    TermsFrom { from, terms }
}

fn lines(invoice: &Invoice) -> Vec<(String, String)> {
    invoice
        .lines
        .iter()
        .map(|line| (line.subject.name(&TimeZone::UTC), line.amount.to_string()))
        .collect()
}

fn of(lines: &[(String, String)]) -> Vec<(&str, &str)> {
    lines.iter().map(|(name, amount)| (name.as_str(), amount.as_str())).collect()
}

/// 12 tokens at 1 each, with rules of the price.
fn tokens_with(rules: &str) -> String {
    format!(
        r#"{{"name":"Tokens",{rules},"charge":{{"kind":"per_unit","unit":"tokens","unit_price":"1"}}}}"#
    )
}

#[test]
fn a_discount_is_a_line_of_its_own_in_the_minor_unit() {
    for (currency, amounts) in [
        ("JPY", ["49 JPY", "-6 JPY"]),
        ("USD", ["49.00 USD", "-6.12 USD"]), // 6.125: to the even one
        ("KWD", ["49.000 KWD", "-6.125 KWD"]),
    ] {
        let price = r#"{"name":"Base fee","discount_percent":"12.50","charge":{"kind":"flat","amount":"49"}}"#;
        assert_eq!(april_at(currency, price, &[]), amounts);
        let plan = [plan(
            april().start(),
            currency,
            r#""discount_percent":"12.5""#,
            r#"{"name":"Base fee","charge":{"kind":"flat","amount":"49"}}"#,
        )];
        assert_eq!(super::amounts(&draw_up(april(), &plan, &[], &[]).unwrap()), amounts);
    }
    // Of nothing, nothing is taken off.
    assert_eq!(april_at("USD", &tokens_with(r#""discount_percent":"50""#), &[]), ["0.00 USD"]);
}

#[test]
fn a_minimum_is_made_up_for() {
    let price = tokens_with(r#""minimum":"50""#);
    for (used, expected) in [
        (0, vec!["0.00 USD", "50.00 USD"]),
        (12, vec!["12.00 USD", "38.00 USD"]),
        (50, vec!["50.00 USD"]),
        (51, vec!["51.00 USD"]),
    ] {
        assert_eq!(april_at("USD", &price, &[tokens(day(1), used)]), expected, "{used}");
    }
    for (currency, amount) in [("JPY", "17 JPY"), ("USD", "16.67 USD"), ("KWD", "16.667 KWD")] {
        // A third of the month.
        let terms = [terms(april().start(), currency, &price), terms(day(11), currency, "")];
        let invoice = draw_up(april(), &terms, &[], &[]).unwrap();
        assert_eq!(amounts(&invoice)[1..], [amount.to_owned()]);
    }
}

/// Price: charge, discount, minimum. Plan: discount, minimum, of what all that comes to.
#[test]
fn rules_apply_in_their_order() {
    let prices = format!(
        r#"{{"name":"Base fee","charge":{{"kind":"flat","amount":"10.05"}}}},{}"#,
        tokens_with(r#""discount_percent":"25","minimum":"20""#),
    );
    let plan = [plan(april().start(), "USD", r#""discount_percent":"10","minimum":"30""#, &prices)];
    let invoice = draw_up(april(), &plan, &[tokens(day(1), 12)], &[]).unwrap();
    assert_eq!(
        of(&lines(&invoice)),
        [
            ("Base fee", "10.05 USD"),
            ("Tokens", "12.00 USD"),
            ("Tokens: Discount of 25 %", "-3.00 USD"),
            ("Tokens: Up to the minimum of 20.00 USD", "11.00 USD"),
            ("Discount of 10 %", "-3.00 USD"), // of 30.05: 3.005, to the even one
            ("Up to the minimum of 30.00 USD", "2.95 USD"),
        ],
    );
    assert_eq!(invoice.total.to_string(), "30.00 USD");
}

#[test]
fn an_adjustment_counts_in_no_minimum_and_no_discount() {
    let rules = r#""discount_percent":"10","minimum":"30""#;
    let plan = [plan(april().start(), "USD", rules, &tokens_with(r#""minimum":"0""#))];
    // 20 tokens are 18.00, made up to 30.00; 40 are 36.00.
    let known = [tokens(day(1), 20)];
    let late = adjust(april(), &plan, &known, &[tokens(day(1), 40)]).unwrap().unwrap();
    assert_eq!(late.amount.to_string(), "6.00 USD");
    assert_eq!(adjust(april(), &plan, &known, &[tokens(day(1), 33)]), Ok(None), "29.70");
    let invoice = draw_up(april(), &plan, &[], &[late]).unwrap();
    assert_eq!(amounts(&invoice), ["0.00 USD", "30.00 USD", "6.00 USD"]);
}

/// 10 days with a minimum of 90, 20 with one of 30: 30 + 20.
#[test]
fn minimums_of_a_period_add_up_by_their_shares() {
    let price = tokens_with(r#""minimum":"0""#);
    let first = plan(april().start(), "USD", r#""minimum":"90""#, &price);
    let second = plan(day(11), "USD", r#""minimum":"30""#, &price);
    let third = plan(day(11), "USD", r#""discount_percent":"50""#, &price);
    let usage = [tokens(day(1), 10), tokens(day(20), 5)];
    let invoice = draw_up(april(), &[first.clone(), second], &usage, &[]).unwrap();
    assert_eq!(
        of(&lines(&invoice)),
        [("Tokens", "15.00 USD"), ("Up to the minimum of 50.00 USD", "35.00 USD")]
    );
    // What the plan takes off from day 11 is taken off what was used since.
    let invoice = draw_up(april(), &[first, third], &usage, &[]).unwrap();
    assert_eq!(
        of(&lines(&invoice)),
        [
            ("Tokens", "10.00 USD"),
            ("Tokens", "5.00 USD"),
            ("Discount of 50 %", "-2.50 USD"),
            ("Up to the minimum of 30.00 USD", "17.50 USD"),
        ],
    );
}

#[test]
fn rules_that_can_not_be_are_refused_with_their_place() {
    for (rules, field) in [
        (r#""discount_percent":"101""#, "discount_percent: "),
        (r#""minimum":"0.001""#, "minimum: "),
        (r#""minimum":"-1""#, "minimum: "),
    ] {
        let json = format!(r#"{{"currency":"USD",{rules}}}"#);
        let terms: PlanTerms = serde_json::from_str(&json).unwrap();
        assert!(terms.check().unwrap_err().to_string().starts_with(field), "{rules}");
    }
}
