//! What differs between an invoice and the same at a provider.

use rust_decimal::Decimal;
use weir_domain::money::Money;

use super::report::Difference;
use crate::provider::listed::{Listed, Status};

/// An invoice of ours that is, or should be, at the provider.
#[derive(Debug)]
pub(super) struct Ours {
    pub(super) invoice: i64,
    pub(super) number: Option<String>,
    pub(super) tenant: String,
    pub(super) period: (jiff_sqlx::Timestamp, jiff_sqlx::Timestamp),
    pub(super) total: Money,
    /// What credit notes have taken off it.
    pub(super) credited: Money,
    pub(super) state: String,
    pub(super) is_delivered: bool,
    /// Whether it is one of those that are to be compared.
    pub(super) in_scope: bool,
}

/// A value, as it is here and at the provider.
pub(super) type Value = (&'static str, Option<String>, Option<String>);

/// What differs of an invoice that is known here.
pub(super) fn values(ours: &Ours, theirs: Option<&Listed>) -> Vec<Value> {
    let mut values = Vec::new();
    let is_void = ours.state == "void";
    if !ours.is_delivered {
        return values;
    }
    let Some(theirs) = theirs else {
        // One that was void before it was finalized is deleted.
        if !is_void {
            values.push(("the invoice", Some(ours.state.clone()), None));
        }
        return values;
    };
    let agrees = match theirs.status {
        Status::Void => is_void,
        Status::Paid => ours.state == "paid",
        Status::Open => !is_void && ours.state != "paid",
        Status::Draft => false,
    };
    if !agrees {
        values.push(("state", Some(ours.state.clone()), Some(theirs.status.as_str().to_owned())));
    }
    let currency = ours.total.currency();
    if !is_void && (theirs.total != ours.total.decimal() || theirs.currency != currency.as_str()) {
        let amount = |amount: Decimal, currency: &str| Some(format!("{amount} {currency}"));
        values.push((
            "total",
            amount(ours.total.decimal(), currency.as_str()),
            amount(theirs.total, &theirs.currency),
        ));
    }
    if !is_void && theirs.credited != ours.credited.decimal() {
        let amount = |amount: Decimal| Some(format!("{amount} {}", currency.as_str()));
        values.push(("credited", amount(ours.credited.decimal()), amount(theirs.credited)));
    }
    values
}

impl Ours {
    pub(super) fn difference(&self, (what, first, second): Value) -> Difference {
        let number = |text: &Option<String>| {
            text.as_ref()?.split_once(' ').and_then(|(amount, _)| amount.parse::<Decimal>().ok())
        };
        let difference = number(&first)
            .zip(number(&second))
            .and_then(|(first, second)| first.checked_sub(second))
            .map(|difference| difference.to_string());
        Difference {
            tenant: Some(self.tenant.clone()),
            invoice: Some(self.invoice),
            number: self.number.clone(),
            from: self.period.0.to_jiff(),
            to: self.period.1.to_jiff(),
            what: what.to_owned(),
            first,
            second,
            difference,
        }
    }
}
