//! Currencies and their minor units.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An ISO 4217 currency that Weir can bill in, such as `USD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a currency; use an ISO 4217 code such as USD, EUR, JPY or KWD")]
pub struct UnknownCurrency(pub String);

/// Each currency's ISO 4217 code and how many digits its minor unit has.
const CURRENCIES: [(&[u8; 3], u32); 40] = [
    (b"AED", 2),
    (b"AUD", 2),
    (b"BHD", 3),
    (b"BRL", 2),
    (b"CAD", 2),
    (b"CHF", 2),
    (b"CLP", 0),
    (b"CNY", 2),
    (b"COP", 2),
    (b"CZK", 2),
    (b"DKK", 2),
    (b"EUR", 2),
    (b"GBP", 2),
    (b"HKD", 2),
    (b"HUF", 2),
    (b"IDR", 2),
    (b"ILS", 2),
    (b"INR", 2),
    (b"ISK", 0),
    (b"JOD", 3),
    (b"JPY", 0),
    (b"KRW", 0),
    (b"KWD", 3),
    (b"MXN", 2),
    (b"MYR", 2),
    (b"NOK", 2),
    (b"NZD", 2),
    (b"OMR", 3),
    (b"PHP", 2),
    (b"PLN", 2),
    (b"RON", 2),
    (b"SAR", 2),
    (b"SEK", 2),
    (b"SGD", 2),
    (b"THB", 2),
    (b"TND", 3),
    (b"TRY", 2),
    (b"TWD", 2),
    (b"USD", 2),
    (b"ZAR", 2),
];

impl Currency {
    /// Looks `code` up, as it is written in ISO 4217.
    pub fn new(code: &str) -> Result<Self, UnknownCurrency> {
        CURRENCIES
            .iter()
            .find(|(known, _)| known.as_slice() == code.as_bytes())
            .map(|(known, _)| Self(**known))
            .ok_or_else(|| UnknownCurrency(code.to_owned()))
    }

    /// How many digits the minor unit has: 2 for cents, 0 for yen.
    pub fn minor_digits(self) -> u32 {
        CURRENCIES.iter().find(|(known, _)| **known == self.0).map_or(2, |(_, digits)| *digits)
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XXX")
    }
}

impl TryFrom<String> for Currency {
    type Error = UnknownCurrency;

    fn try_from(code: String) -> Result<Self, UnknownCurrency> {
        Self::new(&code)
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> String {
        currency.as_str().to_owned()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
