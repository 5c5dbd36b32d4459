//! Chargebee, as far as invoices need it (<https://apidocs.chargebee.com/docs/api>): one call makes a
//! whole invoice, and there is no draft.

use std::{fmt::Write, time::Duration};

use reqwest::{Method, header::HeaderMap};
use serde::{Deserialize, de::DeserializeOwned};
use weir_domain::currency::Currency;

use super::{
    Kind,
    bill::Bill,
    call::{Answer, Call, Caller, ClientError, Failure, Refusal},
    claim::Claim,
    pace::Pace,
    settings::ChargebeeSettings,
};
use crate::auth;

/// For how long Chargebee keeps keys, less five minutes for slow calls and clocks.
pub const KEY_WINDOW: Duration = Duration::from_secs(25 * 60);
/// The longest id of a customer, in characters.
const MAX_CUSTOMER: usize = 50;

pub struct Chargebee {
    caller: Caller,
}

/// An invoice at Chargebee.
#[derive(Debug, Clone, Deserialize)]
pub struct Invoice {
    pub id: String,
    pub status: String,
    /// After discounts and taxes.
    pub total: i64,
    pub currency_code: String,
    pub po_number: Option<String>,
    /// What is to be paid still.
    #[serde(default)]
    pub amount_due: i64,
    /// Credit notes on what was not paid, and on what was.
    #[serde(default)]
    pub adjustment_credit_notes: Vec<LinkedNote>,
    #[serde(default)]
    pub issued_credit_notes: Vec<LinkedNote>,
}

/// A credit note as the invoice names it.
#[derive(Debug, Clone, Deserialize)]
pub struct LinkedNote {
    pub cn_total: i64,
    pub cn_status: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct OneInvoice {
    pub(super) invoice: Invoice,
}

#[derive(Debug, Deserialize)]
pub(super) struct List {
    pub(super) list: Vec<OneInvoice>,
    pub(super) next_offset: Option<String>,
}

/// The id of a tenant's customer: the tenant's own where that is short enough.
pub fn customer_id(tenant: &str) -> String {
    if tenant.len() <= MAX_CUSTOMER {
        return tenant.to_owned();
    }
    let mut id: String = tenant.chars().take(MAX_CUSTOMER - 17).collect();
    id.push('-');
    for byte in auth::hash(tenant).iter().take(8) {
        // Writing to a text can't fail.
        let _ = write!(id, "{byte:02x}");
    }
    id
}

impl Chargebee {
    pub fn new(settings: &ChargebeeSettings, timeout: Duration) -> Result<Self, ClientError> {
        let credential = super::basic_credential(settings.api_key.reveal(), "");
        let pace = Pace::per_second(settings.calls_per_s);
        let caller = Caller::new(
            Kind::Chargebee,
            settings.url.clone(),
            credential,
            "chargebee-idempotency-key",
            HeaderMap::new(),
            (pace, timeout),
        )?;
        Ok(Self { caller })
    }

    /// Makes the customer with our id, or finds that it is there.
    pub async fn create_customer(
        &self,
        claim: &Claim,
        (id, name, email): (&str, &str, Option<&str>),
        key: &str,
    ) -> Result<(), Failure> {
        let mut params = pairs([("id", id), ("company", name), ("auto_collection", "off")]);
        params.extend(email.map(|email| ("email".to_owned(), email.to_owned())));
        let path = &["api", "v2", "customers"];
        match self.post::<serde_json::Value>(claim, path, "customers", params, key).await {
            Err(Failure::Refused(refusal))
                if refusal.code == "duplicate_entry" && refusal.param == "id" =>
            {
                Ok(())
            }
            answer => answer.map(drop),
        }
    }

    /// Makes the invoice. Lines below zero are discounts of the whole; lines of zero are left out.
    pub async fn create_invoice(
        &self,
        claim: &Claim,
        bill: &Bill,
        customer: &str,
        key: &str,
    ) -> Result<Invoice, Failure> {
        if bill.total_minor < 0 {
            return Err(Refusal::found(
                "Chargebee has no invoices below zero; give the customer promotional credits there, and void this invoice",
            ));
        }
        let mut params = pairs([
            ("customer_id", customer),
            ("currency_code", bill.currency.as_str()),
            ("auto_collection", "off"),
            ("net_term_days", &bill.days_until_due.to_string()),
            ("po_number", &bill.reference),
        ]);
        let (mut charges, mut discounts) = (0, 0);
        for line in &bill.lines {
            let amount = amount(line.amount_minor, bill.currency)?;
            if amount > 0 {
                for (name, value) in [
                    ("amount", amount.to_string()),
                    ("description", line.description.clone()),
                    ("date_from", bill.period_start.to_string()),
                    ("date_to", bill.period_end.to_string()),
                ] {
                    params.push((format!("charges[{name}][{charges}]"), value));
                }
                charges += 1;
            } else if amount < 0 {
                let amount = amount.unsigned_abs().to_string();
                params.push((
                    format!("discounts[apply_on][{discounts}]"),
                    "invoice_amount".to_owned(),
                ));
                params.push((format!("discounts[amount][{discounts}]"), amount));
                discounts += 1;
            }
        }
        let path = &["api", "v2", "invoices", "create_for_charge_items_and_charges"];
        let made: OneInvoice = self.post(claim, path, "invoices/create", params, key).await?;
        Ok(made.invoice)
    }

    /// The customer's invoices with this reference that are not void, dated after `since` (in seconds
    /// since 1970).
    pub async fn find_invoices(
        &self,
        claim: &Claim,
        (customer, reference): (&str, &str),
        since: i64,
    ) -> Result<Vec<Invoice>, Failure> {
        let mut found = Vec::new();
        let mut offset: Option<String> = None;
        loop {
            let mut params = pairs([
                ("customer_id[is]", customer),
                ("date[after]", &since.to_string()),
                ("limit", "100"),
            ]);
            params.extend(offset.take().map(|offset| ("offset".to_owned(), offset)));
            let page: List =
                self.get(claim, &["api", "v2", "invoices"], "invoices", params).await?;
            found.extend(page.list.into_iter().map(|one| one.invoice).filter(|invoice| {
                invoice.po_number.as_deref() == Some(reference) && invoice.status != "voided"
            }));
            offset = page.next_offset;
            if offset.is_none() {
                return Ok(found);
            }
        }
    }

    /// `None` where there is no such invoice any more.
    pub async fn invoice(&self, claim: &Claim, id: &str) -> Result<Option<Invoice>, Failure> {
        let path = &["api", "v2", "invoices", id];
        match self.get::<OneInvoice>(claim, path, "invoices/id", Vec::new()).await {
            Ok(one) => Ok(Some(one.invoice)),
            Err(Failure::Refused(refusal)) if refusal.status == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn void(&self, claim: &Claim, id: &str, key: &str) -> Result<(), Failure> {
        let path = &["api", "v2", "invoices", id, "void"];
        let voided = self.post::<OneInvoice>(claim, path, "invoices/void", Vec::new(), key).await;
        voided.map(drop)
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        claim: &Claim,
        path: &[&str],
        endpoint: &'static str,
        params: Vec<(String, String)>,
        key: &str,
    ) -> Result<T, Failure> {
        let call = Call { method: Method::POST, path, params, key: Some(key), endpoint };
        judge(self.caller.make(claim, call).await?)?.read()
    }

    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        claim: &Claim,
        path: &[&str],
        endpoint: &'static str,
        params: Vec<(String, String)>,
    ) -> Result<T, Failure> {
        let call = Call { method: Method::GET, path, params, key: None, endpoint };
        judge(self.caller.make(claim, call).await?)?.read()
    }

    /// A GET by somebody who changes nothing.
    pub(super) async fn look<T: DeserializeOwned>(
        &self,
        path: &[&str],
        endpoint: &'static str,
        params: Vec<(String, String)>,
    ) -> Result<T, Failure> {
        let call = Call { method: Method::GET, path, params, key: None, endpoint };
        judge(self.caller.look(call).await?)?.read()
    }
}

/// An amount as Chargebee counts it: in hundredths, but yen and won, which have none, in units
/// (<https://apidocs.chargebee.com/docs/api/currencies>). What it can't say is refused.
pub fn amount(minor: i64, currency: Currency) -> Result<i64, Failure> {
    let code = currency.as_str();
    match (currency.minor_digits(), code) {
        (2, _) | (0, "JPY" | "KRW") => Ok(minor),
        (3, _) if minor % 10 == 0 => Ok(minor / 10),
        (3, _) => Err(Refusal::found(format!(
            "Chargebee counts {code} in hundredths, and an amount of this invoice has a thousandth more; price in whole hundredths, or send the tenant's invoices by another provider"
        ))),
        _ => Err(Refusal::found(format!(
            "Weir does not know in which unit Chargebee counts {code}; send the tenant's invoices by another provider"
        ))),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    message: String,
    api_error_code: String,
    param: String,
}

/// What an answer that is not a success means.
fn judge(answer: Answer) -> Result<Answer, Failure> {
    let status = answer.status;
    if (200..300).contains(&status) {
        return Ok(answer);
    }
    let ErrorBody { message, api_error_code: code, param } =
        serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = format!("Chargebee answered {status} {code}: {message}");
    Err(match status {
        // It is the configuration that is wrong, not this invoice.
        401 | 403 => Failure::Later {
            text: format!("{text} — check WEIR_CHARGEBEE_API_KEY and what it may do"),
            wait: None,
        },
        429 | 503 => Failure::Later { text, wait: answer.retry_after() },
        409 if code != "invalid_state_for_request" => {
            Failure::Later { text, wait: answer.retry_after() }
        }
        500.. => Failure::Burnt(text),
        400 if code == "idempotency_error" => Failure::Burnt(text),
        _ => Failure::Refused(Refusal { status, code, param, text }),
    })
}

pub(super) fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_in_chargebees_units_or_refused() {
        let amount = |minor, code| amount(minor, Currency::new(code).unwrap()).ok();
        assert_eq!(amount(153, "USD"), Some(153));
        assert_eq!(amount(15, "JPY"), Some(15));
        assert_eq!(amount(-1_530, "KWD"), Some(-153));
        assert_eq!([amount(1_531, "KWD"), amount(1, "ISK"), amount(1, "CLP")], [None; 3]);
    }

    #[test]
    fn customers_have_ids_that_fit() {
        assert_eq!(customer_id("acme"), "acme");
        let (a, b) = (customer_id(&"a".repeat(51)), customer_id(&"a".repeat(52)));
        assert_eq!((a.len(), b.len(), a == b), (50, 50, false));
    }
}
