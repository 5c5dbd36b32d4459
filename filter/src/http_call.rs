//! HTTP calls to the control plane. Each is made by the root context, which outlives every request.

use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::{config::ControlPlane, host};

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
    host::call(&to.cluster, headers, body, timeout)
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
    body: Vec<u8>,
}

impl Answer {
    pub fn new(status: Option<u16>, body: Vec<u8>) -> Self {
        Self { status, body }
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
