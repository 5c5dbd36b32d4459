//! How the numbers of `usage` become input, cached and output tokens.

use proptest::prelude::*;
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{
    super::{response::BodyKind, usage::TokenUsage},
    grammar, pieces, quantity, reported,
};

fn usage_of(usage: &Value) -> Option<TokenUsage> {
    let body = json!({"usage": usage}).to_string();
    reported(BodyKind::Json, [body.as_bytes()]).usage()
}

fn of(input: u64, cached: u64, output: u64) -> Option<TokenUsage> {
    Some(TokenUsage { input: quantity(input), cached: quantity(cached), output: quantity(output) })
}

#[test]
fn each_api_has_its_own_sums() {
    let cached = json!({"cached_tokens": 30});
    for (usage, expected) in [
        // OpenAI: the prompt includes what was cached.
        (json!({"prompt_tokens": 100, "completion_tokens": 7}), of(100, 0, 7)),
        (
            json!({"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": cached}),
            of(70, 30, 7),
        ),
        (
            json!({"input_tokens": 100, "output_tokens": 7, "input_tokens_details": cached}),
            of(70, 30, 7),
        ),
        (json!({"prompt_tokens": 8, "total_tokens": 8}), of(8, 0, 0)),
        // Anthropic: it does not; what is written to the cache is input.
        (json!({"input_tokens": 100, "output_tokens": 7}), of(100, 0, 7)),
        (
            json!({"input_tokens": 100, "output_tokens": 7, "cache_read_input_tokens": 30,
                "cache_creation_input_tokens": 5}),
            of(105, 30, 7),
        ),
        (
            json!({"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": null,
                "cache_creation_input_tokens": null}),
            of(1, 0, 2),
        ),
        // Gateways that send the names of both: nothing counts twice.
        (
            json!({"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": cached,
                "cache_read_input_tokens": 30, "cache_creation_input_tokens": 5}),
            of(70, 30, 7),
        ),
        // More is cached than there is.
        (
            json!({"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": cached}),
            of(0, 10, 1),
        ),
    ] {
        assert_eq!(usage_of(&usage), expected, "{usage}");
    }
}

#[test]
fn what_is_no_whole_number_up_to_2_pow_53_is_absent() {
    for output in [
        "-1",
        "1.5",
        "1e2",
        "9007199254740992",
        "99999999999999999999999",
        "\"7\"",
        "null",
        "[7]",
        "true",
    ] {
        let body = format!(r#"{{"usage":{{"prompt_tokens":3,"completion_tokens":{output}}}}}"#);
        let report = reported(BodyKind::Json, [body.as_bytes()]);
        assert_eq!((report.input, report.output), (Some(quantity(3)), None), "{output}");
        assert!(!report.complete);
    }
    for (output, expected) in [("9007199254740991", (1 << 53) - 1), ("7.0", 7), ("-0", 0)] {
        let body = format!(r#"{{"usage":{{"prompt_tokens":3,"completion_tokens":{output}}}}}"#);
        assert_eq!(reported(BodyKind::Json, [body.as_bytes()]).usage(), of(3, 0, expected));
    }
}

#[test]
fn only_the_answers_own_usage_counts() {
    for body in [
        r#"{"metadata":{"usage":{"prompt_tokens":1,"completion_tokens":1}}}"#,
        r#"{"response":{"metadata":{"usage":{"prompt_tokens":1,"completion_tokens":1}}}}"#,
        r#"{"message":{"content":[{"usage":{"prompt_tokens":1,"completion_tokens":1}}]}}"#,
        r#"{"response":[{"usage":1},{"prompt_tokens":1,"completion_tokens":1}]}"#,
        r#"{"usage":[{"prompt_tokens":1,"completion_tokens":1}]}"#,
        r#"{"usage":{"x":{"prompt_tokens":1,"completion_tokens":1}}}"#,
        r#"{"choices":[{"usage":{"prompt_tokens":1,"completion_tokens":1}}]}"#,
        r#"[{"usage":{"prompt_tokens":1,"completion_tokens":1}}]"#,
        r#"{"a":"\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}"}"#,
        r#"{"prompt_tokens":1,"completion_tokens":1}"#,
    ] {
        let report = reported(BodyKind::Json, [body.as_bytes()]);
        assert_eq!((report.input, report.output), (None, None), "{body}");
    }
}

/// The same sums, from a tree.
fn usage_by_tree(body: &Value) -> (Option<u64>, u64, Option<u64>) {
    let usage = &body["usage"];
    let number = |value: &Value| value.as_u64().filter(|n| *n < 1 << 53);
    let get = |name: &str| number(&usage[name]);
    let cached = ["prompt_tokens_details", "input_tokens_details"]
        .iter()
        .filter_map(|details| number(&usage[details]["cached_tokens"]))
        .max();
    let openai = get("prompt_tokens")
        .or(get("input_tokens").filter(|_| usage["input_tokens_details"].is_object()));
    let (input, cached) = match openai {
        Some(all) => {
            let cached = cached.unwrap_or(0).min(all);
            (Some(all - cached), cached)
        }
        None => {
            let written = get("cache_creation_input_tokens").unwrap_or(0);
            let input = get("input_tokens").map(|n| (n + written).min((1 << 53) - 1));
            (input, get("cache_read_input_tokens").unwrap_or(0))
        }
    };
    let rest = || Some(get("total_tokens")?.saturating_sub(get("prompt_tokens")?));
    let output = get("completion_tokens").or(get("output_tokens")).or_else(rest);
    (input, if input.is_some() { cached } else { 0 }, output)
}

const NAMES: [&str; 7] = [
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
];

fn count() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => (0..100_000u64).prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => (0.1..0.9f64).prop_map(Value::from),
        1 => Just(Value::Null),
        1 => grammar::value(),
    ]
}

/// Fields with different names in any order, as text.
fn fields(fields: Vec<(String, Value)>) -> String {
    let mut seen = std::collections::BTreeSet::new();
    let fields: Vec<String> = fields
        .into_iter()
        .filter(|(name, _)| seen.insert(name.clone()))
        .map(|(name, value)| format!("{} : {value}", Value::from(name)))
        .collect();
    format!("{{{}}}", fields.join(","))
}

fn usage() -> impl Strategy<Value = Value> {
    let details = prop_oneof![
        3 => count().prop_map(|n| json!({"audio_tokens": 1, "cached_tokens": n})),
        1 => grammar::value(),
    ];
    let field = prop_oneof![
        5 => (prop::sample::select(&NAMES[..]), count()),
        2 => (prop::sample::select(&["prompt_tokens_details", "input_tokens_details"][..]), details),
        1 => (Just("iterations"), grammar::value()),
    ];
    prop::collection::vec(field.prop_map(|(name, value)| (name.to_owned(), value)), 0..8)
        .prop_map(|list| Value::Object(list.into_iter().collect()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// The order of keys, what else is in the body and how it is cut does not matter.
    #[test]
    fn usage_is_what_a_tree_would_say(
        usage in prop_oneof![9 => usage(), 1 => grammar::value()],
        others in prop::collection::vec(("[a-z]{1,9}|choices|metadata|output|content", grammar::value()), 0..5),
        place in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(any::<usize>(), 0..9),
    ) {
        let mut list: Vec<(String, Value)> = others;
        list.retain(|(name, _)| name != "usage");
        list.insert(place.index(list.len() + 1), ("usage".to_owned(), usage));
        let text = fields(list);
        let tree: Value = serde_json::from_str(&text).unwrap();
        let report = reported(BodyKind::Json, pieces(text.as_bytes(), &cuts));
        let told = (report.input.map(u64::from), report.cached.get(), report.output.map(u64::from));
        prop_assert_eq!(told, usage_by_tree(&tree), "{}", text);
        prop_assert_eq!(report.complete, report.input.is_some() && report.output.is_some());
    }
}
