//! What is asked of Envoy by calls of its ABI for dynamic modules, and what of it this module has itself:
//! a clock, and data that all workers share.

use std::{
    cell::{Cell, RefCell},
    ptr,
    sync::OnceLock,
    time::{Duration, Instant},
};

use hashbrown::HashMap;

use super::abi::{self, Body, Borrowed, ConfigPtr, Headers, Lent, LentHeader, StreamPtr};
use crate::host::{GrpcStatus, Level, Value};

pub use super::{
    calls::start as call,
    shared_data::{clear, read, update},
};

thread_local! {
    /// The stream that is effective now; null where there is none.
    static STREAM: Cell<StreamPtr> = const { Cell::new(ptr::null_mut()) };
    /// The configuration on whose behalf the main thread is at work; null on other threads.
    static CONFIG: Cell<ConfigPtr> = const { Cell::new(ptr::null_mut()) };
    /// How often the worker at work wants to be called, if it has just said so.
    static TICK: Cell<Option<Duration>> = const { Cell::new(None) };
    /// The streams of this thread that are paused, by their numbers.
    static PAUSED: RefCell<HashMap<u32, StreamPtr>> = RefCell::default();
}

/// Restores what was effective before.
struct Restore<T: Copy + 'static>(&'static std::thread::LocalKey<Cell<T>>, T);

impl<T: Copy> Drop for Restore<T> {
    fn drop(&mut self) {
        self.0.set(self.1);
    }
}

/// Runs `action` on behalf of this stream.
pub(in crate::native) fn on_stream<T>(stream: StreamPtr, action: impl FnOnce() -> T) -> T {
    let _restore = Restore(&STREAM, STREAM.replace(stream));
    action()
}

/// Runs `action` on the main thread on behalf of this configuration.
pub(in crate::native) fn on_main<T>(config: ConfigPtr, action: impl FnOnce() -> T) -> T {
    let _restore = Restore(&CONFIG, CONFIG.replace(config));
    action()
}

/// Takes what [`set_tick`] was last told on this thread.
#[inline]
pub(in crate::native) fn take_tick() -> Option<Duration> {
    TICK.take()
}

/// This stream is paused from now on.
pub(in crate::native) fn note_paused(context: u32, stream: StreamPtr) {
    PAUSED.with_borrow_mut(|paused| paused.insert(context, stream));
}

/// It is not any more, or gone; `None` if it was not.
pub(in crate::native) fn take_paused(context: u32) -> Option<StreamPtr> {
    PAUSED.with_borrow_mut(|paused| paused.remove(&context))
}

pub(in crate::native) fn is_paused(context: u32) -> bool {
    PAUSED.with_borrow(|paused| paused.contains_key(&context))
}

/// Monotonic time in ns. All workers of an Envoy read the same clock.
pub fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    /// 0 stands for never.
    const BEFORE_START_NS: u64 = 86_400_000_000_000;
    let elapsed = START.get_or_init(Instant::now).elapsed();
    BEFORE_START_NS + elapsed.as_nanos() as u64
}

pub fn log(level: Level, message: &str) {
    let level = match level {
        Level::Info => abi::LogLevel::Info,
        Level::Warn => abi::LogLevel::Warn,
        Level::Error => abi::LogLevel::Error,
    };
    // SAFETY: the message is there for the call.
    unsafe { abi::log(level, message.into()) }
}

/// How often the worker at work is called from now on.
pub fn set_tick(period: Duration) {
    TICK.set(Some(period));
}

/// Nobody waits for that.
pub const fn done() {}

/// Runs `action` on behalf of the paused stream `context`; nothing happens if it is gone.
pub fn with_stream<T>(context: u32, _root: u32, action: impl FnOnce() -> T) -> Option<T> {
    let stream = PAUSED.with_borrow(|paused| paused.get(&context).copied())?;
    Some(on_stream(stream, action))
}

/// The main thread must not touch streams of others.
pub fn reaches_streams() -> bool {
    CONFIG.get().is_null()
}

/// The stream that is effective now passes, which was paused.
pub fn resume() {
    // SAFETY: what is effective exists, on this thread.
    unsafe { abi::continue_decoding(STREAM.get()) }
}

/// Answers the stream that is effective now.
pub fn reply(status: u32, headers: Vec<(&str, &str)>, body: &[u8]) {
    let headers = lend(&headers);
    let details = "weir".into();
    // SAFETY: what is lent is there for the call, and what is effective exists.
    unsafe {
        abi::send_response(
            STREAM.get(),
            status,
            headers.as_ptr(),
            headers.len(),
            body.into(),
            details,
        );
    }
}

/// The same for a gRPC caller: an answer of headers alone.
pub fn reply_grpc(status: GrpcStatus, message: &str, headers: Vec<(&str, &str)>) {
    let status = (status as u32).to_string();
    let message = percent_encoded(message);
    let own = [
        (":status", "200"),
        ("content-type", "application/grpc"),
        ("grpc-status", status.as_str()),
        ("grpc-message", message.as_str()),
    ];
    let all: Vec<(&str, &str)> = own.into_iter().chain(headers).collect();
    let headers = lend(&all);
    // SAFETY: as in `reply`.
    unsafe {
        abi::send_response_headers(STREAM.get(), headers.as_ptr(), headers.len(), true);
    }
}

/// As gRPC over HTTP/2 wants `grpc-message` to be.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |encoded, byte| match byte {
        b' '..=b'~' if byte != b'%' => encoded + char::from(byte).encode_utf8(&mut [0; 4]),
        _ => format!("{encoded}%{byte:02X}"),
    })
}

fn lend(headers: &[(&str, &str)]) -> Vec<LentHeader> {
    headers.iter().map(|(name, value)| LentHeader::new(name, value)).collect()
}

#[inline]
pub fn request_header(name: &str) -> Option<Value> {
    with_header(Headers::Request, name, |value| Value::from(value))
}

/// Several of them, in the order of their names.
pub fn request_headers(names: &[&str]) -> Vec<Option<Value>> {
    names.iter().map(|name| request_header(name)).collect()
}

pub fn set_request_header(name: &str, value: &str) {
    set_header(Headers::Request, name, value.into());
}

pub fn remove_request_header(name: &str) {
    set_header(Headers::Request, name, Lent::NOTHING);
}

pub fn response_header(name: &str) -> Option<Vec<u8>> {
    with_header(Headers::Response, name, <[u8]>::to_vec)
}

pub fn set_response_header(name: &str, value: &str) {
    set_header(Headers::Response, name, value.into());
}

/// As VMs are told: the first one, where there are several.
#[inline]
fn with_header<T>(which: Headers, name: &str, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
    let stream = STREAM.get();
    if stream.is_null() {
        return None;
    }
    let mut value = Borrowed::NOTHING;
    // SAFETY: what is effective exists; the name is there for the call, and the value is read before
    // anything else is asked of Envoy.
    unsafe {
        abi::get_header(stream, which, name.into(), &raw mut value, 0, ptr::null_mut())
            .then(|| read(value.read()))
    }
}

fn set_header(which: Headers, name: &str, value: Lent) {
    // SAFETY: what is effective exists, and what is lent is there for the call.
    unsafe {
        abi::set_header(STREAM.get(), which, name.into(), value);
    }
}

/// How much of the request's body is here, in bytes.
pub(in crate::native) fn request_body_size(stream: StreamPtr) -> usize {
    // SAFETY: the stream exists.
    held(stream).into_iter().map(|which| unsafe { abi::body_size(stream, which) }).sum()
}

/// Where the request's body is: what has come stands behind what was held back, unless it is the same.
fn held(stream: StreamPtr) -> Vec<Body> {
    // SAFETY: the stream exists.
    if unsafe { abi::received_is_buffered(stream) } {
        return vec![Body::ReceivedRequest];
    }
    vec![Body::BufferedRequest, Body::ReceivedRequest]
}

/// The body of the request as far as it is here.
pub fn request_body(size: usize) -> Vec<u8> {
    let stream = STREAM.get();
    let mut body = Vec::with_capacity(size);
    for which in held(stream) {
        append(stream, which, &mut body);
    }
    body
}

/// Puts `body` in the place of all that is here of the request's.
pub fn set_request_body(_size: usize, body: &[u8]) {
    let stream = STREAM.get();
    let mut last = Body::BufferedRequest;
    for which in held(stream) {
        // SAFETY: the stream exists, and what is lent is there for the call.
        unsafe {
            let size = abi::body_size(stream, which);
            if size > 0 {
                abi::drain_body(stream, which, size);
                last = which;
            }
        }
    }
    // SAFETY: the same.
    unsafe {
        abi::append_body(stream, last, body.into());
    }
}

/// The piece of the answer's body that is here.
pub fn response_body(size: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(size);
    append(STREAM.get(), Body::ReceivedResponse, &mut body);
    body
}

/// How large the piece of the answer's body is that is here, in bytes.
pub(in crate::native) fn response_body_size(stream: StreamPtr) -> usize {
    // SAFETY: the stream exists.
    unsafe { abi::body_size(stream, Body::ReceivedResponse) }
}

fn append(stream: StreamPtr, which: Body, to: &mut Vec<u8>) {
    // SAFETY: the stream exists; there is room for as many chunks as there are, which are read before
    // anything else is asked of Envoy.
    unsafe {
        let mut chunks = vec![Borrowed::NOTHING; abi::body_chunk_count(stream, which)];
        if !chunks.is_empty() && abi::body_chunks(stream, which, chunks.as_mut_ptr()) {
            for chunk in chunks {
                to.extend_from_slice(chunk.read());
            }
        }
    }
}

pub fn define_counter(name: &str) -> Option<u32> {
    let mut id = 0;
    // SAFETY: the configuration is being made, and what is lent is there for the call.
    let result =
        unsafe { abi::define_counter(CONFIG.get(), name.into(), ptr::null(), 0, &raw mut id) };
    (result == abi::SUCCESS).then(|| u32::try_from(id).ok()).flatten()
}

pub fn add_to_counter(id: u32, count: u64) {
    let config = CONFIG.get();
    if !config.is_null() {
        // SAFETY: the configuration exists.
        unsafe {
            abi::increment_counter(config, id as usize, ptr::null(), 0, count);
        }
    }
}

/// The worker panics.
#[cfg(feature = "trap")]
pub fn trap() -> ! {
    std::panic::resume_unwind(Box::new("it was asked to"))
}
