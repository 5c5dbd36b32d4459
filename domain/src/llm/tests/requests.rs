//! What request bodies say, and what is wrong with those that say nothing.

use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{
    super::{
        MAX_MODEL_BYTES,
        include_usage::including_usage,
        request::{PromptLength, RequestError, RequestFacts},
    },
    corpus::*,
    quantity,
};

fn read(body: &str) -> Result<RequestFacts, RequestError> {
    RequestFacts::read(body.as_bytes())
}

#[test]
fn each_api_is_read() {
    let facts = read(CHAT_REQUEST).unwrap();
    let tools = "typefunctionfunctionnamelookparameterstypeobjectrequiredat".len();
    let text = ["You are terse.", "What is in this image?", "look", r#"{"at":"sky"}"#, "Blue."];
    let characters = (tools + text.concat().len()) as u64;
    assert_eq!(
        facts,
        RequestFacts {
            model: Some("gpt-4o-mini".to_owned()),
            stream: true,
            include_usage: true,
            max_output_tokens: Some(quantity(256)),
            choices: quantity(2),
            prompt: PromptLength {
                characters,
                bytes: characters,
                messages: 4,
                media: 1,
                ..Default::default()
            },
        }
    );
    assert_eq!(facts.output_tokens(quantity(9)), quantity(512));

    let facts = read(COMPLETION_REQUEST).unwrap();
    assert_eq!((facts.choices, facts.prompt.prompts), (quantity(3), 2));
    assert_eq!(facts.output_tokens(quantity(9)), quantity(2 * 3 * 7));
    assert_eq!(facts.prompt.characters, 18 + 12 + 1);

    let facts = read(RESPONSES_REQUEST).unwrap();
    assert_eq!((facts.stream, facts.max_output_tokens), (false, Some(quantity(1_000))));
    assert_eq!((facts.prompt.messages, facts.prompt.media), (2, 2));
    // Instructions, the question, the file's name, the output and the format.
    assert_eq!(facts.prompt.characters, 8 + 16 + 5 + 2 + "formattypetext".len() as u64);

    let facts = read(EMBEDDINGS_REQUEST).unwrap();
    assert_eq!(facts.model.as_deref(), Some("text-embedding-3-small"));
    assert_eq!((facts.prompt.characters, facts.prompt.bytes), (22 + 5, 22 + 6));
    assert_eq!((facts.max_output_tokens, facts.choices), (None, quantity(1)));

    let facts = read(MESSAGES_REQUEST).unwrap();
    assert_eq!((facts.stream, facts.max_output_tokens), (true, Some(quantity(1_024))));
    assert_eq!((facts.prompt.messages, facts.prompt.media), (3, 1));
    let text = ["Answer in verse.", "Plain words.", "T", "Hello, Claude", "Hm.", "get_weather"];
    let rest = ["city", "Bern", "days", "3", "15 degrees"];
    assert_eq!(facts.prompt.characters, (text.concat().len() + rest.concat().len()) as u64);
}

#[test]
fn absent_and_null_are_the_same() {
    let nothing = RequestFacts { choices: quantity(1), ..Default::default() };
    for body in [
        "{}",
        r#"{"model":null,"stream":null,"stream_options":null,"max_tokens":null,"n":null}"#,
        r#" {"model":"","stream_options":{"include_usage":null}, "unknown":[{"model":"x"}]} "#,
    ] {
        assert_eq!(read(body), Ok(nothing.clone()), "{body}");
    }
}

#[test]
fn the_largest_bound_counts() {
    let facts =
        read(r#"{"max_tokens":5,"max_completion_tokens":9,"max_output_tokens":7.0}"#).unwrap();
    assert_eq!(facts.max_output_tokens, Some(quantity(9)));
    let facts = read(r#"{"max_tokens":9007199254740991,"n":9007199254740991}"#).unwrap();
    assert_eq!(facts.output_tokens(quantity(1)), crate::quantity::Quantity::MAX);
    assert_eq!(read(r#"{"n":0}"#).unwrap().output_tokens(quantity(5)), quantity(5));
}

#[test]
fn errors_say_what_is_wrong() {
    let number = "a whole number from 0 to 9007199254740991";
    let wrong = |field, expected| RequestError::WrongType { field, expected };
    for (body, error) in [
        ("", RequestError::Truncated),
        ("{\"model\":\"x\"", RequestError::Truncated),
        ("[]", RequestError::NotAnObject),
        ("7", RequestError::NotAnObject),
        ("{model:1}", RequestError::NotJson(1)),
        ("{\"a\":1,}", RequestError::NotJson(7)),
        ("{} {}", RequestError::NotJson(3)),
        ("\u{feff}{}", RequestError::NotJson(0)),
        (r#"{"max_tokens":NaN}"#, RequestError::NotJson(14)),
        (r#"{"model":7}"#, wrong("model", "a string")),
        (r#"{"model":["x"]}"#, wrong("model", "a string")),
        (r#"{"stream":"true"}"#, wrong("stream", "true or false")),
        (r#"{"stream_options":true}"#, wrong("stream_options", "an object")),
        (
            r#"{"stream_options":{"include_usage":1}}"#,
            wrong("stream_options.include_usage", "true or false"),
        ),
        (r#"{"max_tokens":-1}"#, wrong("max_tokens", number)),
        (r#"{"max_tokens":1.5}"#, wrong("max_tokens", number)),
        (r#"{"max_output_tokens":1e3}"#, wrong("max_output_tokens", number)),
        (r#"{"max_completion_tokens":9007199254740992}"#, wrong("max_completion_tokens", number)),
        (r#"{"n":"2"}"#, wrong("n", number)),
        (r#"{"best_of":{}}"#, wrong("best_of", number)),
        (r#"{"model":"a","model":"b"}"#, RequestError::Twice("model")),
        (r#"{"model":"a","mod\u0065l":"b"}"#, RequestError::Twice("model")),
        (r#"{"messages":[],"messages":[]}"#, RequestError::Twice("messages")),
        (
            r#"{"stream_options":{"include_usage":true,"include_usage":false}}"#,
            RequestError::Twice("stream_options.include_usage"),
        ),
        (r#"{"Model":"a"}"#, RequestError::OtherCase("model")),
        (r#"{"model":"a","mAX_tokens":7}"#, RequestError::OtherCase("max_tokens")),
        (r#"{"ſtream":true}"#, RequestError::OtherCase("stream")),
        (r#"{"max_to\u212Aens":1}"#, RequestError::OtherCase("max_tokens")),
    ] {
        assert_eq!(read(body), Err(error), "{body}");
    }
    assert_eq!(RequestFacts::read(b"{\"a\":\"\xff\"}"), Err(RequestError::NotUtf8(6)));
    assert_eq!(RequestFacts::read(b"{\"a\":\"\xf0\x9f"), Err(RequestError::NotUtf8(6)));
    let deep = format!("{{\"messages\":{}", "[".repeat(1_000_000));
    assert_eq!(read(&deep), Err(RequestError::TooDeep));
    let model = |bytes: usize| read(&json!({"model": "é".repeat(bytes / 2)}).to_string());
    assert_eq!(model(MAX_MODEL_BYTES).unwrap().model, Some("é".repeat(MAX_MODEL_BYTES / 2)));
    assert_eq!(model(MAX_MODEL_BYTES + 2), Err(RequestError::ModelTooLong));
}

#[test]
fn usage_is_asked_for_by_the_smallest_change() {
    for (body, expected) in [
        (r#"{ "stream":true }"#, r#"{"stream_options":{"include_usage":true}, "stream":true }"#),
        (
            r#" {"stream" : true,"stream_options": null , "n":1}"#,
            r#" {"stream" : true,"stream_options": {"include_usage":true} , "n":1}"#,
        ),
        (
            r#"{"stream_options":{ },"stream":true}"#,
            r#"{"stream_options":{"include_usage":true },"stream":true}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"x":{"include_usage":false}}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true,"x":{"include_usage":false}}}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"a":1,"include_usage" : false }}"#,
            r#"{"stream":true,"stream_options":{"a":1,"include_usage" : true }}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage":null},"é":"\ud83d"}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true},"é":"\ud83d"}"#,
        ),
    ] {
        let changed = including_usage(body.as_bytes()).unwrap();
        assert_eq!(str::from_utf8(&changed).unwrap(), expected);
        assert!(read(expected).unwrap().include_usage);
    }
    for body in
        ["{}", r#"{"stream":false}"#, r#"{"stream":true,"stream_options":{"include_usage":true}}"#]
    {
        assert!(matches!(including_usage(body.as_bytes()), Ok(Cow::Borrowed(_))), "{body}");
    }
    assert_eq!(including_usage(b"{"), Err(RequestError::Truncated));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Nothing panics, and what was read agrees with the tree.
    #[test]
    fn any_bytes_are_facts_or_an_error(
        body in prop_oneof![9 => mutated(&REQUESTS), 1 => prop::collection::vec(any::<u8>(), 0..200)],
    ) {
        let Ok(facts) = RequestFacts::read(&body) else { return Ok(()) };
        prop_assert!(facts.prompt.characters <= facts.prompt.bytes);
        // Half a surrogate pair becomes three bytes, written in six.
        prop_assert!(facts.prompt.bytes <= body.len() as u64);
        let Ok(tree) = serde_json::from_slice::<Value>(&body) else { return Ok(()) };
        prop_assert_eq!(facts.model.as_deref().unwrap_or_default(), tree["model"].as_str().unwrap_or_default());
        prop_assert_eq!(facts.stream, tree["stream"] == true);
        prop_assert_eq!(facts.include_usage, tree["stream_options"]["include_usage"] == true);

        let changed = including_usage(&body).unwrap();
        let mut expected = tree;
        if facts.stream {
            if !expected["stream_options"].is_object() {
                expected["stream_options"] = json!({});
            }
            expected["stream_options"]["include_usage"] = true.into();
        }
        prop_assert_eq!(serde_json::from_slice::<Value>(&changed).unwrap(), expected);
    }
}
