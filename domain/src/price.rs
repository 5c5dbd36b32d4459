//! Prices: what a plan charges for a period, and for what was used in it.

mod model;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use model::{ModelPattern, ModelPatternError};

use crate::{currency::Currency, id::Meter, limit::Unit, quantity::Quantity};

/// One price of a plan. It makes one line of the invoice, and one more each for its discount and its
/// minimum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// What the invoice line says.
    pub name: String,
    /// Whose usage it charges; a flat charge ignores it.
    #[serde(default)]
    pub meter: Meter,
    /// A model's name or, with `*` at the end, its beginning. Usage is charged by the price of its
    /// meter and unit that names its model most precisely; by the one without `model` where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelPattern>,
    pub charge: Charge,
    /// This much less than what it charges, in percent; a line of its own.
    #[serde(
        default,
        with = "rust_decimal::serde::str_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub discount_percent: Option<Decimal>,
    /// The least that a whole period costs by this price, after the discount; what is missing is a
    /// line of its own.
    #[serde(
        default,
        with = "rust_decimal::serde::str_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub minimum: Option<Decimal>,
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
    /// All units past the included ones at one price: that of the tier that the last of them falls
    /// in. So a little more usage may cost less.
    Volume {
        unit: Unit,
        tiers: Vec<Tier>,
        #[serde(default)]
        included: Quantity,
    },
    /// Each package of units past the included ones; one that is started counts whole.
    Package {
        unit: Unit,
        /// How many units a package has, at least 1.
        package_size: Quantity,
        #[serde(with = "rust_decimal::serde::str")]
        package_price: Decimal,
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
    #[error(
        "a discount of {0} percent can't be given; it must be more than 0 and at most 100, with at most {MAX_PERCENT_DECIMALS} decimals"
    )]
    Percent(Decimal),
    #[error("package_size must be 1 or more")]
    EmptyPackage,
    #[error("a flat price counts no usage; leave `model` and `minimum` out")]
    CountsNothing,
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
/// The most decimals in a percentage.
pub const MAX_PERCENT_DECIMALS: u32 = 6;

impl Price {
    /// Whether the price can be computed, in `currency`.
    pub fn check(&self, currency: Currency) -> Result<(), PriceError> {
        let characters = self.name.chars().count();
        if !(1..=200).contains(&characters) || self.name.contains(char::is_control) {
            return Err(PriceError::Name);
        }
        if self.charge.unit().is_none() && (self.model.is_some() || self.minimum.is_some()) {
            return Err(PriceError::CountsNothing);
        }
        self.discount_percent.map_or(Ok(()), check_percent)?;
        self.minimum.map_or(Ok(()), |minimum| check_whole(minimum, currency))?;
        match &self.charge {
            Charge::Flat { amount } => check_whole(*amount, currency),
            Charge::PerUnit { unit_price, .. } => check_amount(*unit_price),
            Charge::Graduated { tiers, .. } | Charge::Volume { tiers, .. } => check_tiers(tiers),
            Charge::Package { package_size, .. } if package_size.is_zero() => {
                Err(PriceError::EmptyPackage)
            }
            Charge::Package { package_price, .. } => check_amount(*package_price),
        }
    }

    /// How precisely it names usage: of all prices that charge it, those with the greatest answer do.
    /// `None` if it does not charge it at all.
    pub fn names(&self, meter: &Meter, model: &str, unit: Unit) -> Option<impl Ord + use<>> {
        if self.charge.unit() != Some(unit) || self.meter != *meter {
            return None;
        }
        match &self.model {
            None => Some(None),
            Some(pattern) => pattern.matches(model).then(|| Some(pattern.specificity())),
        }
    }

    /// Whether it charges the same usage as `other`, so that no plan may have both: the same meter,
    /// unit and model.
    pub fn ties_with(&self, other: &Self) -> bool {
        self.charge.unit().is_some()
            && self.charge.unit() == other.charge.unit()
            && (&self.meter, &self.model) == (&other.meter, &other.model)
    }
}

impl Charge {
    /// What it counts; a flat charge counts nothing.
    pub fn unit(&self) -> Option<Unit> {
        match self {
            Self::Flat { .. } => None,
            Self::PerUnit { unit, .. }
            | Self::Graduated { unit, .. }
            | Self::Volume { unit, .. }
            | Self::Package { unit, .. } => Some(*unit),
        }
    }

    /// Its `kind`, as it is written in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Flat { .. } => "flat",
            Self::PerUnit { .. } => "per_unit",
            Self::Graduated { .. } => "graduated",
            Self::Volume { .. } => "volume",
            Self::Package { .. } => "package",
        }
    }
}

/// An amount that stands on an invoice as it is.
pub(crate) fn check_whole(amount: Decimal, currency: Currency) -> Result<(), PriceError> {
    check_amount(amount)?;
    if amount.normalize().scale() > currency.minor_digits() {
        return Err(PriceError::BelowMinorUnit { amount, currency });
    }
    Ok(())
}

pub(crate) fn check_percent(percent: Decimal) -> Result<(), PriceError> {
    let fine = percent.normalize().scale() > MAX_PERCENT_DECIMALS;
    if fine || percent <= Decimal::ZERO || percent > Decimal::ONE_HUNDRED {
        return Err(PriceError::Percent(percent));
    }
    Ok(())
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
