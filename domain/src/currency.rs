//! Currencies and their minor units.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An ISO 4217 currency that Weir can bill in, such as `USD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency(&'static Entry);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Entry {
    code: &'static str,
    minor_digits: u32,
}

const fn entry(code: &'static str, minor_digits: u32) -> Entry {
    Entry { code, minor_digits }
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a currency; use an ISO 4217 code such as USD, EUR, JPY or KWD")]
pub struct UnknownCurrency(pub String);

/// Each currency's ISO 4217 code and how many digits its minor unit has.
static CURRENCIES: [Entry; 40] = [
    entry("AED", 2),
    entry("AUD", 2),
    entry("BHD", 3),
    entry("BRL", 2),
    entry("CAD", 2),
    entry("CHF", 2),
    entry("CLP", 0),
    entry("CNY", 2),
    entry("COP", 2),
    entry("CZK", 2),
    entry("DKK", 2),
    entry("EUR", 2),
    entry("GBP", 2),
    entry("HKD", 2),
    entry("HUF", 2),
    entry("IDR", 2),
    entry("ILS", 2),
    entry("INR", 2),
    entry("ISK", 0),
    entry("JOD", 3),
    entry("JPY", 0),
    entry("KRW", 0),
    entry("KWD", 3),
    entry("MXN", 2),
    entry("MYR", 2),
    entry("NOK", 2),
    entry("NZD", 2),
    entry("OMR", 3),
    entry("PHP", 2),
    entry("PLN", 2),
    entry("RON", 2),
    entry("SAR", 2),
    entry("SEK", 2),
    entry("SGD", 2),
    entry("THB", 2),
    entry("TND", 3),
    entry("TRY", 2),
    entry("TWD", 2),
    entry("USD", 2),
    entry("ZAR", 2),
];

impl Currency {
    /// Looks `code` up, as it is written in ISO 4217.
    pub fn new(code: &str) -> Result<Self, UnknownCurrency> {
        CURRENCIES
            .iter()
            .find(|known| known.code == code)
            .map(Self)
            .ok_or_else(|| UnknownCurrency(code.to_owned()))
    }

    /// How many digits the minor unit has: 2 for cents, 0 for yen.
    pub fn minor_digits(self) -> u32 {
        self.0.minor_digits
    }

    pub fn as_str(self) -> &'static str {
        self.0.code
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
