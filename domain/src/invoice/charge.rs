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
    let past = |included: &Quantity| past_included(used, *included, share);
    let sum = match charge {
        Charge::Flat { amount } => {
            return in_parts([(share.quarters, *amount)], share.of, currency);
        }
        Charge::PerUnit { unit_price, included, .. } => times(past(included)?, *unit_price)?,
        Charge::Graduated { tiers, included, .. } => graduated(past(included)?, tiers, share)?,
        Charge::Volume { tiers, included, .. } => volume(past(included)?, tiers, share)?,
        Charge::Package { package_size, package_price, included, .. } => {
            times(started(past(included)?, *package_size, share)?, *package_price)?
        }
    };
    rounded(sum, share.of, currency)
}

/// The sum of what parts of a period cost that a whole one costs so much: quarter hours out of `of`,
/// and the amount for all of them.
pub(super) fn in_parts(
    parts: impl IntoIterator<Item = (u32, Decimal)>,
    of: u32,
    currency: Currency,
) -> Result<Money, MoneyError> {
    let sum = parts.into_iter().try_fold(0_i128, |sum, (quarters, amount)| {
        sum.checked_add(times(quarters.into(), amount)?).ok_or(MoneyError::Overflow)
    })?;
    rounded(sum, of, currency)
}

/// `percent` of `whole`, a number that was checked.
pub(super) fn percent_of(percent: Decimal, whole: Money) -> Result<Money, MoneyError> {
    whole.fraction(times(1, percent)?, 100 * 10_i128.pow(MAX_DECIMALS))
}

/// `sum` in 10⁻¹² of parts of `1 / of`.
fn rounded(sum: i128, of: u32, currency: Currency) -> Result<Money, MoneyError> {
    let parts = i128::from(of).checked_mul(10_i128.pow(MAX_DECIMALS));
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

/// All parts at the price of the tier that the last one falls in.
fn volume(parts: i128, tiers: &[Tier], share: Share) -> Result<i128, MoneyError> {
    let holds = |tier: &&Tier| tier.up_to.is_none_or(|up_to| parts <= in_share(up_to, share));
    // The last tier is open, so there is one.
    tiers.iter().find(holds).map_or(Err(MoneyError::Overflow), |tier| times(parts, tier.unit_price))
}

/// How many packages are started, in parts. A package is as large in a share of a period as in all
/// of it.
fn started(parts: i128, size: Quantity, share: Share) -> Result<i128, MoneyError> {
    let size = i128::from(size.get()).checked_mul(share.of.into());
    let last = size.and_then(|size| parts.checked_add(size.checked_sub(1)?));
    let packages = size.and_then(|size| last?.checked_div(size));
    packages.and_then(|packages| packages.checked_mul(share.of.into())).ok_or(MoneyError::Overflow)
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
