//! What a tenant owes for a billing period: a pure function of the terms, the usage, the period and
//! the adjustments.
//!
//! **Terms that change within a period.** Everything that a plan says about a period (a flat amount,
//! included units, the ends of tiers) is for a whole billing period. A price that was in force for a
//! part of its quarter hours gets that share of each, and charges what was used in them. So a price
//! that both plans have in common is one line, as if nothing had changed, and a change of limits
//! alone leaves the invoice alone. A billing period is whole however short it is. A plan's minimum
//! counts by its share too: the shares of all minimums of the period add up to one.
//!
//! **Which price charges what.** Usage of a meter, model and unit is charged by the price that names
//! the model most precisely; by the one without a model where none does. What no price names costs
//! nothing and is told in [`Invoice::unpriced`].
//!
//! **Order.** Of each price: its charge, then its discount, then what is missing to its minimum. Of
//! the plan, from the sum of those: its discount, then what is missing to its minimum. So a minimum
//! is what is paid at least. Adjustments come after it, and count in none of it. Credits come last, and pay what
//! is to be paid then ([`grants`]).
//!
//! **Rounding.** A line is computed exactly and rounded once, half to even, to the currency's minor
//! unit. The total is the sum of the lines as they stand there.

mod charge;
pub mod grants;
mod lines;
mod priced;
#[cfg(test)]
mod properties;
mod stretch;
#[cfg(test)]
mod tests;

use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use thiserror::Error;

use self::{grants::GrantKind, lines::Lines};
use crate::{
    billing_period::{BillingPeriod, Quarter},
    currency::Currency,
    id::Meter,
    limit::Unit,
    money::{Money, MoneyError},
    plan::PlanTerms,
    price::{Price, PriceError},
};

/// Terms, and from when they hold: until the next ones, or the end of the period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TermsFrom {
    pub from: Quarter,
    pub terms: PlanTerms,
}

/// Rolled-up usage. How it is split over rows doesn't matter, as long as each row lies in a quarter
/// hour with the same terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    pub quarter: Quarter,
    pub meter: Meter,
    /// Empty where no model is known.
    pub model: String,
    pub used: Used,
}

/// Tokens and requests, summed over a period; unlike a [`crate::quantity::Quantity`], a sum may go
/// past 2⁵³.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    pub tokens: u64,
    pub requests: u64,
}

/// What an earlier, closed period costs more (or less) than what was invoiced for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adjustment {
    pub period: BillingPeriod,
    pub amount: Money,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    pub period: BillingPeriod,
    pub lines: Vec<Line>,
    /// The sum of the lines.
    pub total: Money,
    /// Usage of the period that no price charges, by meter and model.
    pub unpriced: Vec<Unpriced>,
}

/// Usage that no price names. A unit that the plan charges nowhere is told only where the other one
/// is not charged either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpriced {
    pub meter: Meter,
    pub model: String,
    /// Only what is not charged.
    pub used: Used,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub subject: Subject,
    pub amount: Money,
}

/// What a line is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    Price {
        price: Price,
        /// How much was used while the price was in force, in its unit; 0 for a flat one.
        quantity: u64,
        /// For which part of the period the price was in force.
        share: Share,
    },
    /// What follows from the lines before it.
    Rule(Rule),
    /// Usage of an earlier period that arrived after its invoice.
    Adjustment { period: BillingPeriod },
}

/// A discount, what is missing to a minimum, or a credit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// `percent` less than `of`.
    Discount {
        /// The name of the price; `None` for the plan's.
        price: Option<String>,
        percent: Decimal,
        of: Money,
    },
    /// What is missing to the least that is to be paid.
    Minimum {
        /// The name of the price; `None` for the plan's.
        price: Option<String>,
        /// For the part of the period in which it was in force.
        minimum: Money,
        reached: Money,
    },
    /// What a grant pays of it.
    Credit { grant: i64, kind: GrantKind, description: String },
}

/// A part of a period: `quarters` of its `of` quarter hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub quarters: u32,
    pub of: u32,
}

/// Why there is no invoice.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvoiceError {
    #[error("no terms are in force at the start of the billing period")]
    NoTerms,
    #[error("the terms are not in the order of their start")]
    TermsOrder,
    #[error("the terms of one billing period are in {0} and {1}; end the period at the change")]
    Currencies(Currency, Currency),
    #[error("the price {name:?} can't be charged: {cause}")]
    Price { name: String, cause: PriceError },
    #[error("the plan's discount or minimum can't be charged: {0}")]
    Plan(PriceError),
    #[error("usage at {0} lies outside the billing period")]
    OutsidePeriod(jiff::Timestamp),
    #[error("{name:?}: {cause}")]
    Line { name: String, cause: MoneyError },
    #[error("total: {0}")]
    Total(MoneyError),
}

impl Subject {
    /// What the line says, with times as they are in `zone`.
    pub fn name(&self, zone: &TimeZone) -> String {
        match self {
            Self::Price { price, .. } => price.name.clone(),
            Self::Rule(rule) => rule.name(),
            Self::Adjustment { period } => {
                let [start, end] = [period.start(), period.end()]
                    .map(|at| zone.to_datetime(at.start()).strftime("%-d %b %Y, %H:%M"));
                format!("Late or corrected usage of {start} to {end}")
            }
        }
    }
}

impl Rule {
    fn name(&self) -> String {
        let (price, rule) = match self {
            Self::Credit { description, .. } => return description.clone(),
            Self::Discount { price, percent, .. } => {
                (price, format!("Discount of {} %", percent.normalize()))
            }
            Self::Minimum { price, minimum, .. } => {
                (price, format!("Up to the minimum of {minimum}"))
            }
        };
        price.as_ref().map_or_else(|| rule.clone(), |price| format!("{price}: {rule}"))
    }
}

impl InvoiceError {
    /// A sum that does not fit.
    fn too_large(name: impl ToString) -> Self {
        Self::Line { name: name.to_string(), cause: MoneyError::Overflow }
    }
}

impl Used {
    /// The sum, or `None` past 2⁶⁴ − 1.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Some(Self {
            tokens: self.tokens.checked_add(other.tokens)?,
            requests: self.requests.checked_add(other.requests)?,
        })
    }

    pub fn of(self, unit: Unit) -> u64 {
        match unit {
            Unit::Tokens => self.tokens,
            Unit::Requests => self.requests,
        }
    }
}

/// Draws the invoice of `period` up. `terms` are in the order of their start, the first of them in
/// force when the period starts.
pub fn draw_up(
    period: BillingPeriod,
    terms: &[TermsFrom],
    usage: &[Usage],
    adjustments: &[Adjustment],
) -> Result<Invoice, InvoiceError> {
    let stretches = stretch::stretches(period, terms)?;
    let currency = stretch::currency_of(&stretches)?;
    let used = stretch::used_per_stretch(period, &stretches, usage)?;
    let (prices, unpriced) = priced::in_force(&stretches, &used)?;
    let mut lines = Lines::new(period, currency);
    for price in &prices {
        lines.charge(price)?;
    }
    lines.finish_plan(&stretches)?;
    let mut lines = lines.into_vec();
    lines.extend(adjustments.iter().map(|adjustment| Line {
        subject: Subject::Adjustment { period: adjustment.period },
        amount: adjustment.amount,
    }));
    let total = sum(&lines, currency).map_err(InvoiceError::Total)?;
    Ok(Invoice { period, lines, total, unpriced })
}

/// Whether each of `usage`, which lies in `period`, is counted by the `nth` of the invoice's lines that
/// charge a price, from 0.
pub fn counted_by(
    period: BillingPeriod,
    terms: &[TermsFrom],
    nth: usize,
    usage: &[Usage],
) -> Result<Vec<bool>, InvoiceError> {
    Ok(priced::counted_by(&stretch::stretches(period, terms)?, nth, usage))
}

fn sum(lines: &[Line], currency: Currency) -> Result<Money, MoneyError> {
    lines.iter().try_fold(Money::zero(currency), |sum, line| sum.checked_add(line.amount))
}

/// What `period` costs more with `now` than with what was `billed`, by the terms that it was billed
/// with; `None` if it costs the same.
pub fn adjust(
    period: BillingPeriod,
    terms: &[TermsFrom],
    billed: &[Usage],
    now: &[Usage],
) -> Result<Option<Adjustment>, InvoiceError> {
    let before = draw_up(period, terms, billed, &[])?.total;
    let amount =
        draw_up(period, terms, now, &[])?.total.checked_sub(before).map_err(InvoiceError::Total)?;
    Ok((amount.minor() != 0).then_some(Adjustment { period, amount }))
}
