//! Money: exact amounts in the minor unit of a currency.

use std::fmt;

use rust_decimal::Decimal;
use thiserror::Error;

use crate::currency::Currency;

/// A whole number of minor units of a currency: 12 is 0.12 USD, 12 JPY and 0.012 KWD.
///
/// Up to 2⁶³ − 1 minor units either way; anything larger is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Money {
    minor: i64,
    currency: Currency,
}

/// What can't be computed exactly is not computed at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MoneyError {
    #[error("the amount is too large to be computed exactly")]
    Overflow,
    #[error("amounts in {0} and {1} can't be added")]
    Currencies(Currency, Currency),
}

impl Money {
    pub const fn new(minor: i64, currency: Currency) -> Self {
        Self { minor, currency }
    }

    pub const fn zero(currency: Currency) -> Self {
        Self::new(0, currency)
    }

    /// `numerator / denominator` units of `currency` (dollars, not cents), rounded half to even to
    /// its minor unit.
    pub fn rounded(
        numerator: i128,
        denominator: i128,
        currency: Currency,
    ) -> Result<Self, MoneyError> {
        let scale = 10_i128.checked_pow(currency.minor_digits()).ok_or(MoneyError::Overflow)?;
        let scaled = numerator.checked_mul(scale).ok_or(MoneyError::Overflow)?;
        let minor = divide_half_even(scaled, denominator).ok_or(MoneyError::Overflow)?;
        let minor = i64::try_from(minor).map_err(|_| MoneyError::Overflow)?;
        Ok(Self { minor, currency })
    }

    /// `numerator / denominator` of it, rounded half to even.
    pub fn fraction(self, numerator: i128, denominator: i128) -> Result<Self, MoneyError> {
        let product = i128::from(self.minor).checked_mul(numerator).ok_or(MoneyError::Overflow)?;
        let minor = divide_half_even(product, denominator).ok_or(MoneyError::Overflow)?;
        let minor = i64::try_from(minor).map_err(|_| MoneyError::Overflow)?;
        Ok(Self { minor, ..self })
    }

    pub const fn minor(self) -> i64 {
        self.minor
    }

    pub const fn currency(self) -> Currency {
        self.currency
    }

    /// The amount in units of the currency, with all digits of its minor unit: `0.10`.
    pub fn decimal(self) -> Decimal {
        Decimal::new(self.minor, self.currency.minor_digits())
    }

    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        self.combine(other, i64::checked_add)
    }

    pub fn checked_sub(self, other: Self) -> Result<Self, MoneyError> {
        self.combine(other, i64::checked_sub)
    }

    fn combine(
        self,
        other: Self,
        operation: fn(i64, i64) -> Option<i64>,
    ) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::Currencies(self.currency, other.currency));
        }
        let minor = operation(self.minor, other.minor).ok_or(MoneyError::Overflow)?;
        Ok(Self { minor, ..self })
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.decimal(), self.currency)
    }
}

/// The whole number nearest to `numerator / denominator`, the even one of two; `None` on overflow and
/// where the denominator is not positive.
fn divide_half_even(numerator: i128, denominator: i128) -> Option<i128> {
    if denominator <= 0 {
        return None;
    }
    let floor = numerator.checked_div_euclid(denominator)?;
    let rest = numerator.checked_rem_euclid(denominator)?;
    // rest < denominator, so this can't wrap.
    let up = match rest.cmp(&(denominator - rest)) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => floor % 2 != 0,
        std::cmp::Ordering::Greater => true,
    };
    floor.checked_add(i128::from(up))
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn currency(code: &str) -> Currency {
        Currency::new(code).unwrap()
    }

    #[test]
    fn half_of_a_minor_unit_goes_to_the_even_one() {
        let cents = |numerator| Money::rounded(numerator, 1_000, currency("USD")).unwrap().minor();
        assert_eq!(
            [4, 5, 6, 14, 15, 16, 25, 35, -5, -15, -16].map(cents),
            [0, 0, 1, 1, 2, 2, 2, 4, 0, -2, -2],
        );
    }

    #[test]
    fn each_currency_has_its_own_minor_unit() {
        let text = |code| Money::rounded(123_456, 1_000, currency(code)).unwrap().to_string();
        assert_eq!(["JPY", "USD", "KWD"].map(text), ["123 JPY", "123.46 USD", "123.456 KWD"]);
        assert_eq!(Money::new(10, currency("USD")).decimal().to_string(), "0.10");
    }

    #[test]
    fn a_fraction_is_rounded_like_everything_else() {
        let half = |minor| Money::new(minor, currency("USD")).fraction(1, 2).unwrap().minor();
        assert_eq!([1, 2, 3, 5, -1, -3].map(half), [0, 1, 2, 2, 0, -2]);
        let most = Money::new(i64::MAX, currency("USD"));
        assert_eq!(most.fraction(1, 1), Ok(most));
        assert_eq!(most.fraction(2, 1), Err(MoneyError::Overflow));
        assert_eq!(most.fraction(i128::MAX, 1), Err(MoneyError::Overflow));
        assert_eq!(most.fraction(1, 0), Err(MoneyError::Overflow));
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let usd = currency("USD");
        let most = Money::new(i64::MAX, usd);
        assert_eq!(most.checked_add(Money::new(1, usd)), Err(MoneyError::Overflow));
        assert_eq!(Money::rounded(i128::MAX, 1, usd), Err(MoneyError::Overflow));
        assert_eq!(Money::rounded(i128::from(i64::MAX), 10, usd), Err(MoneyError::Overflow));
        assert_eq!(Money::rounded(1, 0, usd), Err(MoneyError::Overflow));
        assert_eq!(
            most.checked_add(Money::zero(currency("JPY"))),
            Err(MoneyError::Currencies(usd, currency("JPY")))
        );
    }
}
