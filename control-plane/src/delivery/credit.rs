//! The step at which credit notes of an invoice get to its provider: all that are not there yet.

use super::{chargebee, outbox::Progress, stripe};
use crate::provider::{
    call::{Failure, Refusal},
    credit_notes::{CreditNote, Known},
};

impl stripe::Work<'_> {
    pub(super) async fn credit(&self) -> Result<Progress, Failure> {
        let (id, claim) = (self.invoice_id()?, self.claim);
        let due = CreditNote::due(&claim.db, self.delivery.invoice_id).await?;
        if due.is_empty() {
            return Ok(Progress::default());
        }
        let known = match self.delivery.again {
            true => self.stripe.credit_notes(claim, id).await?,
            false => Vec::new(),
        };
        let mut credited = Vec::new();
        for note in due {
            let made = match is_known(&known, &note) {
                Some(made) => made,
                None => {
                    // What is to be paid changes with each of them.
                    let invoice = self.stored().await?;
                    let key = self.key(&format!("credit-{}", note.id));
                    self.stripe
                        .create_credit_note(claim, (self.bill, &invoice), &note, &key)
                        .await?
                }
            };
            credited.push((note.id, made.id));
        }
        // With nothing left to be paid it is paid.
        let paid = self.stored().await?.is("paid");
        Ok(Progress { credited, paid, ..Progress::default() })
    }
}

impl chargebee::Work<'_> {
    pub(super) async fn credit(&self) -> Result<Progress, Failure> {
        let claim = self.claim;
        let due = CreditNote::due(&claim.db, self.delivery.invoice_id).await?;
        if due.is_empty() {
            return Ok(Progress::default());
        }
        let known = match self.delivery.again {
            true => self.chargebee.credit_notes(claim, &self.stored().await?.id).await?,
            false => Vec::new(),
        };
        let mut credited = Vec::new();
        for note in due {
            let made = match is_known(&known, &note) {
                Some(made) => made,
                None => {
                    let invoice = self.stored().await?;
                    if invoice.status == "voided" {
                        return Err(Refusal::found(format!(
                            "Chargebee's {} is void there and not here; void it here, too",
                            invoice.id
                        )));
                    }
                    let key = self.key(&format!("credit-{}", note.id));
                    self.chargebee
                        .create_credit_note(claim, (self.bill, &invoice), &note, &key)
                        .await?
                }
            };
            credited.push((note.id, made.id));
        }
        let paid = self.stored().await?.status == "paid";
        Ok(Progress { credited, paid, ..Progress::default() })
    }
}

fn is_known(known: &[Known], note: &CreditNote) -> Option<Known> {
    known.iter().find(|known| known.number == note.number).cloned()
}
