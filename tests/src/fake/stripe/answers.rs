//! Errors, lists and parameters in Stripe's form.

use serde_json::{Map, Value, json};

use super::{Provider, Reply, Request, Stripe};

pub(super) fn invalid(param: &str, message: &str) -> Reply {
    let error = json!({ "type": "invalid_request_error", "param": param, "message": format!("{param}: {message}") });
    Reply::new(400, json!({ "error": error }))
}

pub(super) fn missing(message: &str) -> Reply {
    Stripe::error(404, "resource_missing", message)
}

pub(super) fn not_editable() -> Reply {
    Stripe::error(
        400,
        "invoice_not_editable",
        "This invoice is in no state in which this can be done",
    )
}

pub(super) fn number(request: &Request, name: &str) -> Result<i64, Reply> {
    request.param(name).parse().map_err(|_| invalid(name, "Invalid integer"))
}

pub(super) fn metadata(request: &Request, at: &str) -> Map<String, Value> {
    let name = |known: &str| {
        Some(known.strip_prefix(at)?.strip_prefix('[')?.strip_suffix(']')?.to_owned())
    };
    let pairs =
        request.params.iter().filter_map(|(known, value)| Some((name(known)?, json!(value))));
    pairs.collect()
}

/// The part of a list that is asked for, of ids and what they stand for.
pub(super) fn page<'a, F: FnOnce() -> Value>(
    request: &Request,
    items: impl Iterator<Item = (&'a str, F)> + Clone,
) -> Value {
    let limit = request.param("limit").parse().unwrap_or(10);
    let after = request.param("starting_after");
    let behind = items.clone().position(|(id, _)| id == after).map_or(0, |at| at + 1);
    let mut rest = items.skip(behind);
    let data: Vec<Value> = rest.by_ref().take(limit).map(|(_, json)| json()).collect();
    json!({ "object": "list", "data": data, "has_more": rest.next().is_some() })
}
