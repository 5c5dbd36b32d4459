//! Credit notes of Stripe's: first off what is to be paid, then back to the customer.

use serde_json::{Map, Value, json};

use super::{Reply, Request, Stripe, answers::*};

#[derive(Debug, Clone)]
pub(crate) struct CreditNote {
    id: String,
    pub(crate) invoice: String,
    pub(crate) amount_minor: i64,
    pub(crate) memo: String,
    metadata: Map<String, Value>,
}

impl CreditNote {
    fn json(&self) -> Value {
        json!({ "id": self.id, "object": "credit_note", "invoice": self.invoice,
                "amount": self.amount_minor, "metadata": self.metadata })
    }
}

impl Stripe {
    pub(super) fn create_credit_note(&mut self, request: &Request) -> Result<Value, Reply> {
        let amount = number(request, "amount")?;
        let back = match request.param("credit_amount") {
            "" => 0,
            _ => number(request, "credit_amount")?,
        };
        let id = self.id("cn");
        let invoice = self.invoice(request.param("invoice"))?;
        if !["open", "paid"].contains(&invoice.status) {
            return Err(invalid("invoice", "Credit notes are for finalized invoices"));
        }
        let (before, remaining) = (invoice.credited_before_minor, invoice.remaining_minor());
        let off = amount.min(remaining);
        if amount > invoice.total_minor() - before - invoice.credited_after_minor {
            return Err(invalid("amount", "The sum of credit notes exceeds the invoice"));
        }
        if back != amount - off {
            let wanted = format!("credit_amount must be {}", amount - off);
            return Err(invalid("credit_amount", &wanted));
        }
        invoice.credited_before_minor += off;
        invoice.credited_after_minor += back;
        if invoice.remaining_minor() == 0 {
            invoice.status = "paid";
        }
        let owner = invoice.customer.clone();
        if let Some(customer) = self.customer(&owner) {
            customer.balance_minor -= back;
        }
        let note = CreditNote {
            id,
            invoice: request.param("invoice").to_owned(),
            amount_minor: amount,
            memo: request.param("memo").to_owned(),
            metadata: metadata(request, "metadata"),
        };
        let answer = note.json();
        self.credit_notes.push(note);
        Ok(answer)
    }

    pub(super) fn list_credit_notes(&self, request: &Request) -> Value {
        let invoice = request.param("invoice");
        let fits = |note: &&CreditNote| invoice.is_empty() || note.invoice == invoice;
        let fitting = self.credit_notes.iter().rev().filter(fits);
        page(request, fitting.map(|note| (note.id.as_str(), move || note.json())))
    }
}
