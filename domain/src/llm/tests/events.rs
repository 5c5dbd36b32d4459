//! Streams are cut into events as the standard says.

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{
    super::sse::{Piece, Splitter},
    pieces,
};

/// The data of all events, and whether the last one is over.
fn split(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut events = vec![vec![]];
    let mut splitter = Splitter::NEW;
    for piece in pieces {
        splitter.feed(piece, |piece| match piece {
            Piece::Data(data) => events.last_mut().unwrap().extend(data),
            Piece::Dispatch => events.push(vec![]),
        });
    }
    // What has no empty line after it is no event.
    events.pop();
    events
}

/// The same from the whole text, step by step as in the standard.
fn split_by_lines(stream: &str) -> Vec<Vec<u8>> {
    let stream = stream.strip_prefix('\u{feff}').unwrap_or(stream);
    let stream = stream.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<&str> = stream.split('\n').collect();
    lines.pop();
    let (mut events, mut data) = (vec![], None::<String>);
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        if line.is_empty() {
            events.extend(data.take().map(String::into_bytes));
        } else if name == "data" {
            let value = value.strip_prefix(' ').unwrap_or(value);
            data = Some(data.map_or(value.to_owned(), |data| data + "\n" + value));
        }
    }
    events
}

#[test]
fn fields_comments_and_line_ends() {
    let stream = "\u{feff}data: a\r\n\r\n:data: b\n\ndata:c\rdata\rdata:  d\r\revent: data\ndatax: e\n\ndata:\n\ndata: f\n";
    let events = split(&[stream.as_bytes()]);
    assert_eq!(events, ["a", "c\n\n d", ""].map(|data| data.as_bytes().to_vec()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_stream_is_cut_as_the_standard_says(
        parts in prop::collection::vec(
            prop::sample::select(&["data", "dat", "a", ":", ": ", " ", "\n", "\r", "\r\n", "\n\n", "\u{feff}", "é", "data: x\n\n"][..]),
            0..30,
        ),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let stream = parts.concat();
        let expected = split_by_lines(&stream);
        prop_assert_eq!(&split(&[stream.as_bytes()]), &expected, "{:?}", stream);
        prop_assert_eq!(&split(&pieces(stream.as_bytes(), &cuts)), &expected, "{:?}", stream);
    }
}
