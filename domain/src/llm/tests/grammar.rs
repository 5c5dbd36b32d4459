//! The scanner takes what `serde_json` takes, and tells the same of it.

use proptest::prelude::*;
use serde_json::{Map, Value};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{
    super::json::{Event, MAX_DEPTH, ScanError, Scanner, Sink, Span},
    corpus::{ANSWERS, REQUESTS, mutated},
    pieces,
};

/// Puts the value together again from the events.
#[derive(Default)]
struct Builder {
    open: Vec<(Value, String)>,
    text: Vec<u8>,
    value: Option<Value>,
    spans: Vec<(u64, u64)>,
}

impl Builder {
    fn put(&mut self, value: Value) {
        match self.open.last_mut() {
            Some((Value::Array(values), _)) => values.push(value),
            Some((Value::Object(fields), key)) => drop(fields.insert(key.clone(), value)),
            _ => self.value = Some(value),
        }
    }

    fn set_key(&mut self, key: Option<&[u8]>) {
        let key = String::from_utf8_lossy(key.unwrap_or(b"(long)")).into_owned();
        self.open.last_mut().unwrap().1 = key;
    }
}

impl Sink for Builder {
    fn event(&mut self, event: Event<'_>, span: Span) {
        match event {
            Event::ObjectStart => self.open.push((Value::Object(Map::new()), String::new())),
            Event::ArrayStart => self.open.push((Value::Array(vec![]), String::new())),
            Event::ObjectEnd | Event::ArrayEnd => {
                let (value, _) = self.open.pop().unwrap();
                self.put(value);
            }
            Event::Key(key) => self.set_key(key),
            Event::Text(text) => return self.text.extend(text),
            Event::TextEnd => {
                let text = String::from_utf8_lossy(&std::mem::take(&mut self.text)).into_owned();
                self.put(text.into());
            }
            Event::Number(number) => self.put(number.map_or(Value::Null, |n| n.get().into())),
            Event::Bool(value) => self.put(value.into()),
            Event::Null => self.put(Value::Null),
        }
        self.spans.push((span.start, span.end));
    }
}

fn scan(pieces: &[&[u8]]) -> (Result<(), ScanError>, Builder) {
    let mut builder = Builder::default();
    let mut scanner = Scanner::NEW;
    for piece in pieces {
        let _ = scanner.feed(piece, &mut builder);
    }
    (scanner.finish(), builder)
}

/// `serde_json` reads it; without a look at the values of strings and numbers, which it may refuse.
fn is_json(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_ok() && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
}

/// What the scanner tells of a value: numbers that are no quantities become `null`.
fn as_told(value: Value) -> Value {
    match value {
        Value::Number(number) => {
            number.as_u64().filter(|n| *n < 1 << 53).map_or(Value::Null, Value::from)
        }
        Value::Array(values) => values.into_iter().map(as_told).collect(),
        Value::Object(fields) => fields.into_iter().map(|(k, v)| (k, as_told(v))).collect(),
        other => other,
    }
}

pub(super) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..1u64 << 53).prop_map(Value::from),
        "\\PC{0,12}|[\"\\\\\u{0}-\u{1f}😀]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let key = "usage|input|[a-z\"\\\\é]{0,6}";
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// All of `text` outside ASCII, and some in it, as escapes.
pub(super) fn escaped(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\0'..='~' => c.to_string(),
            _ => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04X}")).collect(),
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn every_value_is_told_as_it_is(value in value(), cuts in prop::collection::vec(0..999usize, 0..9)) {
        for text in [
            value.to_string(),
            serde_json::to_string_pretty(&value).unwrap(),
            escaped(&value.to_string()),
        ] {
            let (result, builder) = scan(&pieces(text.as_bytes(), &cuts));
            prop_assert!(result.is_ok(), "{:?} {}", result, text);
            // A number alone is over only when the text is, which nobody tells the sink.
            if !value.is_number() {
                prop_assert_eq!(builder.value, Some(as_told(value.clone())));
            }
        }
    }

    #[test]
    fn it_takes_what_serde_json_takes(
        body in prop_oneof![
            mutated(&REQUESTS),
            mutated(&ANSWERS),
            prop::collection::vec(any::<u8>(), 0..40),
            "[\\[\\]{}:,\"\\\\u0-9eE+. -]{0,16}".prop_map(String::into_bytes),
        ],
        cuts in prop::collection::vec(any::<usize>(), 0..9),
    ) {
        let (result, builder) = scan(&pieces(&body, &cuts));
        let (whole, at_once) = scan(&[&body]);
        prop_assert_eq!(result, whole);
        prop_assert_eq!(builder.spans, at_once.spans);
        if result != Err(ScanError::TooDeep) && str::from_utf8(&body).is_ok() {
            prop_assert_eq!(result.is_ok(), is_json(&body), "{:?} {}", result, String::from_utf8_lossy(&body));
        }
    }
}

#[test]
fn what_is_nearly_json_is_refused() {
    for text in [
        r#"{"a":1]"#,
        "[1}",
        "[}",
        "{]",
        "[,]",
        "[1,]",
        "[1 2]",
        "[1:2]",
        "{,}",
        r#"{"a"}"#,
        r#"{"a",1}"#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        r#"{"a":1 "b":2}"#,
        "{1:2}",
        "{a:1}",
        "{null:1}",
        "+1",
        ".5",
        "1.",
        "01",
        "-",
        "-a",
        "1e",
        "1e+",
        "1.e3",
        "0x1",
        "1_0",
        "NaN",
        "-Infinity",
        "nul",
        "nulll",
        "True",
        "'a'",
        "\"\n\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\u{41}\"",
        "\"",
        "[",
        "]",
        "1 1",
        "{} x",
        "// c\n1",
        "[1/*c*/]",
        "\u{feff}1",
        "\u{a0}1",
        "\x0c1",
        "",
    ] {
        assert!(!is_json(text.as_bytes()), "{text:?}");
        assert!(scan(&[text.as_bytes()]).0.is_err(), "{text:?}");
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: u32| "[".repeat(depth as usize) + &"]".repeat(depth as usize);
    assert_eq!(scan(&[nested(MAX_DEPTH).as_bytes()]).0, Ok(()));
    assert_eq!(scan(&[nested(MAX_DEPTH + 1).as_bytes()]).0, Err(ScanError::TooDeep));
    assert_eq!(scan(&["[".repeat(1_000_000).as_bytes()]).0, Err(ScanError::TooDeep));
}

#[test]
fn half_a_surrogate_pair_is_a_replacement_character() {
    for (text, expected) in [
        (r#""\ud83d\ude00""#, "😀"),
        (r#""\ud83dx""#, "\u{fffd}x"),
        (r#""\ude00""#, "\u{fffd}"),
        (r#""\ud83d\n""#, "\u{fffd}\n"),
        (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
        (r#""\ud83d""#, "\u{fffd}"),
        (r#""\ud83d\u0041""#, "\u{fffd}A"),
    ] {
        let (result, builder) = scan(&[text.as_bytes()]);
        assert_eq!((result, builder.value), (Ok(()), Some(expected.into())), "{text}");
    }
}
