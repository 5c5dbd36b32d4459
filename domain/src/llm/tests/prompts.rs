//! How long prompts are.

use proptest::prelude::*;
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{
    super::{
        estimate::TokenEstimate,
        request::{PromptLength, RequestFacts},
    },
    grammar::escaped,
    quantity,
};

fn length(body: &Value) -> PromptLength {
    RequestFacts::read(body.to_string().as_bytes()).unwrap().prompt
}

/// The characters of a prompt.
fn characters(body: &Value) -> u64 {
    length(body).characters
}

#[test]
fn text_counts_wherever_a_model_reads_it() {
    let message = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    for (body, expected) in [
        (message(json!("12345")), 5),
        (message(json!("zoë 😀")), 5),
        (message(json!(["12", {"type": "text", "text": "345"}])), 5),
        (json!({"system": "12", "messages": [{"content": "345"}]}), 5),
        (json!({"instructions": "12", "input": "345"}), 5),
        (json!({"input": ["12", "345"]}), 5),
        (json!({"prompt": "12", "suffix": "345"}), 5),
        (
            json!({"input": [{"type": "function_call_output", "call_id": "x", "output": "12345"}]}),
            5,
        ),
        (message(json!([{"type": "thinking", "thinking": "12345", "signature": "abc"}])), 5),
        (
            message(
                json!([{"type": "tool_result", "tool_use_id": "x", "content": [{"text": "12345"}]}]),
            ),
            5,
        ),
        // As JSON: `a`, `b`, 12, true.
        (message(json!([{"type": "tool_use", "name": "n", "input": {"a": {"b": [12, true]}}}])), 9),
        (json!({"tools": [{"type": "x"}]}), 5),
        // Nothing that a model reads.
        (json!({"metadata": {"content": "x"}, "user": "u", "stop": ["x"]}), 0),
        (
            message(
                json!([{"type": "text", "citations": [{"cited_text": "x"}], "cache_control": {"ttl": "5m"}}]),
            ),
            0,
        ),
    ] {
        assert_eq!(characters(&body), expected, "{body}");
    }
    assert_eq!(length(&message(json!("zoë 😀"))).bytes, 9);
}

#[test]
fn bytes_of_files_are_not_text() {
    let part = |part: Value| json!({"messages": [{"role": "user", "content": [part]}]});
    for (body, characters, media) in [
        (
            part(
                json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}),
            ),
            0,
            1,
        ),
        (
            part(json!({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}})),
            0,
            1,
        ),
        (part(json!({"type": "file", "file": {"file_id": "file-1"}})), 0, 1),
        (
            part(
                json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}),
            ),
            0,
            1,
        ),
        (part(json!({"type": "image", "source": {"type": "url", "url": "https://x"}})), 0, 1),
        (
            part(
                json!({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "12345"}}),
            ),
            5,
            0,
        ),
        (
            part(
                json!({"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "12345"}]}}),
            ),
            5,
            0,
        ),
        (
            json!({"input": [{"content": [{"type": "input_image", "image_url": "https://x"}]}]}),
            0,
            1,
        ),
        (
            part(
                json!({"type": "document", "source": {"content": [{"data": "12345", "url": "x"}]}}),
            ),
            5,
            0,
        ),
        // Not a file: what a tool was called with.
        (part(json!({"type": "tool_use", "input": {"data": "1"}})), 5, 0),
        (part(json!({"type": "text", "data": "12345"})), 5, 0),
    ] {
        let length = length(&body);
        assert_eq!((length.characters, length.media), (characters, media), "{body}");
    }
    // `type` may stand behind what it is about.
    for (kind, expected) in [("text", (5, 0)), ("base64", (0, 1))] {
        let source = format!(
            r#"{{"messages":[{{"content":[{{"source":{{"data":"12345","type":"{kind}"}}}}]}}]}}"#
        );
        let length = RequestFacts::read(source.as_bytes()).unwrap().prompt;
        assert_eq!((length.characters, length.media), expected);
    }
}

#[test]
fn lists_of_prompts_and_token_ids() {
    for (body, prompts, token_ids) in [
        (json!({"prompt": "a"}), 1, 0),
        (json!({"prompt": ["a", "b", ""]}), 3, 0),
        (json!({"prompt": [1, 2, 3]}), 0, 3),
        (json!({"prompt": [[1, 2], [3]]}), 2, 3),
        (json!({"input": [[1, 2], [3]]}), 0, 3),
        // A stored prompt of the responses API is one.
        (json!({"prompt": {"id": "p", "variables": {"x": ["a", "b"]}}}), 0, 0),
        (json!({"messages": [{"content": [1, 2]}]}), 0, 0),
    ] {
        let length = length(&body);
        assert_eq!((length.prompts, length.token_ids), (prompts, token_ids), "{body}");
    }
}

#[test]
fn the_estimate_adds_up() {
    let body = json!({"model": "m", "messages": [
        {"role": "user", "content": "123456789"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
    ]});
    let facts = RequestFacts::read(body.to_string().as_bytes()).unwrap();
    let estimate =
        TokenEstimate { tokens_per_1000_bytes: 250, tokens_per_message: 4, tokens_per_media: 100 };
    // 2.25 of text, rounded up.
    assert_eq!(facts.prompt_tokens(&estimate), quantity(3 + 2 * 4 + 100));
    assert_eq!(estimate.text(u64::MAX), crate::quantity::Quantity::MAX);
    let ids = RequestFacts::read(br#"{"input":[[1,2],[3]]}"#).unwrap();
    assert_eq!(ids.prompt_tokens(&estimate), quantity(3));
    let json = r#"{"tokens_per_1000_bytes":400}"#;
    let estimate: TokenEstimate = serde_json::from_str(json).unwrap();
    assert_eq!((estimate.tokens_per_1000_bytes, estimate.tokens_per_message), (400, 4));
}

proptest! {
    /// Escapes and the shape of messages do not change how long they are.
    #[test]
    fn characters_are_those_of_the_texts(
        texts in prop::collection::vec("\\PC{0,20}|[\"\\\\\n\t😀]{0,5}", 0..6),
        as_parts in any::<bool>(),
    ) {
        let contents = texts.iter().map(|text| match as_parts {
            true => json!({"content": [{"type": "text", "text": text}], "role": "user"}),
            false => json!({"role": "user", "content": text}),
        });
        let body = json!({"messages": contents.collect::<Value>()}).to_string();
        for body in [body.clone(), escaped(&body)] {
            let length = RequestFacts::read(body.as_bytes()).unwrap().prompt;
            let expected = texts.iter().map(|text| text.chars().count() as u64).sum::<u64>();
            prop_assert_eq!(length.characters, expected);
            prop_assert_eq!(length.bytes, texts.iter().map(|text| text.len() as u64).sum::<u64>());
            prop_assert_eq!(length.messages, texts.len() as u64);
        }
    }
}
