//! What answers of each API report, whole, cut and broken off.

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{
    super::{
        estimate::TokenEstimate,
        response::{BodyKind, Ending, Reported, ResponseReader},
        usage::TokenUsage,
    },
    corpus::*,
    pieces, quantity, reported,
};

fn complete(model: &str, (input, cached, output): (u64, u64, u64), text_bytes: u64) -> Reported {
    Reported {
        model: Some(model.to_owned()),
        input: Some(quantity(input)),
        cached: quantity(cached),
        output: Some(quantity(output)),
        complete: true,
        ending: Ending::Finished,
        text_bytes,
    }
}

fn expected() -> [(BodyKind, &'static str, Reported); 7] {
    let (json, events) = (BodyKind::Json, BodyKind::Events);
    [
        (json, CHAT_ANSWER, complete("gpt-4.1-2025-04-14", (15, 4, 10), 34)),
        (json, RESPONSES_ANSWER, complete("gpt-4.1-2025-04-14", (6, 30, 87), 19)),
        (json, EMBEDDINGS_ANSWER, complete("text-embedding-ada-002", (8, 0, 0), 0)),
        (json, MESSAGES_ANSWER, complete("claude-sonnet-4-5-20250929", (2295, 1000, 503), 25)),
        (events, CHAT_STREAM, complete("gpt-4o-mini", (4, 6, 5), 13)),
        (events, RESPONSES_STREAM, complete("gpt-4.1", (50, 90, 12), 8)),
        (events, MESSAGES_STREAM, complete("claude-sonnet-4-5", (45, 70, 15), 12)),
    ]
}

#[test]
fn each_api_is_read() {
    for (kind, body, expected) in expected() {
        assert_eq!(reported(kind, [body.as_bytes()]), expected, "{body}");
        let bytes: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
        assert_eq!(reported(kind, bytes), expected, "byte by byte: {body}");
    }
}

#[test]
fn a_body_that_is_broken_off_is_never_complete_before_its_last_number() {
    for (kind, body, whole) in expected() {
        for end in 0..body.len() {
            let report = reported(kind, [&body.as_bytes()[..end]]);
            assert!(report.text_bytes <= whole.text_bytes);
            if report.complete {
                let ending = Reported { ending: whole.ending, ..report };
                assert_eq!(ending, whole, "{}", &body[..end]);
            }
        }
    }
}

#[test]
fn line_ends_and_a_mark_at_the_start_do_not_matter() {
    for (kind, body, expected) in expected().into_iter().skip(4) {
        let body = body.replace("\r\n", "\n");
        for end in ["\n", "\r\n", "\r"] {
            let body = format!("\u{feff}: hi\n\n{body}").replace('\n', end);
            let bytes: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
            assert_eq!(reported(kind, bytes), expected, "{body}");
        }
    }
}

#[test]
fn data_on_several_lines_is_one_event() {
    let stream = "data: {\"usage\":\ndata:{\"prompt_tokens\":1,\ndata: \"completion_tokens\": 2}\n\
        data\nid: 7\n: comment\ndata: }\n\ndata:[DONE]\n\n";
    let report = reported(BodyKind::Events, [stream.as_bytes()]);
    assert_eq!(
        report.usage(),
        Some(TokenUsage { input: quantity(1), cached: quantity(0), output: quantity(2) })
    );
}

#[test]
fn the_last_event_may_lack_its_empty_line() {
    let stream = CHAT_STREAM.trim_end();
    assert_eq!(reported(BodyKind::Events, [stream.as_bytes()]).ending, Ending::Finished);
    let cut = &stream[..stream.len() - 1];
    assert_eq!(reported(BodyKind::Events, [cut.as_bytes()]).ending, Ending::Open);
}

#[test]
fn later_totals_replace_earlier_ones() {
    // Usage with every chunk, as some servers send it.
    let chunk = |output: u32, choices: &str| {
        format!(
            "data: {{\"choices\":[{choices}],\"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":{output}}}}}\n\n"
        )
    };
    let stream =
        chunk(1, r#"{"delta":{"content":"a"}}"#) + &chunk(2, r#"{"delta":{"content":"b"}}"#);
    let report = reported(BodyKind::Events, [stream.as_bytes()]);
    assert_eq!((report.output, report.complete), (Some(quantity(2)), false));
    let report = reported(BodyKind::Events, [(stream + &chunk(3, "")).as_bytes()]);
    assert_eq!((report.output, report.complete), (Some(quantity(3)), true));
    // Input that is known at the end only.
    let stream = MESSAGES_STREAM.replace("\"input_tokens\": 25", "\"input_tokens\": 0").replace(
        "\"usage\": {\"output_tokens\": 15}",
        "\"usage\": {\"input_tokens\": 25, \"output_tokens\": 15}",
    );
    let report = reported(BodyKind::Events, [stream.as_bytes()]);
    assert_eq!(report, expected()[6].2);
}

#[test]
fn failures_are_told() {
    let overloaded = "event: error\ndata: {\"type\": \"error\", \"error\": {\"type\": \"overloaded_error\", \"message\": \"Overloaded\"}}\n\n";
    let start = MESSAGES_STREAM.find("event: message_delta").unwrap();
    let stream = [&MESSAGES_STREAM[..start], overloaded].concat();
    let report = reported(BodyKind::Events, [stream.as_bytes()]);
    assert_eq!(report.ending, Ending::Failed);
    assert_eq!((report.input, report.output, report.complete), (Some(quantity(45)), None, false));

    let stream = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"error\":{\"message\":\"no\"}}\n\ndata: [DONE]\n\n";
    assert_eq!(reported(BodyKind::Events, [stream.as_bytes()]).ending, Ending::Failed);

    for (kind, usage) in [("failed", false), ("incomplete", true)] {
        let numbers = if usage { r#"{"input_tokens":3,"output_tokens":4}"# } else { "null" };
        let stream = format!(
            "data: {{\"type\":\"response.{kind}\",\"response\":{{\"usage\":{numbers}}}}}\n\n"
        );
        let report = reported(BodyKind::Events, [stream.as_bytes()]);
        assert_eq!(report.ending == Ending::Failed, kind == "failed");
        assert_eq!(report.complete, usage);
    }

    for (body, ending) in [
        (r#"{"error":{"message":"Rate limit","type":"requests"}}"#, Ending::Failed),
        (r#"{"error":"model not found"}"#, Ending::Failed),
        (r#"{"error":null}"#, Ending::Finished),
        (r#"{"choices":[{"error":{}}]}"#, Ending::Finished),
    ] {
        assert_eq!(reported(BodyKind::Json, [body.as_bytes()]).ending, ending, "{body}");
    }
}

#[test]
fn without_usage_there_is_an_estimate() {
    let estimate = TokenEstimate { tokens_per_1000_bytes: 500, ..Default::default() };
    let prompt = quantity(77);
    let used = |stream: &str| {
        let report = reported(BodyKind::Events, [stream.as_bytes()]);
        assert_eq!(report.usage(), None);
        let usage = report.usage_or_estimate(prompt, &estimate);
        (usage.input.get(), usage.cached.get(), usage.output.get())
    };
    // 13 bytes of text, and nothing is said of the prompt.
    let end = CHAT_STREAM.find("\"choices\":[],").unwrap();
    assert_eq!(used(&CHAT_STREAM[..end]), (77, 0, 7));
    // The prompt was told, 5 bytes of text have come, of another event a part.
    let end = MESSAGES_STREAM.find("input_json_delta").unwrap();
    assert_eq!(used(&MESSAGES_STREAM[..end]), (45, 70, 3));
    assert_eq!(used(""), (77, 0, 0));
}

#[test]
fn a_body_that_cannot_be_read_is_not_free() {
    // A tool's arguments, as deep as a caller can make a model write them.
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    let body = MESSAGES_ANSWER.replace("[\"bc\"]", &deep);
    let report = reported(BodyKind::Json, [body.as_bytes()]);
    assert!(!report.complete && report.text_bytes > 1_000, "{report:?}");
}

#[test]
fn a_reader_holds_nothing_but_itself() {
    fn is_copy<T: Copy>(_: &T) -> usize {
        size_of::<T>()
    }
    assert!(is_copy(&ResponseReader::new(BodyKind::Events)) <= ResponseReader::MAX_BYTES);
}

#[test]
fn content_types_are_known_by_their_media_type() {
    for (text, kind) in [
        ("application/json", Some(BodyKind::Json)),
        ("Application/JSON; charset=utf-8", Some(BodyKind::Json)),
        ("text/event-stream;charset=UTF-8", Some(BodyKind::Events)),
        ("text/plain", None),
        ("", None),
    ] {
        assert_eq!(BodyKind::of_content_type(text), kind, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever the upstream sends and however it is cut, the same is reported and nothing panics.
    #[test]
    fn cuts_do_not_matter(
        (kind, body) in prop_oneof![
            mutated(&STREAMS).prop_map(|body| (BodyKind::Events, body)),
            mutated(&ANSWERS).prop_map(|body| (BodyKind::Json, body)),
            (
                prop::sample::select(&[BodyKind::Events, BodyKind::Json][..]),
                prop::collection::vec(any::<u8>(), 0..200),
            ),
        ],
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let whole = reported(kind, [&body[..]]);
        prop_assert_eq!(&reported(kind, pieces(&body, &cuts)), &whole);
        prop_assert!(whole.text_bytes <= body.len() as u64);
        prop_assert!(whole.usage().is_some() == whole.complete);
        let _ = whole.usage_or_estimate(quantity(1), &TokenEstimate::default());
    }
}
