//! Each kind of charge, by hand, in currencies with no, two and three digits.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

/// A charge with `used` tokens in all of April, in JPY, USD and KWD.
fn in_currencies(charge: &str, used: u64) -> [String; 3] {
    let price = format!(r#"{{"name":"T","charge":{{"kind":{charge}}}}}"#);
    ["JPY", "USD", "KWD"].map(|currency| {
        let mut amounts = april_at(currency, &price, &[tokens(day(1), used)]);
        assert_eq!(amounts.len(), 1);
        amounts.remove(0)
    })
}

fn table(charge: &str, rows: &[(u64, [&str; 3])]) {
    for (used, amounts) in rows {
        let expected = [0, 1, 2].map(|i| format!("{} {}", amounts[i], ["JPY", "USD", "KWD"][i]));
        assert_eq!(in_currencies(charge, *used), expected, "{used}");
    }
}

/// `charge` in the first half of April only.
fn half(charge: &str, used: u64) -> String {
    let price = format!(r#"{{"name":"T","charge":{{"kind":{charge}}}}}"#);
    let terms = [terms(april().start(), "USD", &price), terms(day(16), "USD", "")];
    amounts(&draw_up(april(), &terms, &[tokens(day(1), used)], &[]).unwrap()).remove(0)
}

const TIERS: &str = r#""unit":"tokens","tiers":[{"up_to":1000,"unit_price":"0.0125"},{"up_to":null,"unit_price":"0.0075"}]"#;

#[test]
fn flat() {
    table(
        r#""flat","amount":"49""#,
        &[(0, ["49", "49.00", "49.000"]), (9, ["49", "49.00", "49.000"])],
    );
    assert_eq!(half(r#""flat","amount":"49.01""#, 0), "24.50 USD"); // 24.505: to the even one
}

#[test]
fn per_unit() {
    table(
        r#""per_unit","unit":"tokens","unit_price":"0.0015","included":1000"#,
        &[
            (1_000, ["0", "0.00", "0.000"]),
            (1_001, ["0", "0.00", "0.002"]), // 0.0015
            (1_333, ["0", "0.50", "0.500"]), // 0.4995
            (1_334, ["1", "0.50", "0.501"]), // 0.501
            (4_433, ["5", "5.15", "5.150"]), // 5.1495
        ],
    );
    table(
        r#""per_unit","unit":"tokens","unit_price":"0.000000000001""#,
        &[(500_000_000_000, ["0", "0.50", "0.500"]), (1_500_000_000_000, ["2", "1.50", "1.500"])],
    );
}

#[test]
fn graduated() {
    table(
        &format!(r#""graduated",{TIERS}"#),
        &[
            (1_000, ["12", "12.50", "12.500"]), // half to even
            (1_001, ["13", "12.51", "12.508"]), // 12.5 + 0.0075 = 12.5075
            (1_250, ["14", "14.38", "14.375"]), // 12.5 + 1.875
        ],
    );
}

#[test]
fn volume_prices_every_unit_by_the_tier_of_the_last() {
    table(
        &format!(r#""volume",{TIERS}"#),
        &[
            (0, ["0", "0.00", "0.000"]),
            (1_000, ["12", "12.50", "12.500"]),
            (1_001, ["8", "7.51", "7.508"]), // 1001 × 0.0075 = 7.5075: more for less
            (1_250, ["9", "9.38", "9.375"]),
        ],
    );
    // Included units count for no tier.
    table(
        &format!(r#""volume",{TIERS},"included":100"#),
        &[
            (100, ["0", "0.00", "0.000"]),
            (1_100, ["12", "12.50", "12.500"]),
            (1_101, ["8", "7.51", "7.508"]),
        ],
    );
    // In half of the month the first tier ends at 500.
    let charge = format!(r#""volume",{TIERS}"#);
    assert_eq!([500, 501].map(|used| half(&charge, used)), ["6.25 USD", "3.76 USD"]);
}

#[test]
fn a_package_that_is_started_counts_whole() {
    let charge =
        r#""package","unit":"tokens","package_size":1000,"package_price":"0.3335","included":500"#;
    table(
        charge,
        &[
            (0, ["0", "0.00", "0.000"]),
            (500, ["0", "0.00", "0.000"]),
            (501, ["0", "0.33", "0.334"]),
            (1_500, ["0", "0.33", "0.334"]),
            (1_501, ["1", "0.67", "0.667"]),
            (14_501, ["5", "5.00", "5.002"]), // 15 × 0.3335 = 5.0025
        ],
    );
    // In half of the month 250 are included, and a package is as large as ever.
    let amounts = [250, 251, 1_250, 1_251].map(|used| half(charge, used));
    assert_eq!(amounts, ["0.00 USD", "0.33 USD", "0.33 USD", "0.67 USD"]);
}

#[test]
fn what_counts_nothing_or_too_much_is_refused() {
    let check = |rest: &str| {
        let json = format!(r#"{{"currency":"USD","prices":[{{"name":"T",{rest}}}]}}"#);
        serde_json::from_str::<PlanTerms>(&json).unwrap().check().map_err(|error| error.to_string())
    };
    let flat = r#""charge":{"kind":"flat","amount":"1"}"#;
    let volume = format!(r#""charge":{{"kind":"volume",{TIERS}}}"#);
    for (rest, error) in [
        (format!(r#""model":"gpt*",{flat}"#), "counts no usage"),
        (format!(r#""minimum":"1",{flat}"#), "counts no usage"),
        (format!(r#""discount_percent":"0",{flat}"#), "a discount of 0 percent"),
        (format!(r#""discount_percent":"100.1",{flat}"#), "at most 100"),
        (format!(r#""discount_percent":"0.0000001",{flat}"#), "6 decimals"),
        (format!(r#""minimum":"0.001",{volume}"#), "finer than the minor unit"),
        (format!(r#""minimum":"-1",{volume}"#), "negative"),
        (
            r#""charge":{"kind":"volume","unit":"tokens","tiers":[]}"#.into(),
            "tiers must not be empty",
        ),
        (
            r#""charge":{"kind":"package","unit":"tokens","package_size":0,"package_price":"1"}"#
                .into(),
            "package_size",
        ),
        (
            r#""charge":{"kind":"package","unit":"tokens","package_size":1,"package_price":"-1"}"#
                .into(),
            "negative",
        ),
    ] {
        let refused = check(&rest).unwrap_err();
        assert!(refused.starts_with("prices[0]: ") && refused.contains(error), "{rest}: {refused}");
    }
    assert_eq!(
        check(&format!(r#""model":"gpt*","minimum":"1.00","discount_percent":"100",{volume}"#)),
        Ok(())
    );
}
