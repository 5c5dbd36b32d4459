//! What the filter asks of Envoy, in its own words, whichever way it runs there: as a wasm module
//! (`wasm::host`), where each call crosses the VM's boundary and costs microseconds, or as a native one
//! (`native::host`).

use std::ops::Deref;

#[cfg(feature = "native")]
use crate::native::host as envoy;
#[cfg(not(feature = "native"))]
use crate::wasm::host as envoy;

pub use envoy::{
    add_to_counter, call, clear, define_counter, done, log, now_ns, reaches_streams, read,
    remove_request_header, reply, reply_grpc, request_body, request_header, request_headers,
    response_body, response_header, resume, set_request_body, set_request_header,
    set_response_header, set_tick, update, with_stream,
};

#[cfg(feature = "trap")]
pub use envoy::trap;

/// How much a line of the log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Info,
    Warn,
    Error,
}

/// What gRPC callers are told; the numbers are gRPC's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrpcStatus {
    InvalidArgument = 3,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// The longest value that takes no allocation, in bytes: the longest id.
pub const SHORT: usize = weir_domain::id::MAX_LEN;

/// The value of a header.
pub enum Value {
    Short([u8; SHORT], usize),
    Long(Vec<u8>),
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Short(bytes, size) => bytes.get(..*size).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for Value {
    #[inline]
    fn from(value: &[u8]) -> Self {
        let mut short = [0; SHORT];
        match short.get_mut(..value.len()) {
            Some(bytes) => {
                bytes.copy_from_slice(value);
                Self::Short(short, value.len())
            }
            None => Self::Long(value.to_vec()),
        }
    }
}

impl From<Value> for Vec<u8> {
    fn from(value: Value) -> Self {
        match value {
            Value::Short(..) => value.to_vec(),
            Value::Long(bytes) => bytes,
        }
    }
}

/// 128 random bits as hex digits: the name of a worker.
pub fn nonce() -> Option<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")))
}

pub fn warn(message: &str) {
    log(Level::Warn, message);
}
