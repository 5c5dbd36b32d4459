//! HTTP calls to the control plane. Each is made by the root context, which outlives every request.

use std::time::Duration;

use proxy_wasm::{
    hostcalls,
    types::{BufferType, Bytes, MapType},
};
use serde::de::DeserializeOwned;

use crate::config::ControlPlane;

/// How long a long poll may take: longer than the control plane holds it.
const POLL_TIMEOUT: Duration = Duration::from_secs(30);

/// Posts `body`; the token of the call, or `None` when it could not be made.
pub fn post(to: &ControlPlane, path: &str, body: &[u8]) -> Option<u32> {
    let timeout = Duration::from_millis(to.timeout_ms);
    call(to, "POST", path, Some(body), timeout)
}

/// Gets `path` and waits long for the answer.
pub fn poll(to: &ControlPlane, path: &str) -> Option<u32> {
    call(to, "GET", path, None, POLL_TIMEOUT)
}

fn call(
    to: &ControlPlane,
    method: &str,
    path: &str,
    body: Option<&[u8]>,
    timeout: Duration,
) -> Option<u32> {
    let authorization = format!("Bearer {}", to.token);
    let headers = vec![
        (":method", method),
        (":path", path),
        (":authority", to.authority.as_str()),
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
    ];
    hostcalls::dispatch_http_call(&to.cluster, headers, body, Vec::new(), timeout).ok()
}

/// How long to wait after `failures` failed tries, in ns: 50 ms, doubling up to 1.6 s.
pub fn backoff_ns(failures: u32) -> u64 {
    50_000_000 << failures.min(5)
}

/// What came back from a call.
#[derive(Debug)]
pub struct Answer {
    /// `None` when nobody answered in time.
    status: Option<u16>,
    body: Bytes,
}

impl Answer {
    /// Reads the answer that Envoy just announced.
    pub fn take(num_headers: usize, body_size: usize) -> Self {
        let status = (num_headers > 0)
            .then(|| hostcalls::get_map_value_bytes(MapType::HttpCallResponseHeaders, ":status"))
            .and_then(|value| value.ok().flatten())
            .and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok());
        let body = hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, body_size);
        Self { status, body: body.ok().flatten().unwrap_or_default() }
    }

    /// Whether the control plane says that what was sent does not follow what it has.
    pub fn is_conflict(&self) -> bool {
        self.status == Some(409)
    }

    /// The body of a 200; otherwise what went wrong, for the log.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, String> {
        match self.status {
            Some(200) => serde_json::from_slice(&self.body)
                .map_err(|error| format!("its answer is not understood: {error}")),
            Some(status) => {
                let shown = self.body.get(..300).unwrap_or(&self.body);
                Err(format!("it answered {status}: {}", String::from_utf8_lossy(shown)))
            }
            None => Err("it did not answer in time".to_owned()),
        }
    }
}
