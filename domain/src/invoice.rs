//! What a tenant owes for a billing period: a pure function of the terms, the usage, the period and
//! the adjustments.
//!
//! **Terms that change within a period.** Everything that a plan says about a period (a flat amount,
//! included units, the ends of tiers) is for a whole billing period. A price that was in force for a
//! part of its quarter hours gets that share of each, and charges what was used in them. So a price
//! that both plans have in common is one line, as if nothing had changed, and a change of limits
//! alone leaves the invoice alone. A billing period is whole however short it is.
//!
//! **Rounding.** A line is computed exactly and rounded once, half to even, to the currency's minor
//! unit. The total is the sum of the lines as they stand there.

mod charge;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use thiserror::Error;

use crate::{
    billing_period::{BillingPeriod, Quarter, quarters},
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
    /// Usage of an earlier period that arrived after its invoice.
    Adjustment { period: BillingPeriod },
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
    #[error("usage at {0} lies outside the billing period")]
    OutsidePeriod(jiff::Timestamp),
    #[error("{name:?}: {cause}")]
    Line { name: String, cause: MoneyError },
    #[error("total: {0}")]
    Total(MoneyError),
}

impl Subject {
    /// What the line says.
    pub fn name(&self) -> String {
        match self {
            Self::Price { price, .. } => price.name.clone(),
            Self::Adjustment { period } => {
                format!("Late usage of {} to {}", period.start().start(), period.end().start())
            }
        }
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
/// force when the period starts; each price makes a line, each adjustment one more.
pub fn draw_up(
    period: BillingPeriod,
    terms: &[TermsFrom],
    usage: &[Usage],
    adjustments: &[Adjustment],
) -> Result<Invoice, InvoiceError> {
    let stretches = stretches(period, terms)?;
    let currency = currency_of(&stretches)?;
    let used = used_per_stretch(period, &stretches, usage)?;
    let mut lines = Vec::new();
    for priced in prices_in_force(&stretches, &used)? {
        lines.push(priced.line(period, currency)?);
    }
    lines.extend(adjustments.iter().map(|adjustment| Line {
        subject: Subject::Adjustment { period: adjustment.period },
        amount: adjustment.amount,
    }));
    let total = lines
        .iter()
        .try_fold(Money::zero(currency), |sum, line| sum.checked_add(line.amount))
        .map_err(InvoiceError::Total)?;
    Ok(Invoice { period, lines, total })
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

/// A part of the period with the same terms throughout.
struct Stretch<'a> {
    from: Quarter,
    quarters: u32,
    terms: &'a PlanTerms,
}

fn stretches(period: BillingPeriod, terms: &[TermsFrom]) -> Result<Vec<Stretch<'_>>, InvoiceError> {
    if terms.first().is_none_or(|first| first.from > period.start()) {
        return Err(InvoiceError::NoTerms);
    }
    if !terms.is_sorted_by(|earlier, later| earlier.from < later.from) {
        return Err(InvoiceError::TermsOrder);
    }
    let ends = terms.iter().skip(1).map(|next| next.from.min(period.end())).chain([period.end()]);
    Ok(terms
        .iter()
        .zip(ends)
        .map(|(TermsFrom { from, terms }, end)| {
            let from = (*from).max(period.start());
            Stretch { from, quarters: quarters(from, end), terms }
        })
        .filter(|stretch| stretch.quarters > 0)
        .collect())
}

fn currency_of(stretches: &[Stretch<'_>]) -> Result<Currency, InvoiceError> {
    let mut currencies = stretches.iter().map(|stretch| stretch.terms.currency);
    let first = currencies.next().ok_or(InvoiceError::NoTerms)?;
    match currencies.find(|other| *other != first) {
        Some(other) => Err(InvoiceError::Currencies(first, other)),
        None => Ok(first),
    }
}

/// The usage of each stretch, per meter.
fn used_per_stretch<'a>(
    period: BillingPeriod,
    stretches: &[Stretch<'_>],
    usage: &'a [Usage],
) -> Result<Vec<BTreeMap<&'a Meter, Used>>, InvoiceError> {
    let mut sums = vec![BTreeMap::new(); stretches.len()];
    for row in usage {
        let outside = || InvoiceError::OutsidePeriod(row.quarter.start());
        if !period.contains(row.quarter) {
            return Err(outside());
        }
        let begun = stretches.partition_point(|stretch| stretch.from <= row.quarter);
        let sum: &mut Used = begun
            .checked_sub(1)
            .and_then(|index| sums.get_mut(index))
            .ok_or_else(outside)?
            .entry(&row.meter)
            .or_default();
        *sum = sum.checked_add(row.used).ok_or_else(|| InvoiceError::Line {
            name: row.meter.to_string(),
            cause: MoneyError::Overflow,
        })?;
    }
    Ok(sums)
}

/// A price, what was used while it was in force, and for how many quarter hours that was.
struct Priced<'a> {
    price: &'a Price,
    /// Which one of the equal prices in its plan it is.
    occurrence: usize,
    quantity: u64,
    quarters: u32,
}

/// Each price of the stretches once, in the order in which they come up.
fn prices_in_force<'a>(
    stretches: &[Stretch<'a>],
    used: &[BTreeMap<&Meter, Used>],
) -> Result<Vec<Priced<'a>>, InvoiceError> {
    let mut all: Vec<Priced<'a>> = Vec::new();
    for (stretch, used) in stretches.iter().zip(used) {
        let prices = &stretch.terms.prices;
        for (index, price) in prices.iter().enumerate() {
            let occurrence = prices.iter().take(index).filter(|other| *other == price).count();
            let used = used.get(&price.meter).copied().unwrap_or_default();
            let quantity = price.charge.unit().map_or(0, |unit| used.of(unit));
            let known =
                all.iter_mut().find(|known| known.price == price && known.occurrence == occurrence);
            let Some(known) = known else {
                all.push(Priced { price, occurrence, quantity, quarters: stretch.quarters });
                continue;
            };
            known.quarters += stretch.quarters;
            known.quantity = known.quantity.checked_add(quantity).ok_or_else(|| {
                InvoiceError::Line { name: price.name.clone(), cause: MoneyError::Overflow }
            })?;
        }
    }
    Ok(all)
}

impl Priced<'_> {
    fn line(&self, period: BillingPeriod, currency: Currency) -> Result<Line, InvoiceError> {
        let name = || self.price.name.clone();
        self.price.check(currency).map_err(|cause| InvoiceError::Price { name: name(), cause })?;
        let share = Share { quarters: self.quarters, of: period.quarters() };
        let amount = charge::amount(&self.price.charge, self.quantity, share, currency)
            .map_err(|cause| InvoiceError::Line { name: name(), cause })?;
        let subject = Subject::Price { price: self.price.clone(), quantity: self.quantity, share };
        Ok(Line { subject, amount })
    }
}
