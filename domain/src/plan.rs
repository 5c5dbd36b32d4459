//! A plan: limits and prices together, checked before they are written.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    currency::Currency,
    limit::{Limit, LimitError},
    price::{Price, PriceError},
};

/// The most limits in one plan: one script decides over all of them.
pub const MAX_LIMITS: usize = 16;
/// The most prices in one plan.
pub const MAX_PRICES: usize = 100;

/// What a plan says; a change makes a new version of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanTerms {
    pub currency: Currency,
    /// All of them hold. Without limits, everything is admitted and counted.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// Each makes an invoice line.
    #[serde(default)]
    pub prices: Vec<Price>,
}

/// What is wrong with a plan, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {cause}")]
pub struct PlanError {
    /// Such as `limits[1].name`.
    pub field: String,
    pub cause: PlanErrorCause,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanErrorCause {
    #[error("a plan has at most {MAX_LIMITS} limits, this one has {0}")]
    TooManyLimits(usize),
    #[error("a plan has at most {MAX_PRICES} prices, this one has {0}")]
    TooManyPrices(usize),
    #[error("another limit of this plan has the same name")]
    DuplicateName,
    #[error(transparent)]
    Limit(#[from] LimitError),
    #[error(transparent)]
    Price(#[from] PriceError),
}

impl PlanTerms {
    /// Whether the plan can work at all; the first thing that is wrong, with its place.
    pub fn check(&self) -> Result<(), PlanError> {
        let at = |field: String| move |cause| PlanError { field, cause };
        if self.limits.len() > MAX_LIMITS {
            return Err(at("limits".into())(PlanErrorCause::TooManyLimits(self.limits.len())));
        }
        if self.prices.len() > MAX_PRICES {
            return Err(at("prices".into())(PlanErrorCause::TooManyPrices(self.prices.len())));
        }
        for (index, limit) in self.limits.iter().enumerate() {
            limit.check().map_err(|error| at(format!("limits[{index}]"))(error.into()))?;
            if self.limits.iter().take(index).any(|earlier| earlier.name == limit.name) {
                return Err(at(format!("limits[{index}].name"))(PlanErrorCause::DuplicateName));
            }
        }
        for (index, price) in self.prices.iter().enumerate() {
            price
                .check(self.currency)
                .map_err(|error| at(format!("prices[{index}]"))(error.into()))?;
        }
        Ok(())
    }
}
