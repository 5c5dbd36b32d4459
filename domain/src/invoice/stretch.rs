//! The parts of a period in which the terms stay the same, and what was used in each.

use std::collections::BTreeMap;

use super::{InvoiceError, TermsFrom, Usage, Used};
use crate::{
    billing_period::{BillingPeriod, Quarter, quarters},
    currency::Currency,
    id::Meter,
    plan::PlanTerms,
};

/// A part of the period with the same terms throughout.
pub(super) struct Stretch<'a> {
    pub(super) from: Quarter,
    pub(super) quarters: u32,
    pub(super) terms: &'a PlanTerms,
}

pub(super) fn stretches(
    period: BillingPeriod,
    terms: &[TermsFrom],
) -> Result<Vec<Stretch<'_>>, InvoiceError> {
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

pub(super) fn currency_of(stretches: &[Stretch<'_>]) -> Result<Currency, InvoiceError> {
    let mut currencies = stretches.iter().map(|stretch| stretch.terms.currency);
    let first = currencies.next().ok_or(InvoiceError::NoTerms)?;
    match currencies.find(|other| *other != first) {
        Some(other) => Err(InvoiceError::Currencies(first, other)),
        None => Ok(first),
    }
}

/// What was used of each meter and model.
pub(super) type Sums<'a> = BTreeMap<(&'a Meter, &'a str), Used>;

/// The usage of each stretch.
pub(super) fn used_per_stretch<'a>(
    period: BillingPeriod,
    stretches: &[Stretch<'_>],
    usage: &'a [Usage],
) -> Result<Vec<Sums<'a>>, InvoiceError> {
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
            .entry((&row.meter, row.model.as_str()))
            .or_default();
        *sum = sum.checked_add(row.used).ok_or_else(|| InvoiceError::too_large(&row.meter))?;
    }
    Ok(sums)
}
