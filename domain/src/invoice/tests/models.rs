//! Prices per meter and model: which one charges what.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

fn model(quarter: Quarter, model: &str, tokens: u64) -> Usage {
    let used = Used { tokens, requests: 1 };
    Usage { model: model.to_owned(), ..used_of(quarter, used) }
}

fn used_of(quarter: Quarter, amount: Used) -> Usage {
    used(quarter, "default", amount)
}

/// A price of tokens for a model; for all without one.
fn price(name: &str, model: &str, unit_price: &str) -> String {
    let model = if model.is_empty() { String::new() } else { format!(r#""model":"{model}","#) };
    format!(
        r#"{{"name":"{name}",{model}"charge":{{"kind":"per_unit","unit":"tokens","unit_price":"{unit_price}"}}}}"#
    )
}

fn quantities(invoice: &Invoice) -> Vec<(String, u64)> {
    let of = |line: &Line| match &line.subject {
        Subject::Price { quantity, .. } => Some((line.subject.name(&TimeZone::UTC), *quantity)),
        _ => None,
    };
    invoice.lines.iter().filter_map(of).collect()
}

#[test]
fn the_most_specific_pattern_wins() {
    let prices = [
        price("All", "", "1"),
        price("GPT", "gpt-*", "2"),
        price("GPT-4", "gpt-4*", "3"),
        price("GPT-4o", "gpt-4o", "4"),
        price("GPT-4o and so on", "gpt-4o*", "5"),
    ]
    .join(",");
    for (name, charged_by) in [
        ("", "All"),
        ("llama", "All"),
        ("gpt-3.5", "GPT"),
        ("gpt-4", "GPT-4"),
        ("gpt-4-turbo", "GPT-4"),
        ("gpt-4o", "GPT-4o"),
        ("gpt-4o-mini", "GPT-4o and so on"),
        ("GPT-4", "All"),
    ] {
        let terms = [terms(april().start(), "USD", &prices)];
        let invoice = draw_up(april(), &terms, &[model(day(1), name, 10)], &[]).unwrap();
        let charged: Vec<_> =
            quantities(&invoice).into_iter().filter(|(_, used)| *used > 0).collect();
        assert_eq!(charged, [(charged_by.to_owned(), 10)], "{name}");
        assert_eq!(invoice.unpriced, [], "requests are charged nowhere");
    }
}

/// Units and meters have their prices apart: a price of one takes nothing from the other's.
#[test]
fn a_pattern_counts_in_its_own_meter_and_unit() {
    let prices = format!(
        r#"{},{{"name":"Calls","charge":{{"kind":"per_unit","unit":"requests","unit_price":"0.5"}}}},
           {{"name":"Chat","meter":"chat","charge":{{"kind":"per_unit","unit":"tokens","unit_price":"7"}}}}"#,
        price("GPT", "gpt*", "2"),
    );
    let chat = Usage {
        model: "gpt-4".to_owned(),
        ..used(day(2), "chat", Used { tokens: 3, requests: 2 })
    };
    let terms = [terms(april().start(), "USD", &prices)];
    let invoice = draw_up(
        april(),
        &terms,
        &[model(day(1), "gpt-4", 10), model(day(1), "llama", 4), chat],
        &[],
    )
    .unwrap();
    assert_eq!(amounts(&invoice), ["20.00 USD", "1.00 USD", "21.00 USD"]);
    // Units that are charged elsewhere in the plan.
    let rest = |meter: &str, model: &str, used| Unpriced {
        meter: Meter::new(meter).unwrap(),
        model: model.to_owned(),
        used,
    };
    assert_eq!(
        invoice.unpriced,
        [
            rest("chat", "gpt-4", Used { tokens: 0, requests: 2 }),
            rest("default", "llama", Used { tokens: 4, requests: 0 }),
        ],
    );
}

#[test]
fn usage_that_nothing_names_costs_nothing_and_is_told() {
    let terms = [terms(april().start(), "USD", &price("GPT", "gpt*", "2"))];
    let usage = [
        model(day(1), "llama", 4),
        model(day(2), "llama", 5),
        model(day(3), "", 6),
        model(day(3), "gpt", 1),
    ];
    let invoice = draw_up(april(), &terms, &usage, &[]).unwrap();
    assert_eq!(amounts(&invoice), ["2.00 USD"]);
    let told: Vec<_> =
        invoice.unpriced.iter().map(|rest| (rest.model.as_str(), rest.used)).collect();
    assert_eq!(
        told,
        [("", Used { tokens: 6, requests: 1 }), ("llama", Used { tokens: 9, requests: 2 })]
    );
}

/// A model gets a price of its own on day 11: until then it is charged with the rest.
#[test]
fn a_model_may_get_a_price_within_the_period() {
    let first = terms(april().start(), "USD", &price("All", "", "1"));
    let second =
        terms(day(11), "USD", &[price("All", "", "1"), price("GPT", "gpt*", "2")].join(","));
    let usage =
        [model(day(1), "gpt-4", 10), model(day(11), "gpt-4", 100), model(day(11), "llama", 1_000)];
    let invoice = draw_up(april(), &[first, second], &usage, &[]).unwrap();
    assert_eq!(quantities(&invoice), [("All".to_owned(), 1_010), ("GPT".to_owned(), 100)]);
}

#[test]
fn two_prices_for_the_same_usage_are_refused() {
    let check = |prices: &[String]| {
        let json = format!(r#"{{"currency":"USD","prices":[{}]}}"#, prices.join(","));
        serde_json::from_str::<PlanTerms>(&json).unwrap().check()
    };
    let calls = r#"{"name":"Calls","model":"gpt*","charge":{"kind":"per_unit","unit":"requests","unit_price":"1"}}"#;
    let chat = r#"{"name":"Chat","meter":"chat","model":"gpt*","charge":{"kind":"per_unit","unit":"tokens","unit_price":"1"}}"#;
    let fine = [
        price("A", "gpt*", "1"),
        price("B", "gpt-4*", "1"),
        price("C", "gpt", "1"),
        price("D", "", "1"),
        calls.into(),
        chat.into(),
        FLAT.into(),
        FLAT.into(),
    ];
    assert_eq!(check(&fine), Ok(()));
    for (first, second) in [("", ""), ("gpt*", "gpt*"), ("gpt", "gpt")] {
        let tie = [price("A", first, "1"), FLAT.to_owned(), price("B", second, "2")];
        let error = check(&tie).unwrap_err();
        assert_eq!(
            (error.field.as_str(), &error.cause),
            ("prices[2]", &crate::plan::PlanErrorCause::Tie(0))
        );
    }
    // A plan that was stored before ties were refused charges by both, as it did.
    let json = format!(
        r#"{{"currency":"USD","prices":[{},{}]}}"#,
        price("A", "", "1"),
        price("B", "", "2")
    );
    let terms = [TermsFrom { from: april().start(), terms: serde_json::from_str(&json).unwrap() }];
    assert_eq!(
        amounts(&draw_up(april(), &terms, &[model(day(1), "", 10)], &[]).unwrap()),
        ["10.00 USD", "20.00 USD"]
    );
}
