//! The steps at Chargebee: customer → create → compare, and reject where the total is another one.

use super::{
    outbox::{Delivery, Progress, Step},
    worker::{mismatch, nothing_to_void},
};
use crate::provider::{
    bill::Bill,
    call::{Failure, Refusal},
    chargebee::{Chargebee, Invoice, amount, customer_id},
    claim::Claim,
};

/// How much earlier than its period began an invoice may be dated, by Chargebee's clock: two days.
const EARLIER_S: i64 = 2 * 86_400;

/// A step and all that it needs.
pub(super) struct Work<'a> {
    pub(super) chargebee: &'a Chargebee,
    pub(super) claim: &'a Claim,
    pub(super) delivery: &'a Delivery,
    pub(super) bill: &'a Bill,
}

impl Work<'_> {
    /// Carries the step out, unless it can be seen that this has been done.
    pub(super) async fn carry_out(&self) -> Result<Progress, Failure> {
        match self.delivery.step {
            Step::Customer => self.customer().await,
            Step::Create => self.create().await,
            Step::Compare => self.compare().await,
            Step::Reject => self.reject().await,
            Step::Void => self.void().await,
            Step::Credit => self.credit().await,
            Step::Lines | Step::Finalize | Step::Send => {
                Err(Refusal::found("Chargebee has no such step; retry the delivery"))
            }
        }
    }

    pub(super) fn key(&self, what: &str) -> String {
        let Delivery { key_generation, .. } = self.delivery;
        format!("weir-{}-{what}-{key_generation}", self.bill.reference)
    }

    /// The customer has our id, so that to make it again does no harm.
    async fn customer(&self) -> Result<Progress, Failure> {
        // A delivery that was retried may have an invoice already.
        let next =
            Progress { next: Some(Step::Create), look: self.delivery.again, ..Progress::default() };
        if self.delivery.customer_id.is_some() {
            return Ok(next);
        }
        let Delivery { customer_name, customer_email, .. } = self.delivery;
        let id = customer_id(&self.bill.tenant);
        let name = customer_name.as_deref().unwrap_or(&self.bill.tenant_name);
        let told = (id.as_str(), name, customer_email.as_deref());
        self.chargebee.create_customer(self.claim, told, &self.key("customer")).await?;
        Ok(Progress { customer_id: Some(id), ..next })
    }

    async fn create(&self) -> Result<Progress, Failure> {
        // Also the first time: the database may have been restored since it was made.
        let found = self.find().await?;
        let invoice = match found {
            Some(invoice) => invoice,
            None => {
                let customer = self.delivery.customer_id.as_deref();
                let unknown = || Refusal::found("the customer at Chargebee is not known; retry");
                let (customer, key) = (customer.ok_or_else(unknown)?, self.key("create"));
                self.chargebee.create_invoice(self.claim, self.bill, customer, &key).await?
            }
        };
        let (next, id) = (Some(Step::Compare), invoice.id);
        Ok(Progress {
            next,
            // There the number is the id.
            provider_number: Some(id.clone()),
            provider_invoice_id: Some(id),
            ..Progress::default()
        })
    }

    /// The invoice, if it is at Chargebee and not void.
    async fn find(&self) -> Result<Option<Invoice>, Failure> {
        if let Some(id) = &self.delivery.provider_invoice_id
            && let Some(invoice) = self.chargebee.invoice(self.claim, id).await?
            && invoice.status != "voided"
        {
            return Ok(Some(invoice));
        }
        let Some(customer) = &self.delivery.customer_id else { return Ok(None) };
        let wanted = (customer.as_str(), self.bill.reference.as_str());
        let since = self.bill.period_start - EARLIER_S;
        let mut found = self.chargebee.find_invoices(self.claim, wanted, since).await?;
        if found.len() > 1 {
            let ids: Vec<_> = found.iter().map(|invoice| invoice.id.as_str()).collect();
            return Err(Refusal::found(format!(
                "Chargebee has more than one invoice with the PO number {}: {}; void all but one there, then retry",
                self.bill.reference,
                ids.join(", ")
            )));
        }
        Ok(found.pop())
    }

    async fn compare(&self) -> Result<Progress, Failure> {
        let invoice = self.stored().await?;
        if !self.agrees(&invoice)? {
            return Ok(Progress { next: Some(Step::Reject), ..Progress::default() });
        }
        Ok(Progress { paid: invoice.status == "paid", ..Progress::default() })
    }

    /// What is wrong there must not be asked for.
    async fn reject(&self) -> Result<Progress, Failure> {
        let invoice = self.stored().await?;
        if invoice.status != "voided" {
            self.chargebee.void(self.claim, &invoice.id, &self.key("reject")).await?;
        }
        Err(mismatch(
            self.claim,
            self.delivery,
            (invoice.total, &invoice.currency_code),
            (amount(self.bill.total_minor, self.bill.currency)?, self.bill.currency.as_str()),
            &format!(
                "Chargebee's {} was voided. Taxes or discounts of the site or the customer make such a difference: mend that, then retry to make another one",
                invoice.id
            ),
        ))
    }

    async fn void(&self) -> Result<Progress, Failure> {
        let Some(invoice) = self.find().await? else {
            return nothing_to_void(self.claim, self.delivery);
        };
        let id = invoice.id;
        if invoice.status == "paid" {
            return Err(Refusal::found(format!(
                "the invoice is void, but Chargebee's {id} is paid and can't be voided; make a credit note or refund it there"
            )));
        }
        self.chargebee.void(self.claim, &id, &self.key("void")).await?;
        Ok(Progress { provider_invoice_id: Some(id), ..Progress::default() })
    }

    fn agrees(&self, invoice: &Invoice) -> Result<bool, Failure> {
        let ours = amount(self.bill.total_minor, self.bill.currency)?;
        Ok(invoice.total == ours && invoice.currency_code == self.bill.currency.as_str())
    }

    /// The invoice that an earlier step has made.
    pub(super) async fn stored(&self) -> Result<Invoice, Failure> {
        let id = self.delivery.provider_invoice_id.as_deref();
        let id =
            id.ok_or_else(|| Refusal::found("the invoice at Chargebee is not known; retry"))?;
        let invoice = self.chargebee.invoice(self.claim, id).await?;
        let gone = || Refusal::found(format!("Chargebee's {id} is gone; retry to make it again"));
        invoice.ok_or_else(gone)
    }
}
