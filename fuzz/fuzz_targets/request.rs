//! A request body is read as `serde_json` reads it, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;
use weir_domain::llm::{
    include_usage::including_usage,
    request::{RequestError, RequestFacts},
};

fuzz_target!(|body: &[u8]| {
    let is_json =
        std::str::from_utf8(body).is_ok() && serde_json::from_slice::<IgnoredAny>(body).is_ok();
    let facts = match RequestFacts::read(body) {
        Ok(facts) => facts,
        Err(RequestError::NotUtf8(_) | RequestError::NotJson(_) | RequestError::Truncated) => {
            return assert!(!is_json);
        }
        Err(_) => return,
    };
    assert!(is_json);
    assert!(facts.prompt.characters <= facts.prompt.bytes);
    assert!(facts.prompt.bytes <= body.len() as u64);
    let Ok(mut tree) = serde_json::from_slice::<Value>(body) else { return };
    assert_eq!(
        facts.model.as_deref().unwrap_or_default(),
        tree["model"].as_str().unwrap_or_default()
    );
    assert_eq!(facts.stream, tree["stream"] == true);

    let changed = including_usage(body).unwrap();
    if facts.stream {
        if !tree["stream_options"].is_object() {
            tree["stream_options"] = Value::Object(Default::default());
        }
        tree["stream_options"]["include_usage"] = true.into();
    }
    assert_eq!(serde_json::from_slice::<Value>(&changed).unwrap(), tree);
});
