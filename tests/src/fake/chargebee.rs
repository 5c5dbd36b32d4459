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
    pub(crate) credit_notes: Vec<CreditNote>,
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

#[derive(Debug, Clone)]
pub(crate) struct CreditNote {
    id: String,
    pub(crate) invoice: String,
    /// Whether it took off what was to be paid; otherwise it is money to be given back.
    pub(crate) is_adjustment: bool,
    pub(crate) amount_minor: i64,
    pub(crate) customer_notes: String,
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

    /// What is to be paid still.
    fn due_minor(&self, notes: &[CreditNote]) -> i64 {
        let adjusted: i64 = notes
            .iter()
            .filter(|note| note.invoice == self.id && note.is_adjustment)
            .map(|note| note.amount_minor)
            .sum();
        match self.status {
            "paid" | "voided" => 0,
            _ => self.total_minor() - adjusted,
        }
    }

    /// With what credit notes say of it.
    fn json_with(&self, notes: &[CreditNote]) -> Value {
        let linked = |is_adjustment: bool| -> Vec<Value> {
            let of_it = notes
                .iter()
                .filter(|note| note.invoice == self.id && note.is_adjustment == is_adjustment);
            let status = if is_adjustment { "adjusted" } else { "refund_due" };
            of_it
                .map(|note| json!({ "cn_id": note.id, "cn_total": note.amount_minor, "cn_status": status }))
                .collect()
        };
        let mut json = self.json();
        json["amount_due"] = json!(self.due_minor(notes));
        json["adjustment_credit_notes"] = json!(linked(true));
        json["issued_credit_notes"] = json!(linked(false));
        json
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

    fn create_credit_note(&mut self, request: &Request) -> Result<Value, Reply> {
        let id = request.param("reference_invoice_id").to_owned();
        let amount_minor: i64 = request.param("total").parse().unwrap_or(0);
        let is_adjustment = request.param("type") == "adjustment";
        let (notes, total) = (self.credit_notes.clone(), self.invoice(&id)?.total_minor());
        let invoice = self.invoice(&id)?;
        let due = invoice.due_minor(&notes);
        let so_far: i64 =
            notes.iter().filter(|note| note.invoice == id).map(|note| note.amount_minor).sum();
        if invoice.status == "voided"
            || (is_adjustment && amount_minor > due)
            || (!is_adjustment && due > 0)
            || so_far + amount_minor > total
        {
            return Err(wrong("total", "param_wrong_value", "More than can be credited so"));
        }
        if is_adjustment && amount_minor == due {
            invoice.status = "paid";
        }
        let customer_notes = request.param("customer_notes").to_owned();
        let note_id = format!("CN-CB-{}", notes.len() + 1);
        let answer = json!({ "id": note_id, "customer_notes": customer_notes });
        self.credit_notes.push(CreditNote {
            id: note_id,
            invoice: id,
            is_adjustment,
            amount_minor,
            customer_notes,
        });
        Ok(json!({ "credit_note": answer }))
    }

    fn list_credit_notes(&self, request: &Request) -> Value {
        let invoice = request.param("reference_invoice_id[is]");
        let of_it = self.credit_notes.iter().filter(|note| note.invoice == invoice);
        let json = |note: &CreditNote| json!({ "credit_note": { "id": note.id, "customer_notes": note.customer_notes } });
        json!({ "list": of_it.map(json).collect::<Vec<Value>>() })
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
        let list: Vec<_> = page
            .map(|invoice| json!({ "invoice": invoice.json_with(&self.credit_notes) }))
            .collect();
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
            ("POST", ["credit_notes"]) => ("credit_notes/create", None),
            ("GET", ["credit_notes"]) => ("credit_notes", None),
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
            "POST credit_notes/create" => {
                (&["reference_invoice_id", "type", "total"], &["customer_notes"])
            }
            "GET credit_notes" => (&["reference_invoice_id[is]"], &["limit", "offset"]),
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
                ["total"] => positive,
                ["type"] => ["adjustment", "refundable"].contains(&value.as_str()),
                ["customer_notes"] => value.chars().count() <= 2_000,
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
            "GET invoices/id" => {
                let invoice = self.invoice(id)?.clone();
                Ok(json!({ "invoice": invoice.json_with(&self.credit_notes) }))
            }
            "POST credit_notes/create" => self.create_credit_note(request),
            "GET credit_notes" => Ok(self.list_credit_notes(request)),
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
