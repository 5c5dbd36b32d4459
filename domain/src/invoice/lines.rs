//! From prices to lines: what each charges, discounts, and what is missing to minimums.

use rust_decimal::Decimal;

use super::{
    InvoiceError, Line, Rule, Share, Subject, charge, priced::Priced, stretch::Stretch, sum,
};
use crate::{
    billing_period::BillingPeriod,
    currency::Currency,
    money::{Money, MoneyError},
    price,
};

/// The lines of an invoice, as they come.
pub(super) struct Lines {
    period: BillingPeriod,
    currency: Currency,
    lines: Vec<Line>,
    /// What each discount of a plan is taken from, in the order in which they come up.
    discounted: Vec<(Decimal, Money)>,
}

impl Lines {
    pub(super) fn new(period: BillingPeriod, currency: Currency) -> Self {
        Self { period, currency, lines: Vec::new(), discounted: Vec::new() }
    }

    pub(super) fn into_vec(self) -> Vec<Line> {
        self.lines
    }

    /// What a price charges, with its discount and its minimum.
    pub(super) fn charge(&mut self, priced: &Priced<'_>) -> Result<(), InvoiceError> {
        let price = priced.price;
        let failed = |cause| InvoiceError::Line { name: price.name.clone(), cause };
        let first = self.lines.len();
        price
            .check(self.currency)
            .map_err(|cause| InvoiceError::Price { name: price.name.clone(), cause })?;
        let share = Share { quarters: priced.quarters, of: self.period.quarters() };
        let amount =
            charge::amount(&price.charge, priced.quantity, share, self.currency).map_err(failed)?;
        let subject = Subject::Price { price: price.clone(), quantity: priced.quantity, share };
        self.lines.push(Line { subject, amount });
        let mut net = amount;
        if let Some(percent) = price.discount_percent {
            net = self.discount(Some(&price.name), percent, net).map_err(failed)?;
        }
        if let Some(minimum) = price.minimum {
            let minimum = charge::in_parts([(share.quarters, minimum)], share.of, self.currency);
            self.minimum(Some(&price.name), minimum.map_err(failed)?, net).map_err(failed)?;
        }
        let own = self.lines.get(first..).unwrap_or_default();
        let net = sum(own, self.currency).map_err(failed)?;
        if let Some(percent) = priced.plan_discount {
            match self.discounted.iter_mut().find(|(known, _)| *known == percent) {
                Some((_, base)) => *base = base.checked_add(net).map_err(failed)?,
                None => self.discounted.push((percent, net)),
            }
        }
        Ok(())
    }

    /// The discounts and the minimum of the plans of all stretches, once all prices are charged.
    pub(super) fn finish_plan(&mut self, stretches: &[Stretch<'_>]) -> Result<(), InvoiceError> {
        for (percent, base) in std::mem::take(&mut self.discounted) {
            price::check_percent(percent).map_err(InvoiceError::Plan)?;
            self.discount(None, percent, base).map_err(InvoiceError::Total)?;
        }
        let minimums: Vec<_> = stretches
            .iter()
            .filter_map(|stretch| Some((stretch.quarters, stretch.terms.minimum?)))
            .collect();
        for (_, minimum) in &minimums {
            price::check_whole(*minimum, self.currency).map_err(InvoiceError::Plan)?;
        }
        if !minimums.is_empty() {
            let reached = sum(&self.lines, self.currency).map_err(InvoiceError::Total)?;
            charge::in_parts(minimums, self.period.quarters(), self.currency)
                .and_then(|minimum| self.minimum(None, minimum, reached))
                .map_err(InvoiceError::Total)?;
        }
        Ok(())
    }

    /// Takes `percent` off `of`; what is left.
    fn discount(
        &mut self,
        price: Option<&str>,
        percent: Decimal,
        of: Money,
    ) -> Result<Money, MoneyError> {
        let zero = Money::zero(self.currency);
        let amount = zero.checked_sub(charge::percent_of(percent, of)?)?;
        if amount != zero {
            let price = price.map(str::to_owned);
            let rule = Rule::Discount { price, percent, of };
            self.lines.push(Line { subject: Subject::Rule(rule), amount });
        }
        of.checked_add(amount)
    }

    /// Adds what is missing of what was `reached`.
    fn minimum(
        &mut self,
        price: Option<&str>,
        minimum: Money,
        reached: Money,
    ) -> Result<(), MoneyError> {
        let amount = minimum.checked_sub(reached)?;
        if amount.minor() > 0 {
            let price = price.map(str::to_owned);
            let rule = Rule::Minimum { price, minimum, reached };
            self.lines.push(Line { subject: Subject::Rule(rule), amount });
        }
        Ok(())
    }
}
