//! The response fields of draft-ietf-httpapi-ratelimit-headers: Structured Fields lists, one item a limit.
//!
//! ```text
//! RateLimit-Policy: "daily";q=10000;w=86400
//! RateLimit: "daily";r=9950;t=3600
//! ```

use std::fmt::Write;

use crate::protocol::LimitStatus;

/// The name of the field that says what the limits are.
pub const POLICY_FIELD: &str = "ratelimit-policy";
/// The name of the field that says what is left.
pub const REMAINING_FIELD: &str = "ratelimit";

/// The value of `RateLimit-Policy`.
pub fn policy_value(limits: &[LimitStatus]) -> String {
    list(limits, |text, limit| {
        let LimitStatus { name, capacity, window_s, .. } = limit;
        let _ = write!(text, "\"{name}\";q={capacity};w={window_s}");
        if limit.unit == crate::limit::Unit::Tokens {
            text.push_str(";qu=\"tokens\"");
        }
    })
}

/// The value of `RateLimit`.
pub fn remaining_value(limits: &[LimitStatus]) -> String {
    list(limits, |text, limit| {
        let LimitStatus { name, remaining, reset_s, .. } = limit;
        let _ = write!(text, "\"{name}\";r={remaining};t={reset_s}");
    })
}

fn list(limits: &[LimitStatus], item: impl Fn(&mut String, &LimitStatus)) -> String {
    let mut text = String::new();
    for limit in limits {
        if !text.is_empty() {
            text.push_str(", ");
        }
        item(&mut text, limit);
    }
    text
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::{id::LimitName, limit::Unit, quantity::Quantity};

    #[test]
    fn several_limits_make_one_list() {
        let limit = |name: &str, unit| LimitStatus {
            name: LimitName::new(name).unwrap(),
            unit,
            capacity: Quantity::from(10_000),
            remaining: Quantity::from(9_950),
            window_s: 86_400,
            reset_s: 3_600,
            violated: false,
        };
        let limits = [limit("daily", Unit::Tokens), limit("burst", Unit::Requests)];
        assert_eq!(
            policy_value(&limits),
            r#""daily";q=10000;w=86400;qu="tokens", "burst";q=10000;w=86400"#
        );
        assert_eq!(remaining_value(&limits), r#""daily";r=9950;t=3600, "burst";r=9950;t=3600"#);
    }
}
