//! Credits: what a tenant has paid ahead or was given, and how an invoice uses it up.
//!
//! **Order.** What was given before what was paid, of those what expires first, then what is older. An
//! invoice takes from each until nothing is to be paid, and never more than is left.
//!
//! **Expiry.** A grant counts for the invoices of periods that end by then. When the invoice is made
//! does not matter.

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Invoice, InvoiceError, Line, Rule, Subject, sum};
use crate::{
    currency::Currency,
    money::{Money, MoneyError},
    price::{self, PriceError},
};

/// Where a grant comes from; in the order in which they are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum GrantKind {
    /// Given, such as to try or to make up for something.
    Promotional,
    /// Paid ahead.
    Prepaid,
}

/// An amount that pays for invoices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Smaller for older ones.
    pub id: i64,
    pub kind: GrantKind,
    /// What invoice lines say.
    pub description: String,
    pub expires_at: Option<Timestamp>,
    /// What no invoice has used; more than 0.
    pub left: Money,
}

/// Why an amount can't be granted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GrantError {
    #[error("a credit must be more than 0")]
    Nothing,
    #[error(transparent)]
    Price(#[from] PriceError),
    #[error(transparent)]
    Money(#[from] MoneyError),
}

/// `amount` units of the currency, as something to be granted: more than 0, in whole minor units.
pub fn granted(amount: Decimal, currency: Currency) -> Result<Money, GrantError> {
    price::check_whole(amount, currency)?;
    if amount.is_zero() {
        return Err(GrantError::Nothing);
    }
    let denominator = 10_i128.checked_pow(amount.scale()).ok_or(MoneyError::Overflow)?;
    Ok(Money::rounded(amount.mantissa(), denominator, currency)?)
}

impl Invoice {
    /// Takes what is to be paid from `grants`, as far as they go: a negative line for each that is
    /// used.
    pub fn pay_from(mut self, mut grants: Vec<Grant>) -> Result<Self, InvoiceError> {
        let currency = self.total.currency();
        let end = self.period.end().start();
        grants.retain(|grant| grant.expires_at.is_none_or(|expires| expires >= end));
        grants.sort_by_key(|grant| {
            (grant.kind, grant.expires_at.unwrap_or(Timestamp::MAX), grant.id)
        });
        let mut due = self.total;
        for grant in grants {
            let name = |cause| InvoiceError::Line { name: grant.description.clone(), cause };
            if grant.left.currency() != currency {
                return Err(name(MoneyError::Currencies(currency, grant.left.currency())));
            }
            let used = Money::new(due.minor().min(grant.left.minor()), currency);
            if used.minor() <= 0 {
                continue;
            }
            due = due.checked_sub(used).map_err(name)?;
            let amount = Money::zero(currency).checked_sub(used).map_err(name)?;
            let Grant { id: grant, kind, description, .. } = grant;
            let rule = Rule::Credit { grant, kind, description };
            self.lines.push(Line { subject: Subject::Rule(rule), amount });
        }
        self.total = sum(&self.lines, currency).map_err(InvoiceError::Total)?;
        Ok(self)
    }

    /// How much it has taken from which grants.
    pub fn paid_from(&self) -> impl Iterator<Item = (i64, Money)> {
        self.lines.iter().filter_map(|line| match &line.subject {
            Subject::Rule(Rule::Credit { grant, .. }) => {
                let currency = line.amount.currency();
                Some((*grant, Money::zero(currency).checked_sub(line.amount).ok()?))
            }
            _ => None,
        })
    }
}
