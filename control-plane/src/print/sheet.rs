//! What stands on a printed invoice or credit note, in words.

use jiff::{Timestamp, tz::TimeZone};
use sqlx::PgConnection;
use weir_domain::money::Money;

use crate::{
    credit_balance,
    invoice::{Invoice, InvoiceState, credit::CreditNote, view::Line},
    portal::{
        format::{grouped, instant_in},
        words::details,
    },
    problem::ApiError,
};

/// A document to be printed.
#[derive(Debug)]
pub struct Sheet {
    pub title: &'static str,
    /// Empty until it has one.
    pub number: String,
    /// Said across the head, such as that the invoice is void.
    pub stamp: Option<&'static str>,
    pub facts: Vec<(&'static str, String)>,
    /// In lines, as all that follows; the first is the name. May be empty.
    pub seller: Vec<String>,
    pub buyer: Vec<String>,
    pub currency: String,
    pub rows: Vec<Row>,
    pub total: String,
    pub note: Vec<String>,
}

/// A line of the invoice.
#[derive(Debug)]
pub struct Row {
    pub name: String,
    /// How the amount comes about; may be empty.
    pub details: String,
    /// May be empty, as the next.
    pub quantity: String,
    pub unit_price: String,
    pub amount: String,
}

/// What an invoice says beside its lines.
struct Frame {
    seller: String,
    buyer: String,
    note: String,
    time_zone: String,
    due_at: Option<jiff_sqlx::Timestamp>,
}

impl Sheet {
    /// Reads what stands around the lines of `invoice`: as it was when the invoice was made, and for
    /// a draft as it is now.
    pub async fn read(db: &mut PgConnection, invoice: &Invoice) -> Result<Self, ApiError> {
        let frame = match invoice.id {
            Some(id) => Frame::of_invoice(&mut *db, id).await?,
            None => {
                sqlx::query_as!(
                    Frame,
                    r#"select seller, trim(trailing E'\n' from name || E'\n' || billing_address) as "buyer!",
                              note, time_zone, null::timestamptz as due_at
                       from tenant cross join invoice_settings where id = $1"#,
                    invoice.tenant,
                )
                .fetch_one(&mut *db)
                .await?
            }
        };
        let zone = TimeZone::get(&frame.time_zone).map_err(ApiError::internal)?;
        let mut sheet = Self::of(invoice, &frame, &zone);
        if let Some(left) = credit_left(db, invoice).await? {
            sheet.facts.push(("Credit left", grouped(&left.decimal().to_string())));
        }
        Ok(sheet)
    }

    /// A credit note is between those that its invoice names.
    pub async fn of_credit_note(
        db: &mut PgConnection,
        note: &CreditNote,
    ) -> Result<Self, ApiError> {
        let frame = Frame::of_invoice(db, note.invoice).await?;
        let zone = TimeZone::get(&frame.time_zone).map_err(ApiError::internal)?;
        let invoice = note.invoice_number.clone().unwrap_or_default();
        let amount = grouped(&note.amount.to_string());
        Ok(Self {
            title: "Credit note",
            number: note.number.clone(),
            stamp: None,
            facts: vec![
                ("Date", day(&zone, note.created_at)),
                ("Invoice", invoice.clone()),
                ("Account", note.tenant.clone()),
            ],
            seller: lines(&frame.seller),
            buyer: lines(&frame.buyer),
            currency: note.currency.to_string(),
            rows: vec![Row {
                name: format!("Credit for invoice {invoice}"),
                details: note.reason.clone(),
                quantity: String::new(),
                unit_price: String::new(),
                amount: amount.clone(),
            }],
            total: amount,
            note: Vec::new(),
        })
    }

    fn of(invoice: &Invoice, frame: &Frame, zone: &TimeZone) -> Self {
        let (from, to) = (invoice.period_start, invoice.period_end);
        let mut facts = Vec::new();
        facts.extend(invoice.created_at.map(|at| ("Date", day(zone, at))));
        facts.extend(frame.due_at.map(|at| ("Due", day(zone, at.to_jiff()))));
        facts.push(("Period", format!("{} to {}", instant_in(zone, from), instant_in(zone, to))));
        facts.push(("Times in", frame.time_zone.clone()));
        facts.push(("Account", invoice.tenant.clone()));
        facts.extend(invoice.final_at.map(|at| ("Final", instant_in(zone, at))));
        Self {
            title: if invoice.number.is_some() { "Invoice" } else { "Draft invoice" },
            number: invoice.number.clone().unwrap_or_default(),
            stamp: stamp(invoice.state),
            facts,
            seller: lines(&frame.seller),
            buyer: lines(&frame.buyer),
            currency: invoice.currency.to_string(),
            rows: invoice.lines.iter().map(Row::of).collect(),
            total: grouped(&invoice.total.to_string()),
            note: lines(&frame.note),
        }
    }

    /// For a file, without an ending.
    pub fn file_name(&self) -> &str {
        if self.number.is_empty() { "draft-invoice" } else { &self.number }
    }
}

/// What is left of the tenant's credits for later invoices; `None` where it has none.
async fn credit_left(db: &mut PgConnection, invoice: &Invoice) -> Result<Option<Money>, ApiError> {
    if let Some(id) = invoice.id {
        return Ok(credit_balance::after_invoice(db, id).await?);
    }
    let credits = credit_balance::left(db, &invoice.tenant, invoice.period_end).await?;
    let zero = Money::zero(invoice.currency);
    let left = credits.iter().try_fold(zero, |sum, credit| sum.checked_add(credit.left));
    let mut left = left.map_err(ApiError::internal)?.decimal();
    // What the draft pays from them is not used yet. Its amount is negative.
    for line in invoice.lines.iter().filter(|line| line.credit.is_some()) {
        left = left.checked_add(line.amount).unwrap_or(left);
    }
    let minor = left.mantissa().try_into().ok().filter(|_| !credits.is_empty());
    Ok(minor.map(|minor| Money::new(minor, invoice.currency)))
}

impl Frame {
    /// As it was when the invoice was made.
    async fn of_invoice(db: &mut PgConnection, id: i64) -> sqlx::Result<Self> {
        sqlx::query_as!(
            Self,
            r#"select seller, buyer, note, time_zone, due_at as "due_at?" from invoice where id = $1"#,
            id,
        )
        .fetch_one(db)
        .await
    }
}

impl Row {
    fn of(line: &Line) -> Self {
        let quantity = line.quantity.zip(line.unit).map(|(quantity, unit)| {
            format!("{} {}", grouped(&quantity.to_string()), unit.as_str())
        });
        Self {
            name: line.name.clone(),
            details: details(line),
            quantity: quantity.unwrap_or_default(),
            unit_price: line.unit_price.map(|price| price.to_string()).unwrap_or_default(),
            amount: grouped(&line.amount.to_string()),
        }
    }
}

fn stamp(state: InvoiceState) -> Option<&'static str> {
    match state {
        InvoiceState::Draft | InvoiceState::Grace => Some("Draft: it changes until it is final"),
        InvoiceState::Final | InvoiceState::Sent => None,
        InvoiceState::Overdue => Some("Overdue"),
        InvoiceState::Paid => Some("Paid"),
        InvoiceState::Void => Some("Void"),
    }
}

fn day(zone: &TimeZone, at: Timestamp) -> String {
    zone.to_datetime(at).strftime("%-d %B %Y").to_string()
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}
