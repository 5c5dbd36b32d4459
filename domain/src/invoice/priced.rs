//! Which prices are in force in a period, and which usage each of them charges.

use rust_decimal::Decimal;

use super::{
    InvoiceError, Unpriced, Usage, Used,
    stretch::{Stretch, Sums},
};
use crate::{limit::Unit, plan::PlanTerms, price::Price};

/// A price, what was used while it was in force, and for how many quarter hours that was.
pub(super) struct Priced<'a> {
    pub(super) price: &'a Price,
    /// Which one of the equal prices in its plan it is.
    occurrence: usize,
    /// The discount that its plan gives on it.
    pub(super) plan_discount: Option<Decimal>,
    pub(super) quantity: u64,
    pub(super) quarters: u32,
}

/// Each price of the stretches once, in the order in which they come up, and the usage that none of
/// them charges.
pub(super) fn in_force<'a>(
    stretches: &[Stretch<'a>],
    used: &[Sums<'_>],
) -> Result<(Vec<Priced<'a>>, Vec<Unpriced>), InvoiceError> {
    let (mut all, places) = distinct(stretches);
    let mut unpriced = Sums::new();
    for ((stretch, used), places) in stretches.iter().zip(used).zip(places) {
        let quantities = charged(&stretch.terms.prices, used, &mut unpriced)?;
        for (place, quantity) in places.into_iter().zip(quantities) {
            let Some(known) = all.get_mut(place) else { continue };
            known.quantity = known
                .quantity
                .checked_add(quantity)
                .ok_or_else(|| InvoiceError::too_large(&known.price.name))?;
        }
    }
    let unpriced = unpriced
        .into_iter()
        .map(|((meter, model), used)| Unpriced {
            meter: meter.clone(),
            model: model.to_owned(),
            used,
        })
        .collect();
    Ok((all, unpriced))
}

/// Each price of the stretches once, without usage, and where each price of each stretch is among them. The
/// same price with another discount of the plan is another one.
fn distinct<'a>(stretches: &[Stretch<'a>]) -> (Vec<Priced<'a>>, Vec<Vec<usize>>) {
    let mut all: Vec<Priced<'a>> = Vec::new();
    let mut place_in = |stretch: &Stretch<'a>| {
        let PlanTerms { prices, discount_percent, .. } = stretch.terms;
        let places = prices.iter().enumerate().map(|(index, price)| {
            let occurrence = prices.iter().take(index).filter(|other| *other == price).count();
            let known = all.iter().position(|known| {
                (known.price, known.occurrence, known.plan_discount)
                    == (price, occurrence, *discount_percent)
            });
            let place = known.unwrap_or(all.len());
            match all.get_mut(place) {
                Some(known) => known.quarters += stretch.quarters,
                None => all.push(Priced {
                    price,
                    occurrence,
                    plan_discount: *discount_percent,
                    quantity: 0,
                    quarters: stretch.quarters,
                }),
            }
            place
        });
        places.collect()
    };
    let places = stretches.iter().map(&mut place_in).collect();
    (all, places)
}

/// Whether each of `usage` is counted by the `nth` price of those that [`in_force`] returns.
pub(super) fn counted_by(stretches: &[Stretch<'_>], nth: usize, usage: &[Usage]) -> Vec<bool> {
    let (_, places) = distinct(stretches);
    let is_counted = |row: &Usage| {
        let begun = stretches.partition_point(|stretch| stretch.from <= row.quarter);
        let Some((stretch, places)) =
            begun.checked_sub(1).and_then(|index| stretches.get(index).zip(places.get(index)))
        else {
            return false;
        };
        let prices = &stretch.terms.prices;
        let own = places.iter().position(|place| *place == nth).and_then(|own| prices.get(own));
        own.and_then(|price| Some((price, price.charge.unit()?))).is_some_and(|(price, unit)| {
            let names = |price: &Price| price.names(&row.meter, &row.model, unit);
            names(price).is_some() && names(price) == prices.iter().map(names).max().flatten()
        })
    };
    usage.iter().map(is_counted).collect()
}

/// How much each of `prices` charges of what was `used`; the rest goes to `unpriced`.
fn charged<'u>(
    prices: &[Price],
    used: &Sums<'u>,
    unpriced: &mut Sums<'u>,
) -> Result<Vec<u64>, InvoiceError> {
    let mut quantities = vec![0_u64; prices.len()];
    for ((meter, model), used) in used {
        let mut charge = |unit: Unit| {
            let best = prices.iter().map(|price| price.names(meter, model, unit)).max().flatten();
            // A plan that was written when prices could still tie charges by each of them.
            for (price, sum) in prices.iter().zip(&mut quantities) {
                if best.is_some() && price.names(meter, model, unit) == best {
                    *sum = sum
                        .checked_add(used.of(unit))
                        .ok_or_else(|| InvoiceError::too_large(&price.name))?;
                }
            }
            Ok(best.is_some())
        };
        let (tokens, requests) = (charge(Unit::Tokens)?, charge(Unit::Requests)?);
        let counts = |unit| prices.iter().any(|price| price.charge.unit() == Some(unit));
        let told = |charged: bool, unit| !charged && (counts(unit) || !(tokens || requests));
        let rest = Used {
            tokens: if told(tokens, Unit::Tokens) { used.tokens } else { 0 },
            requests: if told(requests, Unit::Requests) { used.requests } else { 0 },
        };
        if rest != Used::default() {
            let sum: &mut Used = unpriced.entry((*meter, *model)).or_default();
            *sum = sum.checked_add(rest).ok_or_else(|| InvoiceError::too_large(meter))?;
        }
    }
    Ok(quantities)
}
