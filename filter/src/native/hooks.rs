//! What Envoy calls, by the names that it looks for. It takes a module only with all that it has no use of
//! here, too; Envoy calls those never, or for what it does not wait for.

use std::{
    ffi::{c_char, c_void},
    slice,
    sync::Arc,
};

use super::{
    abi::{
        self, BodyStatus, Borrowed, BorrowedHeader, ConfigPtr, HeadersStatus, StreamPtr,
        TrailersStatus,
    },
    calls,
    filter::Filter,
    host,
    stream::Stream,
};

/// A [`Filter`], whose owner is Envoy.
type FilterPtr = *const c_void;
/// A [`Stream`], the same.
type OwnStreamPtr = *const c_void;

/// # Safety
/// Envoy has it from [`envoy_dynamic_module_on_http_filter_config_new`], and has not ended it.
unsafe fn filter<'a>(filter: FilterPtr) -> &'a Filter {
    // SAFETY: the caller sees to it.
    unsafe { &*filter.cast() }
}

/// # Safety
/// Envoy has it from [`envoy_dynamic_module_on_http_filter_new`], and has not ended it.
unsafe fn stream<'a>(stream: OwnStreamPtr) -> &'a Stream<'a> {
    // SAFETY: the caller sees to it. Its filter outlives it, as Envoy's streams hold their configuration.
    unsafe { &*stream.cast() }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_program_init() -> *const c_char {
    abi::VERSION.as_ptr()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_new(
    config: ConfigPtr,
    _name: Borrowed,
    json: Borrowed,
) -> FilterPtr {
    // SAFETY: Envoy is making the configuration, on the main thread, and the text is there meanwhile.
    let filter = unsafe { Filter::new(config, json.read()) };
    filter.map_or(std::ptr::null(), |filter| Arc::into_raw(filter).cast())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(own: FilterPtr) {
    if !own.is_null() {
        // SAFETY: Envoy has it from `config_new`, and gives it back.
        unsafe { Arc::from_raw(own.cast::<Filter>()) }.end();
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_scheduled(
    config: ConfigPtr,
    own: FilterPtr,
    _event: u64,
) {
    // SAFETY: Envoy calls while it has the configuration; here and below.
    unsafe { filter(own) }.on_call(config);
}

/// The number of a call, by which it is known here.
///
/// # Safety
/// Envoy has the configuration.
unsafe fn call(own: FilterPtr, id: u64) -> u32 {
    // SAFETY: the caller sees to it.
    unsafe { filter(own) }.call_number(id)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_http_stream_headers(
    _config: ConfigPtr,
    own: FilterPtr,
    id: u64,
    headers: *const BorrowedHeader,
    header_count: usize,
    _is_last: bool,
) {
    // SAFETY: Envoy has so many of them there until this returns, or null and 0.
    let headers = unsafe { list(headers, header_count) };
    // SAFETY: the same.
    let text = |bytes: &Borrowed| unsafe { bytes.read() };
    let status = headers
        .iter()
        .find(|header| text(&header.name) == b":status")
        .and_then(|header| std::str::from_utf8(text(&header.value)).ok()?.parse().ok());
    // SAFETY: as above.
    calls::on_status(unsafe { call(own, id) }, status);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_http_stream_data(
    _config: ConfigPtr,
    own: FilterPtr,
    id: u64,
    chunks: *const Borrowed,
    chunk_count: usize,
    _is_last: bool,
) {
    // SAFETY: Envoy has so many of them there until this returns, or null and 0; and as above.
    let (chunks, call) = unsafe { (list(chunks, chunk_count), call(own, id)) };
    for chunk in chunks {
        // SAFETY: the same.
        calls::on_body(call, unsafe { chunk.read() });
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_http_stream_complete(
    config: ConfigPtr,
    own: FilterPtr,
    id: u64,
) {
    // SAFETY: as above.
    let call = unsafe { call(own, id) };
    host::on_main(config, || calls::on_end(call, true));
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_http_stream_reset(
    config: ConfigPtr,
    own: FilterPtr,
    id: u64,
    _reason: u32,
) {
    // SAFETY: as above.
    let call = unsafe { call(own, id) };
    host::on_main(config, || calls::on_end(call, false));
}

/// # Safety
/// There are so many, or none at null.
unsafe fn list<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if first.is_null() {
        return &[];
    }
    // SAFETY: the caller sees to it.
    unsafe { slice::from_raw_parts(first, count) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_new(
    own: FilterPtr,
    envoy: StreamPtr,
) -> OwnStreamPtr {
    // SAFETY: the stream exists, and its configuration as long as it does.
    let stream = unsafe { Stream::new(envoy, filter(own), abi::worker_index(envoy)) };
    stream.map_or(std::ptr::null(), |stream| Box::into_raw(Box::new(stream)).cast())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_destroy(own: OwnStreamPtr) {
    if !own.is_null() {
        // SAFETY: Envoy has it from `filter_new`, and gives it back.
        unsafe { Box::from_raw(own.cast::<Stream<'_>>().cast_mut()) }.end();
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_headers(
    _stream: StreamPtr,
    own: OwnStreamPtr,
    is_last: bool,
) -> HeadersStatus {
    // SAFETY: Envoy calls while it has the stream; here and below.
    unsafe { stream(own) }.on_request_headers(is_last)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_body(
    _stream: StreamPtr,
    own: OwnStreamPtr,
    is_last: bool,
) -> BodyStatus {
    // SAFETY: as above.
    unsafe { stream(own) }.on_request_body(is_last)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_trailers(
    _stream: StreamPtr,
    own: OwnStreamPtr,
) -> TrailersStatus {
    // SAFETY: as above.
    unsafe { stream(own) }.on_request_trailers()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_response_headers(
    _stream: StreamPtr,
    own: OwnStreamPtr,
    _is_last: bool,
) -> HeadersStatus {
    // SAFETY: as above.
    unsafe { stream(own) }.on_response_headers();
    HeadersStatus::Continue
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_response_body(
    _stream: StreamPtr,
    own: OwnStreamPtr,
    is_last: bool,
) -> BodyStatus {
    // SAFETY: as above.
    unsafe { stream(own) }.on_response_body(is_last);
    BodyStatus::Continue
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_response_trailers(
    _stream: StreamPtr,
    _own: OwnStreamPtr,
) -> TrailersStatus {
    TrailersStatus::Continue
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_scheduled(
    _stream: StreamPtr,
    own: OwnStreamPtr,
    _event: u64,
) {
    // SAFETY: as above.
    unsafe { stream(own) }.on_call();
}

// Hooks that Envoy must find, and that nothing is done in.
super::unused! {
    envoy_dynamic_module_on_http_filter_config_http_stream_trailers,
    envoy_dynamic_module_on_http_filter_stream_complete,
    envoy_dynamic_module_on_http_filter_http_callout_done,
    envoy_dynamic_module_on_http_filter_http_stream_headers,
    envoy_dynamic_module_on_http_filter_http_stream_data,
    envoy_dynamic_module_on_http_filter_http_stream_trailers,
    envoy_dynamic_module_on_http_filter_http_stream_complete,
    envoy_dynamic_module_on_http_filter_http_stream_reset,
    envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark,
    envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark,
}
