//! Chargebee as far as Weir uses it: customers with ids of ours, and invoices made by one call.

use anyhow::Result;
use serde_json::{Value, json};

use super::{Fake, Provider, Reply, Request, form};

pub(crate) const API_KEY: &str = "test_of_a_private_run";

pub(crate) type FakeChargebee = Fake<Chargebee>;

#[derive(Default)]
pub(crate) struct Chargebee {
    pub(crate) customers: Vec<String>,
    pub(crate) invoices: Vec<Invoice>,
    /// Added to the total of invoices that are made from now on, such as by a tax.
    pub(crate) extra_minor: i64,
}

#[derive(Debug, Clone)]
pub(crate) struct Invoice {
    pub(crate) id: String,
    pub(crate) customer: String,
    pub(crate) status: &'static str,
    pub(crate) po_number: String,
    pub(crate) currency: String,
    /// Description and amount.
    pub(crate) charges: Vec<(String, i64)>,
    pub(crate) discounts: Vec<i64>,
    /// Part of the total beside charges and discounts, such as a tax.
    pub(crate) extra_minor: i64,
    date_s: u64,
}

impl FakeChargebee {
    pub(crate) async fn start() -> Result<Self> {
        Self::serving(Chargebee::default()).await
    }

    /// The customer's invoices that are not void.
    pub(crate) fn invoices_of(&self, customer: &str) -> Vec<Invoice> {
        self.with(|chargebee| {
            let mut found = chargebee.invoices.clone();
            found.retain(|invoice| invoice.customer == customer && invoice.status != "voided");
            found
        })
    }
}

impl Invoice {
    pub(crate) fn total_minor(&self) -> i64 {
        let charged: i64 = self.charges.iter().map(|(_, amount)| amount).sum();
        charged - self.discounts.iter().sum::<i64>() + self.extra_minor
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "id": self.id, "customer_id": self.customer, "status": self.status,
                "po_number": self.po_number, "currency_code": self.currency,
                "total": self.total_minor(), "date": self.date_s })
    }
}

impl Chargebee {
    fn invoice(&mut self, id: &str) -> Result<&mut Invoice, Reply> {
        let found = self.invoices.iter_mut().find(|invoice| invoice.id == id);
        found.ok_or_else(|| Self::error(404, "resource_not_found", "There is no such invoice"))
    }

    fn create_customer(&mut self, request: &Request) -> Result<Value, Reply> {
        let id = request.param("id").to_owned();
        if self.customers.contains(&id) {
            return Err(wrong("id", "duplicate_entry", "The value is already present"));
        }
        self.customers.push(id.clone());
        Ok(json!({ "customer": { "id": id } }))
    }

    fn create_invoice(&mut self, request: &Request, now_s: u64) -> Result<Value, Reply> {
        let customer = request.param("customer_id").to_owned();
        if !self.customers.contains(&customer) {
            return Err(wrong("customer_id", "resource_not_found", "There is no such customer"));
        }
        let numbered = |name: &str| {
            let values = (0..).map(|index| request.param(&format!("{name}[{index}]")).to_owned());
            values.take_while(|value| !value.is_empty()).collect::<Vec<String>>()
        };
        let amounts = |name: &str| -> Vec<i64> {
            numbered(name).iter().filter_map(|amount| amount.parse().ok()).collect()
        };
        let charges: Vec<_> =
            numbered("charges[description]").into_iter().zip(amounts("charges[amount]")).collect();
        if charges.is_empty() {
            return Err(wrong("charges", "param_wrong_value", "There is nothing to charge"));
        }
        let invoice = Invoice {
            id: format!("CB-{}", self.invoices.len() + 1),
            customer,
            status: "payment_due",
            po_number: request.param("po_number").to_owned(),
            currency: request.param("currency_code").to_owned(),
            charges,
            discounts: amounts("discounts[amount]"),
            extra_minor: self.extra_minor,
            date_s: now_s,
        };
        if invoice.total_minor() < 0 {
            return Err(wrong("discounts", "param_wrong_value", "Discounts exceed the charges"));
        }
        let answer = invoice.json();
        self.invoices.push(invoice);
        Ok(json!({ "invoice": answer }))
    }

    fn list_invoices(&self, request: &Request) -> Value {
        let after: u64 = request.param("date[after]").parse().unwrap_or(0);
        let (limit, offset): (usize, usize) = (
            request.param("limit").parse().unwrap_or(10),
            request.param("offset").parse().unwrap_or(0),
        );
        let customer = request.param("customer_id[is]");
        let fits = |invoice: &&Invoice| {
            (customer.is_empty() || invoice.customer == customer) && invoice.date_s > after
        };
        let all: Vec<_> = self.invoices.iter().rev().filter(fits).collect();
        let page = all.iter().skip(offset).take(limit);
        let list: Vec<_> = page.map(|invoice| json!({ "invoice": invoice.json() })).collect();
        let mut answer = json!({ "list": list });
        if offset + limit < all.len() {
            answer["next_offset"] = json!((offset + limit).to_string());
        }
        answer
    }
}

impl Provider for Chargebee {
    const KEY_HEADER: &'static str = "chargebee-idempotency-key";
    const KEY_WINDOW_S: u64 = 30 * 60;

    fn route(method: &str, path: &str) -> Option<(String, Option<String>)> {
        let parts: Vec<&str> = path.strip_prefix("/api/v2/")?.split('/').collect();
        let (endpoint, id) = match (method, parts.as_slice()) {
            ("POST", ["customers"]) => ("customers", None),
            ("POST", ["invoices", "create_for_charge_items_and_charges"]) => {
                ("invoices/create", None)
            }
            ("GET", ["invoices"]) => ("invoices", None),
            ("GET", ["invoices", id]) => ("invoices/id", Some(*id)),
            ("POST", ["invoices", id, "void"]) => ("invoices/void", Some(*id)),
            _ => return None,
        };
        Some((format!("{method} {endpoint}"), id.map(str::to_owned)))
    }

    fn authorize(&self, headers: &hyper::HeaderMap) -> Result<(), Reply> {
        // `printf %s test_of_a_private_run: | base64`
        let expected = "Basic dGVzdF9vZl9hX3ByaXZhdGVfcnVuOg==";
        let presented = headers.get("authorization").and_then(|value| value.to_str().ok());
        match presented == Some(expected) {
            true => Ok(()),
            false => Err(Self::error(401, "api_authentication_failed", "The key is not valid")),
        }
    }

    fn check(&self, request: &Request) -> Result<(), Reply> {
        if request.key.as_ref().is_some_and(|key| key.len() > 100) {
            return Err(Self::error(400, "param_wrong_value", "The idempotency key is too long"));
        }
        let (needed, known): (&[&str], &[&str]) = match request.endpoint.as_str() {
            "POST customers" => (&["id"], &["company", "email", "auto_collection"]),
            "POST invoices/create" => (
                &["customer_id", "currency_code"],
                &[
                    "auto_collection",
                    "net_term_days",
                    "po_number",
                    "charges[amount][#]",
                    "charges[description][#]",
                    "charges[date_from][#]",
                    "charges[date_to][#]",
                    "discounts[apply_on][#]",
                    "discounts[amount][#]",
                ],
            ),
            "GET invoices" => (&[], &["customer_id[is]", "date[after]", "limit", "offset"]),
            _ => (&[], &[]),
        };
        form::check(&request.params, needed, known)
            .map_err(|(code, name)| wrong(&name, "param_wrong_value", code))?;
        for (name, value) in &request.params {
            let positive = value.parse().is_ok_and(|amount: i64| amount > 0);
            let fits = match name.split(['[', ']']).collect::<Vec<_>>().as_slice() {
                ["charges" | "discounts", "amount", ..]
                | ["charges", "date_from" | "date_to", ..] => positive,
                ["charges", "description", ..] => value.chars().count() <= 250,
                ["discounts", "apply_on", ..] => value == "invoice_amount",
                ["id"] | ["customer_id"] => value.len() <= 50,
                ["po_number"] => value.len() <= 100,
                ["currency_code"] => {
                    value.len() == 3 && value.chars().all(|one| one.is_ascii_uppercase())
                }
                ["auto_collection"] => value == "off",
                ["net_term_days"] => value.parse::<u32>().is_ok(),
                ["limit"] => value.parse().is_ok_and(|limit: u32| (1..=100).contains(&limit)),
                _ => true,
            };
            if !fits {
                return Err(wrong(name, "param_wrong_value", &format!("invalid: {value}")));
            }
        }
        Ok(())
    }

    fn execute(&mut self, request: &Request, now_s: u64) -> Result<Value, Reply> {
        self.check(request)?;
        let id = request.id.as_deref().unwrap_or("");
        match request.endpoint.as_str() {
            "POST customers" => self.create_customer(request),
            "POST invoices/create" => self.create_invoice(request, now_s),
            "GET invoices" => Ok(self.list_invoices(request)),
            "GET invoices/id" => Ok(json!({ "invoice": self.invoice(id)?.json() })),
            _ => {
                let invoice = self.invoice(id)?;
                if !["payment_due", "not_paid"].contains(&invoice.status) {
                    let text = "This invoice can't be voided";
                    return Err(Self::error(409, "invalid_state_for_request", text));
                }
                invoice.status = "voided";
                Ok(json!({ "invoice": invoice.json() }))
            }
        }
    }

    fn error(status: u16, code: &str, message: &str) -> Reply {
        Reply::new(
            status,
            json!({ "message": message, "type": "invalid_request", "api_error_code": code }),
        )
    }
}

fn wrong(param: &str, code: &str, message: &str) -> Reply {
    let body = json!({ "message": format!("{param}: {message}"), "type": "invalid_request",
                       "api_error_code": code, "param": param });
    Reply::new(400, body)
}
