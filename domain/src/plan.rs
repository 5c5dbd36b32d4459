//! A plan: limits and prices together, checked before they are written.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    billing_period::Cadence,
    currency::Currency,
    limit::{Limit, LimitError},
    price::{self, Price, PriceError},
};

/// The most limits in one plan: one script decides over all of them.
pub const MAX_LIMITS: usize = 16;
/// The most prices in one plan.
pub const MAX_PRICES: usize = 100;

/// What a plan says; a change makes a new version of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PlanTerms {
    pub currency: Currency,
    /// All of them hold. Without limits, everything is admitted and counted.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// Each makes an invoice line.
    #[serde(default)]
    pub prices: Vec<Price>,
    /// This much less than what all prices charge, in percent; a line of its own.
    #[serde(
        default,
        with = "rust_decimal::serde::str_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub discount_percent: Option<Decimal>,
    /// The least that a whole period costs, after discounts; what is missing is a line of its own.
    #[serde(
        default,
        with = "rust_decimal::serde::str_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub minimum: Option<Decimal>,
    /// How long billing periods are; they begin at midnight of the tenant's zone. A change counts from
    /// the next period.
    #[serde(default, skip_serializing_if = "Cadence::is_default")]
    pub billing_period: Cadence,
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
    #[error(
        "prices[{0}] charges the same meter, unit and model already; make one price of both, or name another meter or model"
    )]
    Tie(usize),
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
            let mut earlier = self.prices.iter().take(index);
            if let Some(tie) = earlier.position(|earlier| earlier.ties_with(price)) {
                return Err(at(format!("prices[{index}]"))(PlanErrorCause::Tie(tie)));
            }
        }
        let field = |field: &str| {
            let field = field.to_owned();
            move |error: PriceError| PlanError { field, cause: error.into() }
        };
        if let Some(percent) = self.discount_percent {
            price::check_percent(percent).map_err(field("discount_percent"))?;
        }
        if let Some(minimum) = self.minimum {
            price::check_whole(minimum, self.currency).map_err(field("minimum"))?;
        }
        Ok(())
    }
}
