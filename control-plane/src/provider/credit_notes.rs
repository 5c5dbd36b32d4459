//! Credit notes as providers get them.

use serde::Deserialize;
use sqlx::PgPool;

use super::{
    bill::Bill,
    call::{Failure, Refusal},
    chargebee::{self, Chargebee},
    claim::Claim,
    stripe::{self, Object, Stripe},
};

/// What is taken off an invoice that is at the provider.
#[derive(Debug, Clone)]
pub struct CreditNote {
    pub id: i64,
    /// Ours.
    pub number: String,
    /// More than 0.
    pub amount_minor: i64,
    pub reason: String,
}

impl CreditNote {
    /// Those of the invoice that its provider has yet to get, oldest first.
    pub async fn due(db: &PgPool, invoice: i64) -> Result<Vec<Self>, sqlx::Error> {
        sqlx::query_as!(
            Self,
            r#"select id as "id!", number as "number!", amount_minor as "amount_minor!", reason as "reason!"
               from credit_note_due where invoice_id = $1 order by id"#,
            invoice,
        )
        .fetch_all(db)
        .await
    }
}

/// A credit note at the provider.
#[derive(Debug, Clone)]
pub struct Known {
    /// The provider's.
    pub id: String,
    /// Our number of it.
    pub number: String,
}

impl Stripe {
    /// The credit notes of an invoice that are ours.
    pub async fn credit_notes(&self, claim: &Claim, invoice: &str) -> Result<Vec<Known>, Failure> {
        let params = stripe::pairs([("invoice", invoice), ("limit", stripe::PAGE)]);
        let path = &["v1", "credit_notes"];
        let all = self.all(claim, path, "credit_notes", params, |note: &Object| note.id.clone());
        let ours = all.await?.into_iter().filter_map(|mut note| {
            Some(Known { number: note.metadata.remove("credit_note")?, id: note.id })
        });
        Ok(ours.collect())
    }

    /// Takes it off what is to be paid of `invoice`. What has been paid already becomes a credit of the
    /// customer, which its next invoices use up.
    pub async fn create_credit_note(
        &self,
        claim: &Claim,
        (bill, invoice): (&Bill, &stripe::Invoice),
        note: &CreditNote,
        key: &str,
    ) -> Result<Known, Failure> {
        let amount = stripe::amount(note.amount_minor, bill.currency)?;
        let paid = amount.saturating_sub(invoice.amount_remaining.max(0)).max(0);
        let mut params = stripe::pairs([
            ("invoice", &invoice.id),
            ("amount", &amount.to_string()),
            ("memo", &format!("{}: {}", note.number, note.reason)),
            ("metadata[credit_note]", &note.number),
        ]);
        if paid > 0 {
            params.push(("credit_amount".to_owned(), paid.to_string()));
        }
        let path = &["v1", "credit_notes"];
        let made: Object = self.post(claim, path, "credit_notes", params, key).await?;
        Ok(Known { id: made.id, number: note.number.clone() })
    }
}

#[derive(Debug, Deserialize)]
struct OneNote {
    credit_note: Note,
}

#[derive(Debug, Deserialize)]
struct Note {
    id: String,
    customer_notes: Option<String>,
}

#[derive(Debug, Deserialize)]
struct NoteList {
    list: Vec<OneNote>,
    next_offset: Option<String>,
}

impl Chargebee {
    /// The credit notes of an invoice that are ours.
    pub async fn credit_notes(&self, claim: &Claim, invoice: &str) -> Result<Vec<Known>, Failure> {
        let mut known = Vec::new();
        let mut offset: Option<String> = None;
        loop {
            let mut params =
                chargebee::pairs([("reference_invoice_id[is]", invoice), ("limit", "100")]);
            params.extend(offset.take().map(|offset| ("offset".to_owned(), offset)));
            let path = &["api", "v2", "credit_notes"];
            let page: NoteList = self.get(claim, path, "credit_notes", params).await?;
            known.extend(page.list.into_iter().filter_map(|one| {
                let text = one.credit_note.customer_notes?;
                let (number, _) = text.split_once(':')?;
                Some(Known { id: one.credit_note.id, number: number.to_owned() })
            }));
            offset = page.next_offset;
            if offset.is_none() {
                return Ok(known);
            }
        }
    }

    /// Takes it off what is to be paid of `invoice`; where less is to be paid, it is money that the
    /// customer has to get back, which Chargebee takes off its next invoices.
    pub async fn create_credit_note(
        &self,
        claim: &Claim,
        (bill, invoice): (&Bill, &chargebee::Invoice),
        note: &CreditNote,
        key: &str,
    ) -> Result<Known, Failure> {
        let amount = chargebee::amount(note.amount_minor, bill.currency)?;
        let is_due = invoice.amount_due >= amount;
        if !is_due && invoice.amount_due > 0 {
            return Err(Refusal::found(format!(
                "Chargebee's {} is paid in part, and less is to be paid than {} takes off; make credit notes there that do, and name {}: at the beginning of their customer notes",
                invoice.id, note.number, note.number
            )));
        }
        let params = chargebee::pairs([
            ("reference_invoice_id", &invoice.id),
            ("type", if is_due { "adjustment" } else { "refundable" }),
            ("total", &amount.to_string()),
            ("customer_notes", &format!("{}: {}", note.number, note.reason)),
        ]);
        let path = &["api", "v2", "credit_notes"];
        let made: OneNote = self.post(claim, path, "credit_notes/create", params, key).await?;
        Ok(Known { id: made.credit_note.id, number: note.number.clone() })
    }
}
