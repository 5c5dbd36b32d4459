//! Prices: what a plan charges for a period, and for what was used in it.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{currency::Currency, id::Meter, limit::Unit, quantity::Quantity};

/// One price of a plan. It makes one line of the invoice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// What the invoice line says.
    pub name: String,
    /// Whose usage it charges; a flat charge ignores it.
    #[serde(default)]
    pub meter: Meter,
    pub charge: Charge,
}

/// How a price is computed. Amounts are decimals of the plan's currency, written as strings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Charge {
    /// The same for each period.
    Flat {
        #[serde(with = "rust_decimal::serde::str")]
        amount: Decimal,
    },
    /// Each unit past the included ones.
    PerUnit {
        unit: Unit,
        #[serde(with = "rust_decimal::serde::str")]
        unit_price: Decimal,
        #[serde(default)]
        included: Quantity,
    },
    /// Each unit past the included ones, at the price of the tier it falls in.
    Graduated {
        unit: Unit,
        tiers: Vec<Tier>,
        #[serde(default)]
        included: Quantity,
    },
}

/// A tier: from the end of the tier before to `up_to`, counted without the included units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// The last unit in this tier; `None` (in the last tier only) for all the rest.
    pub up_to: Option<Quantity>,
    #[serde(with = "rust_decimal::serde::str")]
    pub unit_price: Decimal,
}

/// What is wrong with a price.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PriceError {
    #[error("name must have 1 to 200 characters, and no control characters")]
    Name,
    #[error("{0} is negative; a price must be 0 or more")]
    Negative(Decimal),
    #[error("{0} has more than {MAX_DECIMALS} decimals")]
    TooFine(Decimal),
    #[error("{amount} is finer than the minor unit of {currency}")]
    BelowMinorUnit { amount: Decimal, currency: Currency },
    #[error("tiers must not be empty")]
    NoTiers,
    #[error("tiers[{0}].up_to must be larger than that of the tier before")]
    TierOrder(usize),
    #[error("tiers[{0}].up_to must be null in the last tier, and only there")]
    OpenTier(usize),
}

/// The most decimals in a unit price.
pub const MAX_DECIMALS: u32 = 12;

impl Price {
    /// Whether the price can be computed, in `currency`.
    pub fn check(&self, currency: Currency) -> Result<(), PriceError> {
        let characters = self.name.chars().count();
        if !(1..=200).contains(&characters) || self.name.contains(char::is_control) {
            return Err(PriceError::Name);
        }
        match &self.charge {
            Charge::Flat { amount } => {
                check_amount(*amount)?;
                if amount.normalize().scale() > currency.minor_digits() {
                    return Err(PriceError::BelowMinorUnit { amount: *amount, currency });
                }
                Ok(())
            }
            Charge::PerUnit { unit_price, .. } => check_amount(*unit_price),
            Charge::Graduated { tiers, .. } => check_tiers(tiers),
        }
    }
}

impl Charge {
    /// What it counts; a flat charge counts nothing.
    pub fn unit(&self) -> Option<Unit> {
        match self {
            Self::Flat { .. } => None,
            Self::PerUnit { unit, .. } | Self::Graduated { unit, .. } => Some(*unit),
        }
    }

    /// Its `kind`, as it is written in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Flat { .. } => "flat",
            Self::PerUnit { .. } => "per_unit",
            Self::Graduated { .. } => "graduated",
        }
    }
}

fn check_amount(amount: Decimal) -> Result<(), PriceError> {
    if amount.is_sign_negative() && !amount.is_zero() {
        return Err(PriceError::Negative(amount));
    }
    if amount.normalize().scale() > MAX_DECIMALS {
        return Err(PriceError::TooFine(amount));
    }
    Ok(())
}

fn check_tiers(tiers: &[Tier]) -> Result<(), PriceError> {
    let Some(last) = tiers.len().checked_sub(1) else {
        return Err(PriceError::NoTiers);
    };
    let mut end = Quantity::ZERO;
    for (index, tier) in tiers.iter().enumerate() {
        check_amount(tier.unit_price)?;
        match tier.up_to {
            None if index == last => {}
            Some(up_to) if index < last => {
                if up_to <= end {
                    return Err(PriceError::TierOrder(index));
                }
                end = up_to;
            }
            None | Some(_) => return Err(PriceError::OpenTier(index)),
        }
    }
    Ok(())
}
