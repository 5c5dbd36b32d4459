//! An answer reports the same however it is cut. The first two bytes say its kind and the length of
//! its pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_domain::{
    llm::{
        estimate::TokenEstimate,
        response::{BodyKind, ResponseReader},
    },
    quantity::Quantity,
};

fuzz_target!(|bytes: &[u8]| {
    let [kind, length, body @ ..] = bytes else { return };
    let kind = if kind % 2 == 0 { BodyKind::Json } else { BodyKind::Events };
    let mut whole = ResponseReader::new(kind);
    whole.feed(body);
    let mut cut = ResponseReader::new(kind);
    for piece in body.chunks(usize::from(*length).max(1)) {
        cut.feed(piece);
    }
    let report = whole.report();
    assert_eq!(report, cut.report());
    assert!(report.text_bytes <= body.len() as u64);
    assert_eq!(report.usage().is_some(), report.complete);
    report.usage_or_estimate(Quantity::ONE, &TokenEstimate::default());
});
