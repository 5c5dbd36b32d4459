//! What a comparison has found, for programs and for people.

use std::fmt;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_domain::currency::Currency;

use super::Error;

/// All that was compared.
#[derive(Debug, Serialize, ToSchema)]
pub struct Report {
    pub sections: Vec<Section>,
}

impl Report {
    /// How many differences there are in all.
    pub fn differing(&self) -> i64 {
        self.sections.iter().map(|section| section.differing).sum()
    }
}

/// Two places that must say the same.
#[derive(Debug, Serialize, ToSchema)]
pub struct Section {
    pub check: Check,
    /// What the first place is.
    pub first: &'static str,
    /// What the second place is.
    pub second: &'static str,
    /// How many items were compared: sums, invoices, credits.
    pub compared: i64,
    /// How many values differ.
    pub differing: i64,
    /// The first of them, as many as were asked for.
    pub differences: Vec<Difference>,
    /// How many values differ for a reason that is known and passes: usage that came late and is billed
    /// with the next invoice, or invoices whose delivery goes on.
    pub awaited: i64,
    /// The first of them, where they are usage.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub awaited_differences: Vec<Difference>,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// Usage records and corrections, and the sums per quarter hour.
    Ledger,
    /// The sums per quarter hour, and what invoices have billed of closed periods.
    Billed,
    /// The sum of an invoice's lines, and its total.
    Lines,
    /// The lines of an invoice, and what its terms make of the quantities that it has billed.
    Priced,
    /// What invoices took of credits, by their lines and by the credits' own account.
    Credits,
    /// An invoice's credit notes, and its total: all of it where it is void, at most that elsewhere.
    CreditNotes,
    /// Where a billing period ends, and where the tenant's next one starts.
    Periods,
    /// Numbers of invoices and credit notes, which have no gaps.
    Numbers,
    /// Batches of usage that could not be stored.
    Quarantined,
    /// Usage before the start of a tenant's first billing period.
    BeforeFirst,
    /// Invoices here and at Stripe.
    Stripe,
    /// Invoices here and at Chargebee.
    Chargebee,
}

/// One value on which the places disagree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Difference {
    /// Null where it is about none, or about one that is not known here.
    pub tenant: Option<String>,
    /// The id of the invoice, where it is about one.
    pub invoice: Option<i64>,
    pub number: Option<String>,
    /// The quarter hour or the billing period.
    pub from: Timestamp,
    pub to: Timestamp,
    /// Which value it is.
    pub what: String,
    /// What the first place says, and the second; null where it says nothing.
    pub first: Option<String>,
    pub second: Option<String>,
    /// The first less the second, where they are numbers.
    pub difference: Option<String>,
}

/// A difference as the statements bring it. Amounts of money are in minor units.
#[derive(Debug, Deserialize)]
pub(super) struct Found {
    pub(super) tenant: Option<String>,
    pub(super) invoice: Option<i64>,
    pub(super) number: Option<String>,
    #[serde(rename = "from_at")]
    pub(super) from: Timestamp,
    #[serde(rename = "to_at")]
    pub(super) to: Timestamp,
    pub(super) what: String,
    pub(super) currency: Option<String>,
    pub(super) first: Option<String>,
    pub(super) second: Option<String>,
}

impl TryFrom<Found> for Difference {
    type Error = Error;

    fn try_from(found: Found) -> Result<Self, Error> {
        let Found { tenant, invoice, number, from, to, what, currency, first, second } = found;
        let digits = match &currency {
            Some(code) => Currency::new(code)
                .map_err(|error| Error::Stored(error.to_string()))?
                .minor_digits(),
            None => 0,
        };
        let value = |text: &Option<String>| text.as_ref().and_then(|text| scaled(text, digits));
        let difference = value(&first)
            .zip(value(&second))
            .and_then(|(first, second)| first.checked_sub(second))
            .map(|difference| difference.to_string());
        let shown = |text: Option<String>| match (&currency, value(&text)) {
            (Some(currency), Some(value)) => Some(format!("{value} {currency}")),
            _ => text,
        };
        let (first, second) = (shown(first), shown(second));
        Ok(Self { tenant, invoice, number, from, to, what, first, second, difference })
    }
}

/// A whole number of minor units as a number with so many digits behind the point.
fn scaled(text: &str, digits: u32) -> Option<Decimal> {
    Decimal::try_from_i128_with_scale(text.parse().ok()?, digits).ok()
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tenant, invoice, number, from, to, what, .. } = self;
        if let Some(tenant) = tenant {
            write!(f, "{tenant}, ")?;
        }
        match (number, invoice) {
            (Some(number), Some(id)) => write!(f, "{number} (id {id}), ")?,
            (None, Some(id)) => write!(f, "the invoice with id {id}, ")?,
            _ => {}
        }
        write!(f, "{from} to {to}, {what}")
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, second, compared, differing, awaited, .. } = self;
        let count = if *differing == 0 {
            "no difference".to_owned()
        } else {
            format!("{differing} DIFFER")
        };
        write!(f, "{first} and {second}: {compared} compared, {count}")?;
        if *awaited > 0 {
            let why = match self.check {
                Check::Stripe | Check::Chargebee => "not delivered yet, see weir's deliveries",
                _ => "not billed yet: usage came late, and the next invoice has it",
            };
            write!(f, "; {awaited} {why}")?;
        }
        let said = |text: &Option<String>| text.clone().unwrap_or_else(|| "nothing".to_owned());
        for (mark, list) in [("!", &self.differences), ("-", &self.awaited_differences)] {
            for one in list {
                let (a, b) = (said(&one.first), said(&one.second));
                write!(f, "\n  {mark} {one}: {first} {a}, {second} {b}")?;
                if let Some(difference) = &one.difference {
                    write!(f, ", difference {difference}")?;
                }
            }
        }
        for (count, list) in
            [(*differing, &self.differences), (*awaited, &self.awaited_differences)]
        {
            let more = count.saturating_sub(i64::try_from(list.len()).unwrap_or(i64::MAX));
            if more > 0 && !list.is_empty() {
                write!(f, "\n  … and {more} more")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_shown_in_their_currency() {
        let found = |currency: Option<&str>, first: &str, second: Option<&str>| {
            let json = serde_json::json!({
                "tenant": "acme", "from_at": "2025-01-01T00:00:00+00:00", "to_at": "2025-02-01T00:00:00+00:00",
                "what": "w", "currency": currency, "first": first, "second": second });
            let found: Found = serde_json::from_value(json).unwrap();
            let Difference { first, second, difference, .. } = found.try_into().unwrap();
            [first, second, difference].map(|text| text.unwrap_or_default())
        };
        assert_eq!(found(Some("KWD"), "1500", Some("-1")), ["1.500 KWD", "-0.001 KWD", "1.501"]);
        assert_eq!(found(None, "7", Some("9")), ["7", "9", "-2"]);
        assert_eq!(found(None, "sent", None), ["sent", "", ""]);
    }
}
