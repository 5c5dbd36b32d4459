//! What of the module is called for each request. Envoy calls whatever a module exports, and each call
//! costs more than the decision; so the SDK's own callbacks for requests, with an object for each,
//! are left out after linking, and these stand under their names (`xtask/src/build/trim.rs`).

#![allow(
    unsafe_code,
    reason = "the names that functions are exported and found by count as unsafe"
)]

use proxy_wasm::types::Action;

use crate::streams;

unsafe extern "C" {
    // The SDK's, for root contexts.
    safe fn proxy_on_context_create(context: u32, parent: u32);
    safe fn proxy_on_done(context: u32) -> bool;
}

#[link(wasm_import_module = "weir")]
unsafe extern "C" {
    /// 1 in the module that reads bodies, 0 in the other: known when the module is trimmed.
    safe fn reads_bodies() -> u32;
}

/// Whether this module is told of bodies.
pub fn is_told_of_bodies() -> bool {
    reads_bodies() == 1
}

#[unsafe(no_mangle)]
pub extern "C" fn weir_on_context_create(context: u32, parent: u32) {
    if parent == 0 {
        proxy_on_context_create(context, parent);
    } else {
        streams::begin(context, parent);
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn weir_on_request_headers(context: u32, _count: usize, is_last: bool) -> Action {
    streams::on_request_headers(context, is_last)
}

#[unsafe(no_mangle)]
pub extern "C" fn weir_on_request_body(context: u32, size: usize, is_last: bool) -> Action {
    streams::on_request_body(context, size, is_last)
}

#[unsafe(no_mangle)]
pub extern "C" fn weir_on_request_trailers(context: u32, _count: usize) -> Action {
    streams::on_request_trailers(context)
}

#[unsafe(no_mangle)]
pub extern "C" fn weir_on_response_headers(context: u32, _count: usize, _is_last: bool) -> Action {
    streams::on_response_headers(context);
    Action::Continue
}

#[unsafe(no_mangle)]
pub extern "C" fn weir_on_response_body(context: u32, size: usize, is_last: bool) -> Action {
    streams::on_response_body(context, size, is_last);
    Action::Continue
}

#[unsafe(no_mangle)]
pub extern "C" fn weir_on_done(context: u32) -> bool {
    if streams::is_root(context) {
        return proxy_on_done(context);
    }
    streams::end(context);
    true
}
