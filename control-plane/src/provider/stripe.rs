//! Stripe, as far as invoices need it (<https://docs.stripe.com/api>): form-encoded calls with
//! idempotency keys, by one version of its API.

use std::{collections::HashMap, time::Duration};

use reqwest::{
    Method,
    header::{HeaderMap, HeaderValue},
};
use serde::{Deserialize, de::DeserializeOwned};
use weir_domain::currency::Currency;

use super::{
    Kind,
    bill::{Bill, Line},
    call::{Answer, Call, Caller, ClientError, Failure, Refusal},
    claim::Claim,
    pace::Pace,
    settings::StripeSettings,
};

/// The version of Stripe's API that these calls are written for.
pub const VERSION: &str = "2025-12-15.clover";
/// For how long Stripe keeps keys at least, less an hour for slow calls and clocks.
pub const KEY_WINDOW: Duration = Duration::from_secs(23 * 3_600);
/// How many of 100 calls a second may be of one endpoint: of all calls Stripe takes 100, of one endpoint 25,
/// and calls do not arrive as evenly as they are made. A delivery makes eight calls, hardly two of them of one
/// endpoint, so this slows none down.
const ENDPOINT_PERCENT: u32 = 18;
/// The most searches a second, however many calls an account may make: Stripe takes 20
/// (<https://docs.stripe.com/rate-limits>).
const SEARCHES_PER_S: u32 = 18;
/// The most lines in one call.
pub const LINES_PER_CALL: usize = 100;
pub(super) const PAGE: &str = "100";
const SEARCH: &str = "customers/search";

pub struct Stripe {
    caller: Caller,
}

/// An invoice at Stripe.
#[derive(Debug, Clone, Deserialize)]
pub struct Invoice {
    pub id: String,
    pub status: Option<String>,
    /// After discounts and taxes, before the customer's balance.
    pub total: i64,
    /// In lower case.
    pub currency: String,
    pub number: Option<String>,
    /// What is to be paid still.
    #[serde(default)]
    pub amount_remaining: i64,
    /// What credit notes took off before it was paid, and afterwards.
    #[serde(default)]
    pub pre_payment_credit_notes_amount: i64,
    #[serde(default)]
    pub post_payment_credit_notes_amount: i64,
    #[serde(default)]
    pub metadata: HashMap<String, String>,
}

impl Invoice {
    pub fn is(&self, status: &str) -> bool {
        self.status.as_deref() == Some(status)
    }
}

/// Something with an id and our metadata.
#[derive(Debug, Clone, Deserialize)]
pub struct Object {
    pub id: String,
    #[serde(default)]
    pub metadata: HashMap<String, String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct List<T> {
    pub(super) data: Vec<T>,
    pub(super) has_more: bool,
}

/// What the customer is made with.
#[derive(Debug)]
pub struct NewCustomer<'a> {
    pub tenant: &'a str,
    pub name: &'a str,
    pub email: Option<&'a str>,
    pub deployment: &'a str,
}

impl Stripe {
    pub fn new(settings: &StripeSettings, timeout: Duration) -> Result<Self, ClientError> {
        let mut headers = HeaderMap::new();
        headers.insert("stripe-version", HeaderValue::from_static(VERSION));
        let credential = super::credential(&format!("Bearer {}", settings.api_key.reveal()));
        let of_endpoint = settings.calls_per_s.saturating_mul(ENDPOINT_PERCENT) / 100;
        let pace = Pace::per_second(settings.calls_per_s)
            .per_endpoint(of_endpoint)
            .at_most(SEARCH, SEARCHES_PER_S);
        let url = settings.url.clone();
        let caller = Caller::new(
            Kind::Stripe,
            url,
            credential,
            "idempotency-key",
            headers,
            (pace, timeout),
        )?;
        Ok(Self { caller })
    }

    pub async fn create_customer(
        &self,
        claim: &Claim,
        customer: &NewCustomer<'_>,
        key: &str,
    ) -> Result<Object, Failure> {
        let mut params = pairs([
            ("name", customer.name),
            ("metadata[tenant_id]", customer.tenant),
            ("metadata[deployment]", customer.deployment),
        ]);
        params.extend(customer.email.map(|email| ("email".to_owned(), email.to_owned())));
        self.post(claim, &["v1", "customers"], "customers", params, key).await
    }

    /// The customer that was made for this tenant. It may be found a minute after it was made only.
    pub async fn find_customer(
        &self,
        claim: &Claim,
        customer: &NewCustomer<'_>,
    ) -> Result<Option<Object>, Failure> {
        // Neither can have a quote.
        let query = format!(
            "metadata['tenant_id']:'{}' AND metadata['deployment']:'{}'",
            customer.tenant, customer.deployment
        );
        let params = pairs([("query", query.as_str()), ("limit", "1")]);
        let path = &["v1", "customers", "search"];
        let list: List<Object> = self.get(claim, path, SEARCH, params).await?;
        Ok(list.data.into_iter().next())
    }

    /// Makes a draft without lines, which Stripe leaves alone.
    pub async fn create_invoice(
        &self,
        claim: &Claim,
        bill: &Bill,
        customer: &str,
        key: &str,
    ) -> Result<Invoice, Failure> {
        let params = pairs([
            ("customer", customer),
            ("currency", &bill.currency.as_str().to_lowercase()),
            ("auto_advance", "false"),
            ("collection_method", "send_invoice"),
            ("days_until_due", &bill.days_until_due.to_string()),
            ("pending_invoice_items_behavior", "exclude"),
            ("description", &bill.number),
            ("metadata[invoice_id]", &bill.reference),
            ("metadata[tenant_id]", &bill.tenant),
        ]);
        self.post(claim, &["v1", "invoices"], "invoices", params, key).await
    }

    /// The customer's invoices with this reference that are not void, made since `since` (in seconds
    /// since 1970).
    pub async fn find_invoices(
        &self,
        claim: &Claim,
        (customer, reference): (&str, &str),
        since: i64,
    ) -> Result<Vec<Invoice>, Failure> {
        let params =
            pairs([("customer", customer), ("created[gte]", &since.to_string()), ("limit", PAGE)]);
        let path = &["v1", "invoices"];
        let mut found: Vec<Invoice> =
            self.all(claim, path, "invoices/list", params, |i: &Invoice| i.id.clone()).await?;
        found.retain(|invoice| {
            invoice.metadata.get("invoice_id").is_some_and(|id| id == reference)
                && !invoice.is("void")
        });
        Ok(found)
    }

    /// `None` where there is no such invoice any more.
    pub async fn invoice(&self, claim: &Claim, id: &str) -> Result<Option<Invoice>, Failure> {
        found(self.get(claim, &["v1", "invoices", id], "invoices/id", Vec::new()).await)
    }

    /// Adds lines to a draft; at most [`LINES_PER_CALL`].
    pub async fn add_lines(
        &self,
        claim: &Claim,
        (id, bill): (&str, &Bill),
        lines: &[&Line],
        key: &str,
    ) -> Result<Invoice, Failure> {
        let mut params = Vec::with_capacity(lines.len() * 5);
        for (index, line) in lines.iter().enumerate() {
            let amount = amount(line.amount_minor, bill.currency)?;
            for (name, value) in [
                ("[description]", line.description.clone()),
                ("[amount]", amount.to_string()),
                ("[period][start]", bill.period_start.to_string()),
                ("[period][end]", bill.period_end.to_string()),
                ("[metadata][line_id]", line.id.to_string()),
            ] {
                params.push((format!("lines[{index}]{name}"), value));
            }
        }
        let path = &["v1", "invoices", id, "add_lines"];
        self.post(claim, path, "invoices/add_lines", params, key).await
    }

    /// The lines that an invoice has.
    pub async fn lines(&self, claim: &Claim, id: &str) -> Result<Vec<Object>, Failure> {
        let path = &["v1", "invoices", id, "lines"];
        let params = pairs([("limit", PAGE)]);
        self.all(claim, path, "invoices/lines", params, |line: &Object| line.id.clone()).await
    }

    pub async fn finalize(&self, claim: &Claim, id: &str, key: &str) -> Result<Invoice, Failure> {
        let params = pairs([("auto_advance", "false")]);
        let path = &["v1", "invoices", id, "finalize"];
        self.post(claim, path, "invoices/finalize", params, key).await
    }

    /// Has it sent to the customer's address.
    pub async fn send(&self, claim: &Claim, id: &str, key: &str) -> Result<Invoice, Failure> {
        let path = &["v1", "invoices", id, "send"];
        self.post(claim, path, "invoices/send", Vec::new(), key).await
    }

    pub async fn void(&self, claim: &Claim, id: &str, key: &str) -> Result<Invoice, Failure> {
        let path = &["v1", "invoices", id, "void"];
        self.post(claim, path, "invoices/void", Vec::new(), key).await
    }

    /// Deletes a draft, which may be gone already.
    pub async fn delete(&self, claim: &Claim, id: &str) -> Result<(), Failure> {
        let path = &["v1", "invoices", id];
        let method = Method::DELETE;
        let call = Call { method, path, params: Vec::new(), key: None, endpoint: "invoices/id" };
        let answer = judge(self.caller.make(claim, call).await?);
        found(answer.map(drop)).map(drop)
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

    async fn get<T: DeserializeOwned>(
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

    /// All pages of a list.
    pub(super) async fn all<T: DeserializeOwned>(
        &self,
        claim: &Claim,
        path: &[&str],
        endpoint: &'static str,
        params: Vec<(String, String)>,
        id: impl Fn(&T) -> String,
    ) -> Result<Vec<T>, Failure> {
        let mut all: Vec<T> = Vec::new();
        loop {
            let mut params = params.clone();
            params.extend(all.last().map(|last| ("starting_after".to_owned(), id(last))));
            let page: List<T> = self.get(claim, path, endpoint, params).await?;
            let empty = page.data.is_empty();
            all.extend(page.data);
            if empty || !page.has_more {
                return Ok(all);
            }
        }
    }
}

/// An amount as Stripe counts it: in the currency's minor unit, but the króna, which has none, in
/// hundredths (<https://docs.stripe.com/currencies#special-cases>).
pub fn amount(minor: i64, currency: Currency) -> Result<i64, Failure> {
    let factor = if currency.as_str() == "ISK" { 100 } else { 1 };
    minor.checked_mul(factor).ok_or_else(|| Refusal::found("the amount is too large for Stripe"))
}

#[derive(Debug, Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    error: ErrorObject,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorObject {
    #[serde(rename = "type")]
    kind: String,
    code: String,
    message: String,
    param: String,
}

/// What an answer that is not a success means. `Stripe-Should-Retry` says whether the same call with
/// the same key can do better; without it 409, 424 and 429 can. A 5xx is kept under the key.
fn judge(answer: Answer) -> Result<Answer, Failure> {
    let status = answer.status;
    if (200..300).contains(&status) {
        return Ok(answer);
    }
    let ErrorBody { error } = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = format!("Stripe answered {status} {}: {}", error.code, error.message);
    let later = || Failure::Later { text: text.clone(), wait: answer.retry_after() };
    Err(match (answer.header("stripe-should-retry"), status) {
        // It is the configuration that is wrong, not this invoice.
        (_, 401 | 403) => Failure::Later {
            text: format!("{text} — check WEIR_STRIPE_API_KEY and what it may do"),
            wait: None,
        },
        (Some("true"), _) | (None, 409 | 424) | (_, 429) => later(),
        (_, 500..) => Failure::Burnt(text),
        (_, 400 | 409) if error.kind == "idempotency_error" => Failure::Burnt(text),
        _ => Failure::Refused(Refusal { status, code: error.code, param: error.param, text }),
    })
}

/// `None` for a 404.
pub(super) fn found<T>(result: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Failure::Refused(refusal)) if refusal.status == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}
