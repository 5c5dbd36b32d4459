//! The amount of one line, in whole numbers: `Decimal` would round a product past 28 digits silently.
//!
//! A share of a period is a fraction, so quantities are counted in parts of `1 / share.of`, and prices
//! in 10⁻¹² of the currency's unit. What doesn't fit into 128 bits is an error.

use rust_decimal::Decimal;

use super::Share;
use crate::{
    currency::Currency,
    money::{Money, MoneyError},
    price::{Charge, MAX_DECIMALS, Tier},
    quantity::Quantity,
};

/// What `charge` makes of `used` units, for a `share` of a period. The price has been checked.
pub(super) fn amount(
    charge: &Charge,
    used: u64,
    share: Share,
    currency: Currency,
) -> Result<Money, MoneyError> {
    let sum = match charge {
        Charge::Flat { amount } => times(i128::from(share.quarters), *amount)?,
        Charge::PerUnit { unit_price, included, .. } => {
            times(past_included(used, *included, share)?, *unit_price)?
        }
        Charge::Graduated { tiers, included, .. } => {
            graduated(past_included(used, *included, share)?, tiers, share)?
        }
    };
    let parts = i128::from(share.of).checked_mul(10_i128.pow(MAX_DECIMALS));
    Money::rounded(sum, parts.ok_or(MoneyError::Overflow)?, currency)
}

/// The used units past the share's part of the included ones, in parts.
fn past_included(used: u64, included: Quantity, share: Share) -> Result<i128, MoneyError> {
    let used = i128::from(used).checked_mul(share.of.into()).ok_or(MoneyError::Overflow)?;
    Ok((used - in_share(included, share)).max(0))
}

/// Each part at the price of the tier it falls in.
fn graduated(parts: i128, tiers: &[Tier], share: Share) -> Result<i128, MoneyError> {
    let mut from = 0;
    let mut sum = 0_i128;
    for tier in tiers {
        let to = tier.up_to.map_or(parts, |up_to| in_share(up_to, share).min(parts));
        sum = sum.checked_add(times(to - from, tier.unit_price)?).ok_or(MoneyError::Overflow)?;
        from = to;
    }
    Ok(sum)
}

/// `whole` units of a period, as parts in a share of it. 2⁵³ × 2³² fits.
fn in_share(whole: Quantity, share: Share) -> i128 {
    i128::from(whole.get()) * i128::from(share.quarters)
}

/// `parts × price`, in 10⁻¹².
fn times(parts: i128, price: Decimal) -> Result<i128, MoneyError> {
    let price = price.normalize();
    MAX_DECIMALS
        .checked_sub(price.scale())
        .and_then(|digits| 10_i128.checked_pow(digits))
        .and_then(|scale| price.mantissa().checked_mul(scale))
        .and_then(|price| price.checked_mul(parts))
        .ok_or(MoneyError::Overflow)
}
