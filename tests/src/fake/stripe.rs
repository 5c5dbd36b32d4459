//! Stripe as far as Weir uses it: customers, invoices with lines, finalizing, sending, voiding.

mod answers;
mod credit_notes;
mod customers;

use std::collections::HashMap;

use anyhow::Result;
use serde_json::{Map, Value, json};

use self::answers::*;
pub(crate) use self::credit_notes::CreditNote;
use super::{Fake, Provider, Reply, Request, form};

pub(crate) const API_KEY: &str = "sk_test_of_a_private_run";
const VERSION: &str = "2025-12-15.clover";
/// Search finds what is a minute old.
const SEARCH_LAG_S: u64 = 60;
const MAX_LINES: usize = 250;

pub(crate) type FakeStripe = Fake<Stripe>;

#[derive(Default)]
pub(crate) struct Stripe {
    pub(crate) customers: Vec<Customer>,
    pub(crate) invoices: Vec<Invoice>,
    pub(crate) credit_notes: Vec<credit_notes::CreditNote>,
    /// Added to the total of invoices that are made from now on, such as by a tax.
    pub(crate) extra_minor: i64,
    made: u64,
    /// Where an invoice was, and a customer, by their ids: tests take some away.
    places: HashMap<String, usize>,
}

#[derive(Debug, Clone)]
pub(crate) struct Customer {
    pub(crate) id: String,
    pub(crate) email: String,
    metadata: Map<String, Value>,
    made_at_s: u64,
    /// What it owes beyond its invoices; negative is a credit.
    pub(crate) balance_minor: i64,
}

#[derive(Debug, Clone)]
pub(crate) struct Invoice {
    pub(crate) id: String,
    pub(crate) customer: String,
    pub(crate) currency: String,
    pub(crate) status: &'static str,
    pub(crate) lines: Vec<Line>,
    pub(crate) metadata: Map<String, Value>,
    pub(crate) sent: usize,
    /// Part of the total beside the lines, such as a tax.
    pub(crate) extra_minor: i64,
    /// What credit notes took off while it was not paid, and afterwards.
    pub(crate) credited_before_minor: i64,
    credited_after_minor: i64,
    number: Option<String>,
    made_at_s: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Line {
    id: String,
    pub(crate) description: String,
    pub(crate) amount_minor: i64,
    metadata: Map<String, Value>,
}

impl FakeStripe {
    pub(crate) async fn start() -> Result<Self> {
        Self::serving(Stripe::default()).await
    }

    /// The invoices of our tenant that are not void.
    pub(crate) fn invoices_of(&self, tenant: &str) -> Vec<Invoice> {
        let of_tenant =
            |invoice: &&Invoice| invoice.metadata.get("tenant_id") == Some(&json!(tenant));
        self.with(|stripe| {
            let mut found: Vec<_> = stripe.invoices.iter().filter(of_tenant).cloned().collect();
            found.retain(|invoice| invoice.status != "void");
            found
        })
    }
}

impl Invoice {
    pub(crate) fn total_minor(&self) -> i64 {
        self.lines.iter().map(|line| line.amount_minor).sum::<i64>() + self.extra_minor
    }

    /// What is to be paid still.
    fn remaining_minor(&self) -> i64 {
        match self.status {
            "paid" => 0,
            _ => (self.total_minor() - self.credited_before_minor).max(0),
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "id": self.id, "object": "invoice", "customer": self.customer,
                "currency": self.currency, "status": self.status, "total": self.total_minor(),
                "amount_remaining": self.remaining_minor(),
                "pre_payment_credit_notes_amount": self.credited_before_minor,
                "post_payment_credit_notes_amount": self.credited_after_minor,
                "number": self.number, "metadata": self.metadata })
    }
}

impl Stripe {
    fn id(&mut self, prefix: &str) -> String {
        self.made += 1;
        format!("{prefix}_{:06}", self.made)
    }

    fn invoice(&mut self, id: &str) -> Result<&mut Invoice, Reply> {
        let known = self.places.get(id).copied();
        let is_there = |at: &usize| self.invoices.get(*at).is_some_and(|invoice| invoice.id == id);
        let place = known.filter(is_there).or_else(|| {
            let place = self.invoices.iter().position(|invoice| invoice.id == id)?;
            self.places.insert(id.to_owned(), place);
            Some(place)
        });
        let found = place.and_then(|place| self.invoices.get_mut(place));
        found.ok_or_else(|| missing(&format!("No such invoice: '{id}'")))
    }

    /// Customers stay.
    fn customer(&mut self, id: &str) -> Option<&mut Customer> {
        self.places.get(id).and_then(|place| self.customers.get_mut(*place))
    }

    fn create_invoice(&mut self, request: &Request, now_s: u64) -> Result<Value, Reply> {
        let customer = request.param("customer");
        let known = self.customer(customer);
        if known.ok_or_else(|| invalid("customer", "No such customer"))?.email.is_empty() {
            return Err(invalid("customer", "Missing email"));
        }
        let customer = customer.to_owned();
        let invoice = Invoice {
            id: self.id("in"),
            customer,
            currency: request.param("currency").to_owned(),
            status: "draft",
            lines: Vec::new(),
            metadata: metadata(request, "metadata"),
            sent: 0,
            extra_minor: self.extra_minor,
            credited_before_minor: 0,
            credited_after_minor: 0,
            number: None,
            made_at_s: now_s,
        };
        let answer = invoice.json();
        self.places.insert(invoice.id.clone(), self.invoices.len());
        self.invoices.push(invoice);
        Ok(answer)
    }

    fn list_invoices(&self, request: &Request) -> Value {
        let since: u64 = request.param("created[gte]").parse().unwrap_or(0);
        let until: u64 = request.param("created[lte]").parse().unwrap_or(u64::MAX);
        let customer = request.param("customer");
        let fits = |invoice: &&Invoice| {
            (since..=until).contains(&invoice.made_at_s)
                && (customer.is_empty() || invoice.customer == customer)
        };
        // Newest first.
        let fitting = self.invoices.iter().rev().filter(fits);
        page(request, fitting.map(|invoice| (invoice.id.as_str(), move || invoice.json())))
    }

    fn add_lines(&mut self, request: &Request) -> Result<Value, Reply> {
        let mut lines = Vec::new();
        while request
            .params
            .iter()
            .any(|(name, _)| name.starts_with(&format!("lines[{}]", lines.len())))
        {
            let at = format!("lines[{}]", lines.len());
            let id = self.id("il");
            lines.push(Line {
                id,
                description: request.param(&format!("{at}[description]")).to_owned(),
                amount_minor: number(request, &format!("{at}[amount]"))?,
                metadata: metadata(request, &format!("{at}[metadata]")),
            });
        }
        let invoice = self.invoice(request.id.as_deref().unwrap_or(""))?;
        if invoice.status != "draft" {
            return Err(not_editable());
        }
        if invoice.lines.len() + lines.len() > MAX_LINES {
            return Err(invalid("lines", "An invoice can have 250 lines at most"));
        }
        invoice.lines.extend(lines);
        Ok(invoice.json())
    }

    fn finalize(&mut self, id: &str) -> Result<Value, Reply> {
        let number = format!("STRIPE-{:04}", self.made);
        let invoice = self.invoice(id)?;
        if invoice.status != "draft" {
            return Err(not_editable());
        }
        let total = invoice.total_minor();
        invoice.number = Some(number);
        invoice.status = "open";
        let owner = invoice.customer.clone();
        let balance = self.customer(&owner).map_or(0, |customer| customer.balance_minor);
        // A credit pays it, as far as it goes; what is owed to the customer becomes a credit.
        let due = total + balance.min(0);
        let invoice = self.invoice(id)?;
        if due <= 0 {
            invoice.status = "paid";
        }
        let answer = invoice.json();
        if let Some(customer) = self.customer(&owner) {
            customer.balance_minor = if balance <= 0 { due.min(0) } else { balance };
        }
        Ok(answer)
    }
}

impl Provider for Stripe {
    const KEY_HEADER: &'static str = "idempotency-key";
    const KEY_WINDOW_S: u64 = 24 * 3_600;

    fn route(method: &str, path: &str) -> Option<(String, Option<String>)> {
        let parts: Vec<&str> = path.strip_prefix("/v1/")?.split('/').collect();
        let (endpoint, id) = match (method, parts.as_slice()) {
            (_, ["customers"]) => ("customers", None),
            (_, ["customers", "search"]) => ("customers/search", None),
            (_, ["invoices"]) => ("invoices", None),
            (_, ["invoices", id]) => ("invoices/id", Some(*id)),
            ("POST", ["invoices", id, "add_lines"]) => ("invoices/add_lines", Some(*id)),
            ("GET", ["invoices", id, "lines"]) => ("invoices/lines", Some(*id)),
            ("POST", ["invoices", id, "finalize"]) => ("invoices/finalize", Some(*id)),
            ("POST", ["invoices", id, "send"]) => ("invoices/send", Some(*id)),
            ("POST", ["invoices", id, "void"]) => ("invoices/void", Some(*id)),
            (_, ["credit_notes"]) => ("credit_notes", None),
            _ => return None,
        };
        Some((format!("{method} {endpoint}"), id.map(str::to_owned)))
    }

    fn authorize(&self, headers: &hyper::HeaderMap) -> Result<(), Reply> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if header("authorization") != Some(&format!("Bearer {API_KEY}")) {
            return Err(Self::error(401, "", "Invalid API Key provided"));
        }
        if header("stripe-version") != Some(VERSION) {
            return Err(Self::error(400, "", "This stand-in is of another version"));
        }
        Ok(())
    }

    fn check(&self, request: &Request) -> Result<(), Reply> {
        let (needed, known): (&[&str], &[&str]) = match request.endpoint.as_str() {
            "POST customers" => (&[], &["name", "email", "metadata[*]"]),
            "GET customers/search" => (&["query"], &["limit"]),
            "POST invoices" => (
                &["customer", "currency", "collection_method", "days_until_due"],
                &["auto_advance", "pending_invoice_items_behavior", "description", "metadata[*]"],
            ),
            "GET invoices" => {
                (&[], &["customer", "created[gte]", "created[lte]", "limit", "starting_after"])
            }
            "POST invoices/add_lines" => (
                &["lines[#][amount]"],
                &[
                    "lines[#][description]",
                    "lines[#][period][start]",
                    "lines[#][period][end]",
                    "lines[#][metadata][*]",
                ],
            ),
            "POST credit_notes" => {
                (&["invoice", "amount"], &["memo", "credit_amount", "metadata[*]"])
            }
            "GET credit_notes" => (&[], &["invoice", "limit", "starting_after"]),
            "GET invoices/lines" => (&[], &["limit", "starting_after"]),
            "POST invoices/finalize" => (&[], &["auto_advance"]),
            "GET invoices/id" | "DELETE invoices/id" | "POST invoices/send"
            | "POST invoices/void" => (&[], &[]),
            other => {
                return Err(Self::error(404, "", &format!("Unrecognized request URL {other}")));
            }
        };
        form::check(&request.params, needed, known).map_err(|(code, name)| invalid(&name, code))?;
        for (name, value) in &request.params {
            let fits = match name.rsplit('[').next().unwrap_or("") {
                "amount" | "credit_amount" => value.parse().is_ok_and(|amount: i64| amount > 0),
                "amount]" | "start]" | "end]" | "days_until_due" => value.parse::<i64>().is_ok(),
                "limit" => value.parse().is_ok_and(|limit: u32| (1..=100).contains(&limit)),
                "auto_advance" => ["true", "false"].contains(&value.as_str()),
                "collection_method" => value == "send_invoice",
                "pending_invoice_items_behavior" => {
                    ["exclude", "include"].contains(&value.as_str())
                }
                "currency" => value.len() == 3 && value.chars().all(|one| one.is_ascii_lowercase()),
                "line_id]" | "invoice_id]" | "tenant_id]" => value.len() <= 500,
                _ => true,
            };
            if !fits {
                return Err(invalid(name, &format!("Invalid value: {value}")));
            }
        }
        Ok(())
    }

    fn execute(&mut self, request: &Request, now_s: u64) -> Result<Value, Reply> {
        self.check(request)?;
        let id = request.id.as_deref().unwrap_or("");
        match request.endpoint.as_str() {
            "POST customers" => Ok(self.create_customer(request, now_s)),
            "GET customers/search" => Ok(self.search_customers(request, now_s)),
            "POST invoices" => self.create_invoice(request, now_s),
            "GET invoices" => Ok(self.list_invoices(request)),
            "GET invoices/id" => self.invoice(id).map(|invoice| invoice.json()),
            "POST credit_notes" => self.create_credit_note(request),
            "GET credit_notes" => Ok(self.list_credit_notes(request)),
            "POST invoices/add_lines" => self.add_lines(request),
            "GET invoices/lines" => {
                let lines = self.invoice(id)?.lines.iter().map(|line| {
                    let json = move || {
                        json!({ "id": line.id, "amount": line.amount_minor, "metadata": line.metadata })
                    };
                    (line.id.as_str(), json)
                });
                Ok(page(request, lines))
            }
            "POST invoices/finalize" => self.finalize(id),
            "POST invoices/send" => {
                let invoice = self.invoice(id)?;
                if invoice.status != "open" {
                    return Err(not_editable());
                }
                invoice.sent += 1;
                Ok(invoice.json())
            }
            "POST invoices/void" => {
                let invoice = self.invoice(id)?;
                if !["open", "uncollectible"].contains(&invoice.status) {
                    return Err(not_editable());
                }
                invoice.status = "void";
                Ok(invoice.json())
            }
            _ => {
                if self.invoice(id)?.status != "draft" {
                    return Err(not_editable());
                }
                self.invoices.retain(|invoice| invoice.id != id);
                Ok(json!({ "id": id, "deleted": true }))
            }
        }
    }

    fn error(status: u16, code: &str, message: &str) -> Reply {
        let kind = match (status, code) {
            (_, "idempotency_error") => "idempotency_error",
            (500.., _) => "api_error",
            _ => "invalid_request_error",
        };
        Reply::new(status, json!({ "error": { "type": kind, "code": code, "message": message } }))
    }
}
