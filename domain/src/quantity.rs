//! Whole numbers of tokens or requests. Never a float, never negative, never past 2⁵³ − 1, so that
//! JSON, Lua and JavaScript carry them exactly.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, Unexpected, Visitor},
};
use thiserror::Error;

/// A number of tokens or of requests, 0 to 2⁵³ − 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(into = "u64")]
pub struct Quantity(u64);

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(QuantityVisitor)
    }
}

/// Says what is allowed where a number is negative, a fraction or too large.
struct QuantityVisitor;

impl Visitor<'_> for QuantityVisitor {
    type Value = Quantity;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 0 to {}", Quantity::MAX)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Quantity, E> {
        Quantity::new(value).map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &self))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Quantity, E> {
        let quantity = u64::try_from(value).ok().and_then(|value| Quantity::new(value).ok());
        quantity.ok_or_else(|| E::invalid_value(Unexpected::Signed(value), &self))
    }
}

/// A number past [`Quantity::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0} is too large: at most 9007199254740991 (2^53 - 1) is allowed")]
pub struct TooLarge(pub u64);

impl Quantity {
    pub const ZERO: Self = Self(0);
    pub const ONE: Self = Self(1);
    pub const MAX: Self = Self((1 << 53) - 1);

    /// `value`, if it is at most 2⁵³ − 1.
    pub const fn new(value: u64) -> Result<Self, TooLarge> {
        if value > Self::MAX.0 { Err(TooLarge(value)) } else { Ok(Self(value)) }
    }

    /// `value`, or the largest quantity where it is larger.
    pub const fn clamped(value: u64) -> Self {
        if value > Self::MAX.0 { Self::MAX } else { Self(value) }
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, or `None` past 2⁵³ − 1.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Self::new(self.0 + other.0).ok()
    }

    /// The difference, or `None` below 0.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// The sum, at most [`Quantity::MAX`].
    pub fn saturating_add(self, other: Self) -> Self {
        Self::clamped(self.0 + other.0)
    }

    /// The difference, at least 0.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl TryFrom<u64> for Quantity {
    type Error = TooLarge;

    fn try_from(value: u64) -> Result<Self, TooLarge> {
        Self::new(value)
    }
}

impl From<Quantity> for u64 {
    fn from(quantity: Quantity) -> u64 {
        quantity.0
    }
}

impl From<u32> for Quantity {
    fn from(value: u32) -> Self {
        Self(value.into())
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a request takes, or what a lease holds: both units side by side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amount {
    pub tokens: Quantity,
    pub requests: Quantity,
}

impl Amount {
    pub const ZERO: Self = Self { tokens: Quantity::ZERO, requests: Quantity::ZERO };

    /// One request that costs `tokens`.
    pub const fn request(tokens: Quantity) -> Self {
        Self { tokens, requests: Quantity::ONE }
    }

    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }

    /// Whether this holds at least `other` in both units.
    pub fn covers(self, other: Self) -> bool {
        self.tokens >= other.tokens && self.requests >= other.requests
    }

    /// The difference, or `None` where either unit would fall below 0.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        Some(Self {
            tokens: self.tokens.checked_sub(other.tokens)?,
            requests: self.requests.checked_sub(other.requests)?,
        })
    }

    /// The sum, or `None` where either unit would be more than [`Quantity::MAX`].
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Some(Self {
            tokens: self.tokens.checked_add(other.tokens)?,
            requests: self.requests.checked_add(other.requests)?,
        })
    }

    /// The sum, each unit at most [`Quantity::MAX`].
    pub fn saturating_add(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            requests: self.requests.saturating_add(other.requests),
        }
    }

    /// The difference, each unit at least 0.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_sub(other.tokens),
            requests: self.requests.saturating_sub(other.requests),
        }
    }

    /// The larger of each unit.
    pub fn max(self, other: Self) -> Self {
        Self { tokens: self.tokens.max(other.tokens), requests: self.requests.max(other.requests) }
    }

    /// The smaller of each unit.
    pub fn min(self, other: Self) -> Self {
        Self { tokens: self.tokens.min(other.tokens), requests: self.requests.min(other.requests) }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn past_2_pow_53_is_refused() {
        assert!(Quantity::new((1 << 53) - 1).is_ok());
        assert_eq!(Quantity::new(1 << 53), Err(TooLarge(1 << 53)));
        assert_eq!(Quantity::MAX.checked_add(Quantity::ONE), None);
    }

    #[test]
    fn json_refuses_negatives_fractions_and_overflow() {
        for text in ["-1", "1.5", "9007199254740992", "\"1\""] {
            assert!(serde_json::from_str::<Quantity>(text).is_err(), "{text}");
        }
        assert_eq!(serde_json::from_str::<Quantity>("7").ok(), Some(Quantity(7)));
        let error = serde_json::from_str::<Quantity>("-1").unwrap_err().to_string();
        assert!(error.contains("expected a whole number from 0 to 9007199254740991"), "{error}");
    }
}
