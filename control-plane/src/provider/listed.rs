//! Invoices as providers list them, to be compared with ours. Nothing here changes anything.

use rust_decimal::Decimal;
use weir_domain::currency::Currency;

use super::{
    Kind, Providers,
    call::{Failure, Refusal},
    chargebee::{self, Chargebee},
    stripe::{self, Stripe},
};

/// An invoice at a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The provider's.
    pub id: String,
    /// What names ours, where there is something.
    pub reference: Option<String>,
    /// In units of the currency.
    pub total: Decimal,
    /// What credit notes have taken off it.
    pub credited: Decimal,
    /// In capitals.
    pub currency: String,
    pub status: Status,
}

/// How far it is, in words that fit both providers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is still being made.
    Draft,
    /// It is to be paid.
    Open,
    Paid,
    Void,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Open => "open",
            Self::Paid => "paid",
            Self::Void => "void",
        }
    }
}

/// Which invoices are asked for. Times are in seconds since 1970.
#[derive(Debug, Clone)]
pub struct Window {
    /// Of one customer, by the provider's id.
    pub customer: Option<String>,
    /// When they were made at the provider; others may be listed too.
    pub from: i64,
    pub to: i64,
}

/// A part of a list.
#[derive(Debug)]
pub struct Page {
    pub invoices: Vec<Listed>,
    /// Where the next part begins; `None` after the last.
    pub next: Option<String>,
}

impl Providers {
    /// The invoices of a window, a page of them, from where the page before has ended.
    pub async fn list(
        &self,
        kind: Kind,
        window: &Window,
        after: Option<&str>,
    ) -> Result<Page, Failure> {
        match (kind, &self.stripe, &self.chargebee) {
            (Kind::Stripe, Some(stripe), _) => list_stripe(stripe, window, after).await,
            (Kind::Chargebee, _, Some(chargebee)) => list_chargebee(chargebee, window, after).await,
            _ => Err(not_configured(kind)),
        }
    }

    /// The invoice with the provider's `id`; `None` where there is none.
    pub async fn look_up(&self, kind: Kind, id: &str) -> Result<Option<Listed>, Failure> {
        match (kind, &self.stripe, &self.chargebee) {
            (Kind::Stripe, Some(stripe), _) => {
                let path = &["v1", "invoices", id];
                let answer = stripe.look(path, "invoices/id", Vec::new()).await;
                Ok(stripe::found(answer)?.map(of_stripe))
            }
            (Kind::Chargebee, _, Some(chargebee)) => {
                let path = &["api", "v2", "invoices", id];
                let answer = chargebee.look(path, "invoices/id", Vec::new()).await;
                Ok(stripe::found(answer)?
                    .map(|one: chargebee::OneInvoice| of_chargebee(one.invoice)))
            }
            _ => Err(not_configured(kind)),
        }
    }
}

fn not_configured(kind: Kind) -> Failure {
    Refusal::found(format!("{} is not configured; set {}", kind.as_str(), kind.variable()))
}

async fn list_stripe(
    stripe: &Stripe,
    window: &Window,
    after: Option<&str>,
) -> Result<Page, Failure> {
    let mut params = vec![
        ("created[gte]".to_owned(), window.from.to_string()),
        ("created[lte]".to_owned(), window.to.to_string()),
        ("limit".to_owned(), stripe::PAGE.to_owned()),
    ];
    params.extend(window.customer.clone().map(|customer| ("customer".to_owned(), customer)));
    params.extend(after.map(|after| ("starting_after".to_owned(), after.to_owned())));
    let page: stripe::List<stripe::Invoice> =
        stripe.look(&["v1", "invoices"], "invoices", params).await?;
    let last = page.data.last().map(|invoice| invoice.id.clone());
    let invoices = page.data.into_iter().map(of_stripe).collect();
    Ok(Page { invoices, next: last.filter(|_| page.has_more) })
}

async fn list_chargebee(
    chargebee: &Chargebee,
    window: &Window,
    after: Option<&str>,
) -> Result<Page, Failure> {
    // What is newer than the window does no harm.
    let mut params = vec![
        ("date[after]".to_owned(), window.from.to_string()),
        ("limit".to_owned(), "100".to_owned()),
    ];
    params.extend(window.customer.clone().map(|id| ("customer_id[is]".to_owned(), id)));
    params.extend(after.map(|after| ("offset".to_owned(), after.to_owned())));
    let page: chargebee::List =
        chargebee.look(&["api", "v2", "invoices"], "invoices", params).await?;
    let invoices = page.list.into_iter().map(|one| of_chargebee(one.invoice)).collect();
    Ok(Page { invoices, next: page.next_offset })
}

fn of_stripe(mut invoice: stripe::Invoice) -> Listed {
    let currency = invoice.currency.to_uppercase();
    Listed {
        reference: invoice.metadata.remove("invoice_id"),
        total: decimal(Kind::Stripe, invoice.total, &currency),
        credited: decimal(
            Kind::Stripe,
            invoice
                .pre_payment_credit_notes_amount
                .saturating_add(invoice.post_payment_credit_notes_amount),
            &currency,
        ),
        status: match invoice.status.as_deref() {
            Some("draft") | None => Status::Draft,
            Some("paid") => Status::Paid,
            Some("void") => Status::Void,
            // One that Stripe was told not to wait for is still to be paid.
            Some(_) => Status::Open,
        },
        currency,
        id: invoice.id,
    }
}

fn of_chargebee(invoice: chargebee::Invoice) -> Listed {
    let notes = invoice.adjustment_credit_notes.iter().chain(&invoice.issued_credit_notes);
    let credited = notes
        .filter(|note| note.cn_status != "voided")
        .fold(0_i64, |sum, note| sum.saturating_add(note.cn_total));
    Listed {
        reference: invoice.po_number,
        total: decimal(Kind::Chargebee, invoice.total, &invoice.currency_code),
        credited: decimal(Kind::Chargebee, credited, &invoice.currency_code),
        status: match invoice.status.as_str() {
            "pending" => Status::Draft,
            "paid" => Status::Paid,
            "voided" => Status::Void,
            _ => Status::Open,
        },
        currency: invoice.currency_code,
        id: invoice.id,
    }
}

/// What a provider counts in, which is not everywhere the currency's own minor unit: see
/// [`stripe::amount`] and [`chargebee::amount`].
fn decimal(kind: Kind, amount: i64, currency: &str) -> Decimal {
    let own = Currency::new(currency).map_or(2, Currency::minor_digits);
    let digits = match (kind, currency) {
        (Kind::Stripe, "ISK") => 2,
        (Kind::Chargebee, "JPY" | "KRW") => 0,
        (Kind::Chargebee, _) => 2,
        _ => own,
    };
    Decimal::new(amount, digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_what_was_sent() {
        let check = |kind, minor, code: &str| {
            let currency = Currency::new(code).unwrap();
            let sent = match kind {
                Kind::Stripe => stripe::amount(minor, currency).unwrap(),
                _ => chargebee::amount(minor, currency).unwrap(),
            };
            assert_eq!(decimal(kind, sent, code), Decimal::new(minor, currency.minor_digits()));
        };
        for code in ["USD", "JPY", "KWD", "ISK"] {
            check(Kind::Stripe, 1_530, code);
        }
        for code in ["USD", "JPY", "KRW", "KWD"] {
            check(Kind::Chargebee, 1_530, code);
        }
    }
}
