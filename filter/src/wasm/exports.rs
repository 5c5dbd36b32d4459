//! What of the module is called for each request. Envoy calls whatever a module exports, and each call
//! costs more than the decision; so the SDK's own callbacks for requests, with an object for each,
//! are left out after linking, and these stand under their names (`xtask/src/build/trim.rs`).

#![allow(
    unsafe_code,
    reason = "the names that functions are exported and found by count as unsafe"
)]

use std::{
    cell::Cell,
    ptr::{self, NonNull},
};

use proxy_wasm::types::{Action, MapType};

use super::{header_map, requests};
use crate::host::{SHORT, Value};

unsafe extern "C" {
    // The SDK's, for root contexts.
    safe fn proxy_on_context_create(context: u32, parent: u32);
    safe fn proxy_on_done(context: u32) -> bool;
    safe fn proxy_on_memory_allocate(size: usize) -> *mut u8;
    // Envoy's.
    fn proxy_get_header_map_value(
        map: MapType,
        name: *const u8,
        name_size: usize,
        value: *mut *mut u8,
        value_size: *mut usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: MapType, all: *mut *mut u8, all_size: *mut usize) -> u32;
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

thread_local! {
    /// Where Envoy writes a short value while it is offered.
    static BUFFER: Cell<[u8; SHORT]> = const { Cell::new([0; SHORT]) };
    static IS_OFFERED: Cell<bool> = const { Cell::new(false) };
}

/// A header of the request whose stream is effective. Each request has one read: to allocate its value
/// and free it again would cost more than the decision.
pub fn request_header(name: &str) -> Option<Value> {
    let (mut value, mut size) = (ptr::null_mut(), 0);
    IS_OFFERED.set(true);
    // SAFETY: Envoy reads the name, and writes the last two; no pointer is kept.
    let status = unsafe {
        let map = MapType::HttpRequestHeaders;
        proxy_get_header_map_value(map, name.as_ptr(), name.len(), &raw mut value, &raw mut size)
    };
    IS_OFFERED.set(false);
    let value = NonNull::new(value).filter(|_| status == 0)?;
    if value.as_ptr() == buffer() {
        return Some(Value::Short(BUFFER.get(), size));
    }
    // SAFETY: `proxy_on_memory_allocate` has made it a `Vec` of this capacity, and Envoy has filled it.
    Some(Value::Long(unsafe { Vec::from_raw_parts(value.as_ptr(), size, size) }))
}

/// Several headers of that request, in the order of their names. All that it has are read for that, since
/// each one by itself would enter the VM for its memory.
pub fn request_headers(names: &[&str]) -> Vec<Option<Value>> {
    if let [name] = names {
        return vec![request_header(name)];
    }
    let (mut all, mut size) = (ptr::null_mut(), 0);
    // SAFETY: Envoy writes the last two; no pointer is kept.
    let status = unsafe {
        proxy_get_header_map_pairs(MapType::HttpRequestHeaders, &raw mut all, &raw mut size)
    };
    let all = match NonNull::new(all).filter(|_| status == 0) {
        // SAFETY: `proxy_on_memory_allocate` has made it a `Vec` of this capacity, and Envoy has filled it.
        Some(all) => unsafe { Vec::from_raw_parts(all.as_ptr(), size, size) },
        None => Vec::new(),
    };
    header_map::find(&all, names)
}

fn buffer() -> *mut u8 {
    BUFFER.with(Cell::as_ptr).cast()
}

#[unsafe(no_mangle)]
pub extern "C" fn weir_on_memory_allocate(size: usize) -> *mut u8 {
    if size <= SHORT && IS_OFFERED.replace(false) {
        return buffer();
    }
    proxy_on_memory_allocate(size)
}

#[unsafe(no_mangle)]
pub extern "C" fn weir_on_context_create(context: u32, parent: u32) {
    if parent == 0 {
        proxy_on_context_create(context, parent);
    } else {
        requests::begin(context, parent);
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn weir_on_request_headers(context: u32, _count: usize, is_last: bool) -> Action {
    requests::on_request_headers(context, is_last)
}

#[unsafe(no_mangle)]
pub extern "C" fn weir_on_request_body(context: u32, size: usize, is_last: bool) -> Action {
    requests::on_request_body(context, size, is_last)
}

#[unsafe(no_mangle)]
pub extern "C" fn weir_on_request_trailers(context: u32, _count: usize) -> Action {
    requests::on_request_trailers(context)
}

#[unsafe(no_mangle)]
pub extern "C" fn weir_on_response_headers(context: u32, _count: usize, _is_last: bool) -> Action {
    requests::on_response_headers(context);
    Action::Continue
}

#[unsafe(no_mangle)]
pub extern "C" fn weir_on_response_body(context: u32, size: usize, is_last: bool) -> Action {
    requests::on_response_body(context, size, is_last);
    Action::Continue
}

#[unsafe(no_mangle)]
pub extern "C" fn weir_on_done(context: u32) -> bool {
    if requests::is_root(context) {
        return proxy_on_done(context);
    }
    requests::end(context);
    true
}
