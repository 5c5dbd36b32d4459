//! What of the ABI of Envoy's dynamic modules the filter uses: `source/extensions/dynamic_modules/abi/abi.h`
//! of Envoy 1.40. Envoy promises to load modules of one minor version of it in the next one, too.

use std::{ffi::c_void, ptr, slice};

/// What this module says it was made for.
pub(super) const VERSION: &std::ffi::CStr = c"v0.2.0";

/// One HTTP filter's configuration, in Envoy.
pub(super) type ConfigPtr = *mut c_void;
/// One stream under it, in Envoy.
pub(super) type StreamPtr = *mut c_void;
/// What calls a hook on another thread.
pub(super) type SchedulerPtr = *mut c_void;

/// Bytes of the module, lent to Envoy for a call.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Lent {
    bytes: *const u8,
    size: usize,
}

impl Lent {
    pub(super) const NOTHING: Self = Self { bytes: ptr::null(), size: 0 };
}

impl<T: AsRef<[u8]> + ?Sized> From<&T> for Lent {
    fn from(bytes: &T) -> Self {
        let bytes = bytes.as_ref();
        Self { bytes: bytes.as_ptr(), size: bytes.len() }
    }
}

/// Bytes of Envoy, which are there until the hook returns that they are read in.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Borrowed {
    bytes: *const u8,
    size: usize,
}

impl Borrowed {
    pub(super) const NOTHING: Self = Self { bytes: ptr::null(), size: 0 };

    /// # Safety
    /// The hook has not returned, and nothing has changed since what it is of.
    pub(super) unsafe fn read<'a>(self) -> &'a [u8] {
        if self.bytes.is_null() {
            return &[];
        }
        // SAFETY: Envoy has so many bytes there; the caller sees to the time.
        unsafe { slice::from_raw_parts(self.bytes, self.size) }
    }
}

/// A header of an answer of the module's, or of a call.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct LentHeader {
    name: Lent,
    value: Lent,
}

impl LentHeader {
    pub(super) fn new(name: &str, value: &str) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

/// A header of an answer to a call.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct BorrowedHeader {
    pub(super) name: Borrowed,
    pub(super) value: Borrowed,
}

/// Which headers.
#[repr(u32)]
#[derive(Clone, Copy)]
pub(super) enum Headers {
    Request = 0,
    Response = 2,
}

/// Which body: what has just come, or what was held back before.
#[repr(u32)]
#[derive(Clone, Copy)]
pub(super) enum Body {
    ReceivedRequest = 0,
    BufferedRequest = 1,
    ReceivedResponse = 2,
}

/// What a hook for headers says.
#[repr(u32)]
#[derive(Clone, Copy)]
pub(super) enum HeadersStatus {
    Continue = 0,
    /// Bodies come to this filter, and no further.
    StopIteration = 1,
    /// Nothing comes, and the client is held back when buffers are full.
    StopAllAndWatermark = 4,
}

/// What a hook for bodies says.
#[repr(u32)]
#[derive(Clone, Copy)]
pub(super) enum BodyStatus {
    Continue = 0,
    StopAndBuffer = 1,
    StopWithoutBuffer = 3,
}

/// What a hook for trailers says.
#[repr(u32)]
#[derive(Clone, Copy)]
pub(super) enum TrailersStatus {
    Continue = 0,
    Stop = 1,
}

#[repr(u32)]
#[derive(Clone, Copy)]
pub(super) enum LogLevel {
    Info = 2,
    Warn = 3,
    Error = 4,
}

/// Of calls and counters.
pub(super) const SUCCESS: u32 = 0;

unsafe extern "C" {
    #[link_name = "envoy_dynamic_module_callback_log"]
    pub(super) fn log(level: LogLevel, message: Lent);
    /// On the main thread only.
    #[link_name = "envoy_dynamic_module_callback_get_concurrency"]
    pub(super) fn concurrency() -> u32;
    /// On the main thread only.
    #[link_name = "envoy_dynamic_module_callback_is_validation_mode"]
    pub(super) fn is_validation_mode() -> bool;

    /// While the configuration is made only.
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_define_counter"]
    pub(super) fn define_counter(
        config: ConfigPtr,
        name: Lent,
        labels: *const Lent,
        label_count: usize,
        id: *mut usize,
    ) -> u32;
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_increment_counter"]
    pub(super) fn increment_counter(
        config: ConfigPtr,
        id: usize,
        labels: *const Lent,
        label_count: usize,
        by: u64,
    ) -> u32;

    /// On the main thread only. What comes of it may be told before this returns.
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_start_http_stream"]
    pub(super) fn start_stream(
        config: ConfigPtr,
        id: *mut u64,
        cluster: Lent,
        headers: *const LentHeader,
        header_count: usize,
        body: Lent,
        is_whole: bool,
        timeout_ms: u64,
    ) -> u32;
    /// On the main thread only. That it was reset is told before this returns.
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_reset_http_stream"]
    pub(super) fn reset_stream(config: ConfigPtr, id: u64);

    #[link_name = "envoy_dynamic_module_callback_http_filter_config_scheduler_new"]
    pub(super) fn config_scheduler_new(config: ConfigPtr) -> SchedulerPtr;
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_scheduler_commit"]
    pub(super) fn config_scheduler_commit(scheduler: SchedulerPtr, event: u64);
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_scheduler_delete"]
    pub(super) fn config_scheduler_delete(scheduler: SchedulerPtr);

    #[link_name = "envoy_dynamic_module_callback_http_filter_scheduler_new"]
    pub(super) fn scheduler_new(stream: StreamPtr) -> SchedulerPtr;
    #[link_name = "envoy_dynamic_module_callback_http_filter_scheduler_commit"]
    pub(super) fn scheduler_commit(scheduler: SchedulerPtr, event: u64);
    #[link_name = "envoy_dynamic_module_callback_http_filter_scheduler_delete"]
    pub(super) fn scheduler_delete(scheduler: SchedulerPtr);

    #[link_name = "envoy_dynamic_module_callback_http_filter_get_worker_index"]
    pub(super) fn worker_index(stream: StreamPtr) -> u32;
    #[link_name = "envoy_dynamic_module_callback_http_filter_continue_decoding"]
    pub(super) fn continue_decoding(stream: StreamPtr);

    #[link_name = "envoy_dynamic_module_callback_http_get_header"]
    pub(super) fn get_header(
        stream: StreamPtr,
        which: Headers,
        name: Lent,
        value: *mut Borrowed,
        index: usize,
        count: *mut usize,
    ) -> bool;
    /// Removes it where the value is [`Lent::NOTHING`].
    #[link_name = "envoy_dynamic_module_callback_http_set_header"]
    pub(super) fn set_header(stream: StreamPtr, which: Headers, name: Lent, value: Lent) -> bool;

    #[link_name = "envoy_dynamic_module_callback_http_get_body_size"]
    pub(super) fn body_size(stream: StreamPtr, which: Body) -> usize;
    #[link_name = "envoy_dynamic_module_callback_http_get_body_chunks_size"]
    pub(super) fn body_chunk_count(stream: StreamPtr, which: Body) -> usize;
    #[link_name = "envoy_dynamic_module_callback_http_get_body_chunks"]
    pub(super) fn body_chunks(stream: StreamPtr, which: Body, chunks: *mut Borrowed) -> bool;
    #[link_name = "envoy_dynamic_module_callback_http_drain_body"]
    pub(super) fn drain_body(stream: StreamPtr, which: Body, size: usize) -> bool;
    #[link_name = "envoy_dynamic_module_callback_http_append_body"]
    pub(super) fn append_body(stream: StreamPtr, which: Body, bytes: Lent) -> bool;
    /// Whether what has just come is what a filter before this one had held back.
    #[link_name = "envoy_dynamic_module_callback_http_received_buffered_request_body"]
    pub(super) fn received_is_buffered(stream: StreamPtr) -> bool;

    #[link_name = "envoy_dynamic_module_callback_http_send_response"]
    pub(super) fn send_response(
        stream: StreamPtr,
        status: u32,
        headers: *const LentHeader,
        header_count: usize,
        body: Lent,
        details: Lent,
    );
    #[link_name = "envoy_dynamic_module_callback_http_send_response_headers"]
    pub(super) fn send_response_headers(
        stream: StreamPtr,
        headers: *const LentHeader,
        header_count: usize,
        is_last: bool,
    );
}

/// What unit tests link with in the place of Envoy: it does nothing.
#[cfg(test)]
mod nobody {
    crate::native::unused! {
        envoy_dynamic_module_callback_log,
        envoy_dynamic_module_callback_get_concurrency,
        envoy_dynamic_module_callback_is_validation_mode,
        envoy_dynamic_module_callback_http_filter_config_define_counter,
        envoy_dynamic_module_callback_http_filter_config_increment_counter,
        envoy_dynamic_module_callback_http_filter_config_start_http_stream,
        envoy_dynamic_module_callback_http_filter_config_reset_http_stream,
        envoy_dynamic_module_callback_http_filter_config_scheduler_new,
        envoy_dynamic_module_callback_http_filter_config_scheduler_commit,
        envoy_dynamic_module_callback_http_filter_config_scheduler_delete,
        envoy_dynamic_module_callback_http_filter_scheduler_new,
        envoy_dynamic_module_callback_http_filter_scheduler_commit,
        envoy_dynamic_module_callback_http_filter_scheduler_delete,
        envoy_dynamic_module_callback_http_filter_get_worker_index,
        envoy_dynamic_module_callback_http_filter_continue_decoding,
        envoy_dynamic_module_callback_http_get_header,
        envoy_dynamic_module_callback_http_set_header,
        envoy_dynamic_module_callback_http_get_body_size,
        envoy_dynamic_module_callback_http_get_body_chunks_size,
        envoy_dynamic_module_callback_http_get_body_chunks,
        envoy_dynamic_module_callback_http_drain_body,
        envoy_dynamic_module_callback_http_append_body,
        envoy_dynamic_module_callback_http_received_buffered_request_body,
        envoy_dynamic_module_callback_http_send_response,
        envoy_dynamic_module_callback_http_send_response_headers,
    }
}
