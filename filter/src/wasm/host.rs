//! What is asked of Envoy by calls of the proxy-wasm ABI.

use std::time::Duration;

use proxy_wasm::{
    hostcalls,
    types::{BufferType, GrpcStatusCode, LogLevel, MapType, MetricType, Status},
};

use crate::host::{GrpcStatus, Level};

#[cfg(target_arch = "wasm32")]
pub use super::exports::{request_header, request_headers};

/// Monotonic time in ns. All workers of an Envoy read the same clock.
pub fn now_ns() -> u64 {
    // 32.32 fixed-point seconds.
    let ticks = coarsetime::Instant::now().as_ticks();
    (ticks >> 32) * 1_000_000_000 + (((ticks & 0xffff_ffff) * 1_000_000_000) >> 32)
}

pub fn log(level: Level, message: &str) {
    let level = match level {
        Level::Info => LogLevel::Info,
        Level::Warn => LogLevel::Warn,
        Level::Error => LogLevel::Error,
    };
    let _ = hostcalls::log(level, message);
}

/// How often `on_tick` comes from now on.
pub fn set_tick(period: Duration) {
    let _ = hostcalls::set_tick_period(period);
}

/// The value of `key` in Envoy's shared data. An emptied key counts as absent.
pub fn read(key: &str) -> Option<Vec<u8>> {
    hostcalls::get_shared_data(key).ok()?.0.filter(|value| !value.is_empty())
}

/// How often [`update`] tries before it gives up: another worker won each time.
const UPDATE_ATTEMPTS: u32 = 100;

/// Changes `key` in Envoy's shared data by compare-and-swap. `change` sees the present value (`None`
/// if absent or emptied) and returns the next one, or `None` to leave it as it is; it may be called
/// several times. Returns what the last call of `change` returned beside the value.
pub fn update<T>(
    key: &str,
    mut change: impl FnMut(Option<&[u8]>) -> (Option<Vec<u8>>, T),
) -> Option<T> {
    for _ in 0..UPDATE_ATTEMPTS {
        let (value, version) = hostcalls::get_shared_data(key).ok()?;
        let (next, result) = change(value.as_deref().filter(|value| !value.is_empty()));
        let Some(next) = next else {
            return Some(result);
        };
        // u32::MAX matches no version, so an absent key is created and a key that appeared
        // meanwhile is a mismatch.
        match hostcalls::set_shared_data(key, Some(&next), version.or(Some(u32::MAX))) {
            Ok(()) => return Some(result),
            Err(Status::CasMismatch) => {}
            Err(_) => return None,
        }
    }
    None
}

/// Empties `key`: Envoy keeps the key, which is why keys are few and reused.
pub fn clear(key: &str) {
    let _ = hostcalls::set_shared_data(key, None, None);
}

/// Tells Envoy that the root context, which was asked to end, is done.
pub fn done() {
    let _ = hostcalls::done();
}

/// Runs `action` on behalf of the paused stream `context`; nothing happens if it is gone.
pub fn with_stream<T>(context: u32, root: u32, action: impl FnOnce() -> T) -> Option<T> {
    let done = hostcalls::set_effective_context(context).is_ok().then(action);
    let _ = hostcalls::set_effective_context(root);
    done
}

/// A VM is on the thread of its streams.
pub const fn reaches_streams() -> bool {
    true
}

/// The stream that is effective now passes, which was paused.
pub fn resume() {
    let _ = hostcalls::resume_http_request();
}

/// Answers the stream that is effective now.
pub fn reply(status: u32, headers: Vec<(&str, &str)>, body: &[u8]) {
    let _ = hostcalls::send_http_response(status, headers, Some(body));
}

/// The same for a gRPC caller.
pub fn reply_grpc(status: GrpcStatus, message: &str, headers: Vec<(&str, &str)>) {
    let status = match status {
        GrpcStatus::InvalidArgument => GrpcStatusCode::InvalidArgument,
        GrpcStatus::PermissionDenied => GrpcStatusCode::PermissionDenied,
        GrpcStatus::ResourceExhausted => GrpcStatusCode::ResourceExhausted,
        GrpcStatus::Unavailable => GrpcStatusCode::Unavailable,
        GrpcStatus::Unauthenticated => GrpcStatusCode::Unauthenticated,
    };
    let metadata = headers.into_iter().map(|(name, value)| (name, value.as_bytes())).collect();
    let _ = hostcalls::send_grpc_response(status, Some(message), metadata);
}

#[cfg(not(target_arch = "wasm32"))]
pub fn request_header(name: &str) -> Option<crate::host::Value> {
    header(MapType::HttpRequestHeaders, name).map(crate::host::Value::Long)
}

#[cfg(not(target_arch = "wasm32"))]
pub fn request_headers(names: &[&str]) -> Vec<Option<crate::host::Value>> {
    names.iter().map(|name| request_header(name)).collect()
}

pub fn set_request_header(name: &str, value: &str) {
    let _ = hostcalls::set_map_value(MapType::HttpRequestHeaders, name, Some(value));
}

pub fn remove_request_header(name: &str) {
    let _ = hostcalls::set_map_value(MapType::HttpRequestHeaders, name, None);
}

pub fn response_header(name: &str) -> Option<Vec<u8>> {
    header(MapType::HttpResponseHeaders, name)
}

pub fn set_response_header(name: &str, value: &str) {
    let _ = hostcalls::set_map_value(MapType::HttpResponseHeaders, name, Some(value));
}

fn header(map: MapType, name: &str) -> Option<Vec<u8>> {
    hostcalls::get_map_value_bytes(map, name).ok().flatten()
}

/// The body of the request as far as it is here: `size` bytes.
pub fn request_body(size: usize) -> Vec<u8> {
    buffer(BufferType::HttpRequestBody, size)
}

/// Puts `body` in the place of all that is here of the request's, `size` bytes.
pub fn set_request_body(size: usize, body: &[u8]) {
    let _ = hostcalls::set_buffer(BufferType::HttpRequestBody, 0, size, body);
}

/// The piece of the answer's body that is here: `size` bytes.
pub fn response_body(size: usize) -> Vec<u8> {
    buffer(BufferType::HttpResponseBody, size)
}

/// What the plugin is configured with: `size` bytes.
pub(super) fn configuration(size: usize) -> Vec<u8> {
    buffer(BufferType::PluginConfiguration, size)
}

fn buffer(which: BufferType, size: usize) -> Vec<u8> {
    hostcalls::get_buffer(which, 0, size).ok().flatten().unwrap_or_default()
}

/// Calls a cluster, and returns the number of the call; `None` when it could not be made.
pub fn call(
    cluster: &str,
    headers: Vec<(&str, &str)>,
    body: Option<&[u8]>,
    timeout: Duration,
) -> Option<u32> {
    hostcalls::dispatch_http_call(cluster, headers, body, Vec::new(), timeout).ok()
}

/// The status and the body of the answer that Envoy just announced. No status where nobody answered in
/// time.
pub(super) fn answer(num_headers: usize, body_size: usize) -> (Option<u16>, Vec<u8>) {
    let status = (num_headers > 0)
        .then(|| header(MapType::HttpCallResponseHeaders, ":status"))
        .flatten()
        .and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok());
    (status, buffer(BufferType::HttpCallResponseBody, body_size))
}

pub fn define_counter(name: &str) -> Option<u32> {
    hostcalls::define_metric(MetricType::Counter, name).ok()
}

pub fn add_to_counter(id: u32, count: u64) {
    let _ = hostcalls::increment_metric(id, i64::try_from(count).unwrap_or(i64::MAX));
}

/// The VM traps.
#[cfg(feature = "trap")]
pub fn trap() -> ! {
    std::process::abort()
}
