//! The steps at Stripe: customer → draft → lines → compare → finalize → send.

use std::collections::HashSet;

use super::{
    outbox::{Delivery, Progress, Step},
    worker::{mismatch, nothing_to_void},
};
use crate::{
    auth,
    provider::{
        bill::{Bill, Line},
        call::{Failure, Refusal},
        claim::Claim,
        stripe::{Invoice, LINES_PER_CALL, NewCustomer, Stripe, amount},
    },
};

/// How much earlier than its period began an invoice may have been made, by Stripe's clock: a day.
const EARLIER_S: i64 = 86_400;

/// A step and all that it needs.
pub(super) struct Work<'a> {
    pub(super) stripe: &'a Stripe,
    pub(super) claim: &'a Claim,
    pub(super) delivery: &'a Delivery,
    pub(super) bill: &'a Bill,
    pub(super) deployment: &'a str,
}

impl Work<'_> {
    /// Carries the step out, unless it can be seen that this has been done.
    pub(super) async fn carry_out(&self) -> Result<Progress, Failure> {
        match self.delivery.step {
            Step::Customer => self.customer().await,
            Step::Create => self.create().await,
            Step::Lines => self.lines().await,
            Step::Compare => self.compare().await,
            Step::Finalize => self.finalize().await,
            Step::Send => self.send().await,
            Step::Void => self.void().await,
            Step::Credit => self.credit().await,
            Step::Reject => Err(Refusal::found("Stripe has no such step; retry the delivery")),
        }
    }

    pub(super) fn key(&self, what: &str) -> String {
        let Delivery { key_generation, .. } = self.delivery;
        format!("weir-{}-{what}-{key_generation}", self.bill.reference)
    }

    async fn customer(&self) -> Result<Progress, Failure> {
        // A delivery that was retried may have an invoice already.
        let next =
            Progress { next: Some(Step::Create), look: self.delivery.again, ..Progress::default() };
        if self.delivery.customer_id.is_some() {
            return Ok(next);
        }
        let Delivery { customer_name, customer_email, key_generation, .. } = self.delivery;
        let customer = NewCustomer {
            tenant: &self.bill.tenant,
            name: customer_name.as_deref().unwrap_or(&self.bill.tenant_name),
            email: customer_email.as_deref(),
            deployment: self.deployment,
        };
        let made = match self.stripe.find_customer(self.claim, &customer).await? {
            Some(known) => known,
            None => {
                // The customer is the tenant's, not the invoice's. With other parameters it must be
                // another key.
                let told = auth::hash(&format!("{customer:?}"));
                let told: String = told.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
                let tenant = customer.tenant;
                let key =
                    format!("weir-{}-customer-{tenant}-{told}-{key_generation}", self.deployment);
                self.stripe.create_customer(self.claim, &customer, &key).await?
            }
        };
        Ok(Progress { customer_id: Some(made.id), ..next })
    }

    async fn create(&self) -> Result<Progress, Failure> {
        // Also the first time: the database may have been restored since it was made.
        let found = self.find().await?;
        let look = found.is_some();
        let invoice = match found {
            Some(invoice) => invoice,
            None => {
                let (customer, key) = (self.customer_id()?, self.key("create"));
                self.stripe.create_invoice(self.claim, self.bill, customer, &key).await?
            }
        };
        let next = Some(if invoice.is("draft") { Step::Lines } else { Step::Compare });
        Ok(Progress { next, look, provider_invoice_id: Some(invoice.id), ..Progress::default() })
    }

    /// The invoice, if it is at Stripe and not void.
    async fn find(&self) -> Result<Option<Invoice>, Failure> {
        if let Some(id) = &self.delivery.provider_invoice_id
            && let Some(invoice) = self.stripe.invoice(self.claim, id).await?
            && !invoice.is("void")
        {
            return Ok(Some(invoice));
        }
        let Some(customer) = &self.delivery.customer_id else { return Ok(None) };
        let wanted = (customer.as_str(), self.bill.reference.as_str());
        let since = self.bill.period_start - EARLIER_S;
        let mut found = self.stripe.find_invoices(self.claim, wanted, since).await?;
        if found.len() > 1 {
            let ids: Vec<_> = found.iter().map(|invoice| invoice.id.as_str()).collect();
            return Err(Refusal::found(format!(
                "Stripe has more than one invoice with the metadata invoice_id={}: {}; void all but one there, then retry",
                self.bill.reference,
                ids.join(", ")
            )));
        }
        Ok(found.pop())
    }

    async fn lines(&self) -> Result<Progress, Failure> {
        let id = self.invoice_id()?;
        let present: HashSet<String> = if self.delivery.again {
            let lines = self.stripe.lines(self.claim, id).await?;
            lines.into_iter().filter_map(|mut line| line.metadata.remove("line_id")).collect()
        } else {
            HashSet::new()
        };
        let missing = |line: &&Line| !present.contains(&line.id.to_string());
        let missing: Vec<&Line> = self.bill.lines.iter().filter(missing).collect();
        for part in missing.chunks(LINES_PER_CALL) {
            let first = part.first().map_or(0, |line| line.id);
            // What the call says depends on what is missing, so the key does too.
            let key = self.key(&format!("lines-{first}-{}", part.len()));
            self.stripe.add_lines(self.claim, (id, self.bill), part, &key).await?;
        }
        Ok(Progress { next: Some(Step::Compare), ..Progress::default() })
    }

    async fn compare(&self) -> Result<Progress, Failure> {
        let invoice = self.stored().await?;
        let ours = amount(self.bill.total_minor, self.bill.currency)?;
        let currency = self.bill.currency.as_str();
        if invoice.total != ours || !invoice.currency.eq_ignore_ascii_case(currency) {
            return Err(mismatch(
                self.claim,
                self.delivery,
                (invoice.total, &invoice.currency),
                (ours, currency),
                &format!(
                    "Stripe's {} was not finalized. Taxes, discounts or lines that were added there make such a difference: mend or delete the draft, then retry",
                    invoice.id
                ),
            ));
        }
        if invoice.is("draft") {
            return Ok(Progress { next: Some(Step::Finalize), ..Progress::default() });
        }
        Ok(finalized(invoice))
    }

    async fn finalize(&self) -> Result<Progress, Failure> {
        if self.delivery.again {
            let invoice = self.stored().await?;
            if !invoice.is("draft") {
                return Ok(finalized(invoice));
            }
        }
        let id = self.invoice_id()?;
        self.stripe.finalize(self.claim, id, &self.key("finalize")).await.map(finalized)
    }

    /// Stripe does not say whether it has sent an invoice: where the key is forgotten, it is sent again.
    async fn send(&self) -> Result<Progress, Failure> {
        let id = self.invoice_id()?;
        let invoice = match self.stripe.send(self.claim, id, &self.key("send")).await {
            Err(Failure::Refused(refusal)) => {
                // Who has paid in the meantime needs no letter.
                let invoice = self.stored().await?;
                if invoice.is("paid") { Ok(invoice) } else { Err(Failure::Refused(refusal)) }
            }
            sent => sent,
        }?;
        Ok(Progress { paid: invoice.is("paid"), ..Progress::default() })
    }

    async fn void(&self) -> Result<Progress, Failure> {
        let Some(invoice) = self.find().await? else {
            return nothing_to_void(self.claim, self.delivery);
        };
        let id = &invoice.id;
        match invoice.status.as_deref() {
            Some("draft") => self.stripe.delete(self.claim, id).await?,
            Some("open" | "uncollectible") => {
                self.stripe.void(self.claim, id, &self.key("void")).await?;
            }
            _ => {
                return Err(Refusal::found(format!(
                    "the invoice is void, but Stripe's {id} is paid and can't be voided; make a credit note or refund it there"
                )));
            }
        }
        Ok(Progress { provider_invoice_id: Some(invoice.id), ..Progress::default() })
    }

    /// The invoice that an earlier step has made.
    pub(super) async fn stored(&self) -> Result<Invoice, Failure> {
        let id = self.invoice_id()?;
        let invoice = self.stripe.invoice(self.claim, id).await?;
        let gone = || Refusal::found(format!("Stripe's {id} is gone; retry to make it again"));
        invoice.filter(|invoice| !invoice.is("void")).ok_or_else(gone)
    }

    fn customer_id(&self) -> Result<&str, Failure> {
        let known = self.delivery.customer_id.as_deref();
        known.ok_or_else(|| Refusal::found("the customer at Stripe is not known; retry"))
    }

    pub(super) fn invoice_id(&self) -> Result<&str, Failure> {
        let known = self.delivery.provider_invoice_id.as_deref();
        known.ok_or_else(|| Refusal::found("the invoice at Stripe is not known; retry"))
    }
}

/// What is next for an invoice that is no draft any more. Stripe marks one with nothing to pay as paid
/// at once, and adds a negative total to the customer's balance: nobody needs to be asked for money.
fn finalized(invoice: Invoice) -> Progress {
    let paid = invoice.is("paid");
    let next = (!paid).then_some(Step::Send);
    Progress { next, paid, provider_number: invoice.number, ..Progress::default() }
}
