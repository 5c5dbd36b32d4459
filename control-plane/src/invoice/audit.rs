//! Whether the lines of stored invoices are what their terms make of the quantities that they have billed.
//!
//! Lines that credits pay are left out: the credits' own account has them.

use std::collections::{BTreeSet, HashMap};

use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use sqlx::PgConnection;
use weir_domain::{
    billing_period::{BillingPeriod, Quarter},
    invoice::{self, Invoice, Subject},
};

use super::{
    Error,
    terms::{self, Terms, in_force},
    usage::{QuantityRow, add, to_usage},
};

/// A line that is another one than it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineDiffers {
    pub invoice: i64,
    pub what: String,
    /// Whether it is an amount, in minor units.
    pub is_money: bool,
    /// What is stored, and what should be; `None` for nothing.
    pub stored: Option<String>,
    pub computed: Option<String>,
}

/// A line as far as it is compared.
struct Line {
    position: i32,
    name: String,
    /// The invoice of the period that it is for, where that is another one.
    adjusts: Option<i64>,
    quantity: Option<Decimal>,
    amount_minor: i64,
}

/// What an invoice has billed of a period.
struct Billed {
    invoice: i64,
    is_rebilled: bool,
    row: QuantityRow,
}

/// What is stored of some invoices.
struct Stored {
    lines: HashMap<i64, Vec<Line>>,
    /// By the invoice that closed the period.
    billed: HashMap<i64, Vec<Billed>>,
    terms: HashMap<i64, (BillingPeriod, Vec<Terms>)>,
    /// For which closed periods each has billed something.
    late: HashMap<i64, BTreeSet<i64>>,
    rebilled: BTreeSet<i64>,
}

/// What differs in these invoices, in their order.
pub async fn differences(
    db: &mut PgConnection,
    invoices: &[i64],
) -> Result<Vec<LineDiffers>, Error> {
    let stored = Stored::read(db, invoices).await?;
    let mut found = Vec::new();
    for invoice in invoices {
        stored.compare_own(*invoice, &mut found);
        stored.compare_late(*invoice, &mut found);
    }
    Ok(found)
}

impl Stored {
    async fn read(db: &mut PgConnection, invoices: &[i64]) -> Result<Self, Error> {
        let lines = lines(db, invoices).await?;
        let rows = sqlx::query!(
            "select distinct invoice_id, period_invoice_id from invoice_quantity
             where invoice_id = any($1) and invoice_id <> period_invoice_id",
            invoices,
        )
        .fetch_all(&mut *db)
        .await?;
        let mut late = HashMap::<i64, BTreeSet<i64>>::new();
        for row in rows {
            late.entry(row.invoice_id).or_default().insert(row.period_invoice_id);
        }
        for (invoice, lines) in &lines {
            for period in lines.iter().filter_map(|line| line.adjusts) {
                late.entry(*invoice).or_default().insert(period);
            }
        }
        let mut periods = invoices.to_vec();
        periods.extend(late.values().flatten());
        let rebilled =
            sqlx::query_scalar!("select id from invoice where id = any($1) and rebilled", invoices);
        Ok(Self {
            rebilled: rebilled.fetch_all(&mut *db).await?.into_iter().collect(),
            billed: billed(db, &periods).await?,
            terms: terms::of_invoices(db, &periods).await?,
            lines,
            late,
        })
    }

    /// The lines for the invoice's own period.
    fn compare_own(&self, invoice: i64, found: &mut Vec<LineDiffers>) {
        let mut own = self.lines_of(invoice).filter(|line| line.adjusts.is_none());
        let rows = self.rows_of(invoice).filter(|billed| billed.invoice == invoice);
        let computed = match self.price(invoice, rows) {
            Ok(computed) => computed,
            Err(error) => return found.push(unpriced(invoice, error)),
        };
        for line in computed.lines {
            let quantity = match line.subject {
                Subject::Price { ref price, quantity, .. } if price.charge.unit().is_some() => {
                    Some(Decimal::from(quantity))
                }
                _ => None,
            };
            let amount_minor = line.amount.minor();
            let stored = own.next();
            let (place, name) = stored.map_or_else(
                || ("one more line".to_owned(), line.subject.name(&TimeZone::UTC)),
                |line| (format!("line {}", line.position), line.name.clone()),
            );
            let differs = |what: &str, is_money, stored, computed| LineDiffers {
                invoice,
                what: format!("{place} ({name}): {what}"),
                is_money,
                stored,
                computed,
            };
            let of_stored = stored.and_then(|line| line.quantity);
            if stored.is_some() && of_stored != quantity {
                let text = |quantity: Option<Decimal>| quantity.map(|it| it.to_string());
                found.push(differs("quantity", false, text(of_stored), text(quantity)));
            } else if stored.is_none_or(|line| line.amount_minor != amount_minor) {
                let of_stored = stored.map(|line| line.amount_minor.to_string());
                found.push(differs("amount", true, of_stored, Some(amount_minor.to_string())));
            }
        }
        found.extend(own.map(|line| line.is_extra(invoice)));
    }

    /// The lines for what came late for other periods, by what was billed of these before. What a rebilled
    /// invoice saw of that is not known any more.
    fn compare_late(&self, invoice: i64, found: &mut Vec<LineDiffers>) {
        let periods = self.late.get(&invoice).into_iter().flatten();
        for period in periods.filter(|_| !self.rebilled.contains(&invoice)) {
            let computed = match self.late_minor(invoice, *period) {
                Ok(computed) => computed,
                Err(error) => {
                    found.push(unpriced(invoice, error));
                    continue;
                }
            };
            let line = self.lines_of(invoice).find(|line| line.adjusts == Some(*period));
            let stored = line.map(|line| line.amount_minor);
            if stored.unwrap_or_default() != computed {
                let name = line.map_or("late usage", |line| &line.name);
                found.push(LineDiffers {
                    invoice,
                    what: format!("{name}, of the invoice with id {period}: amount"),
                    is_money: true,
                    stored: stored.map(|minor| minor.to_string()),
                    computed: Some(computed.to_string()),
                });
            }
        }
    }

    /// What the invoice has added to the price of a closed period.
    fn late_minor(&self, invoice: i64, period: i64) -> Result<i64, Error> {
        let billed_before = |end: i64| {
            let rows = self.rows_of(period);
            rows.filter(move |billed| billed.invoice < end && !billed.is_rebilled)
        };
        let before = self.price(period, billed_before(invoice))?.total;
        let now = self.price(period, billed_before(invoice.saturating_add(1)))?.total;
        Ok(now.checked_sub(before).map_err(Error::stored)?.minor())
    }

    /// The period that an invoice has closed, by its terms, with these quantities.
    fn price<'a>(
        &self,
        period_invoice: i64,
        rows: impl Iterator<Item = &'a Billed>,
    ) -> Result<Invoice, Error> {
        let (period, terms) =
            self.terms.get(&period_invoice).ok_or_else(|| Error::stored("it has no terms"))?;
        let mut sums = Vec::new();
        for billed in rows {
            add(&mut sums, billed.row.clone())?;
        }
        Ok(invoice::draw_up(*period, &in_force(terms), &to_usage(&sums)?, &[])?)
    }

    fn lines_of(&self, invoice: i64) -> impl Iterator<Item = &Line> {
        self.lines.get(&invoice).into_iter().flatten()
    }

    fn rows_of(&self, period_invoice: i64) -> impl Iterator<Item = &Billed> {
        self.billed.get(&period_invoice).into_iter().flatten()
    }
}

impl Line {
    fn is_extra(&self, invoice: i64) -> LineDiffers {
        LineDiffers {
            invoice,
            what: format!("line {} ({})", self.position, self.name),
            is_money: true,
            stored: Some(self.amount_minor.to_string()),
            computed: None,
        }
    }
}

/// What is stored can't be priced at all.
fn unpriced(invoice: i64, error: Error) -> LineDiffers {
    LineDiffers {
        invoice,
        what: "what its quantities cost".to_owned(),
        is_money: false,
        stored: None,
        computed: Some(error.to_string()),
    }
}

/// In the order of their positions.
async fn lines(db: &mut PgConnection, invoices: &[i64]) -> Result<HashMap<i64, Vec<Line>>, Error> {
    let rows = sqlx::query!(
        "select invoice_id, position, name, adjusts_invoice_id, quantity, amount_minor from invoice_line
         where invoice_id = any($1) and rule ->> 'kind' is distinct from 'credit'
         order by invoice_id, position",
        invoices,
    )
    .fetch_all(db)
    .await?;
    let mut lines = HashMap::<i64, Vec<Line>>::new();
    for row in rows {
        lines.entry(row.invoice_id).or_default().push(Line {
            position: row.position,
            name: row.name,
            adjusts: row.adjusts_invoice_id,
            quantity: row.quantity,
            amount_minor: row.amount_minor,
        });
    }
    Ok(lines)
}

/// All that was billed of the periods that these invoices have closed.
async fn billed(
    db: &mut PgConnection,
    periods: &[i64],
) -> Result<HashMap<i64, Vec<Billed>>, Error> {
    let rows = sqlx::query!(
        "select period_invoice_id, invoice_id, rebilled, starts_at, meter, model, tokens, requests
         from invoice_quantity join invoice on invoice.id = invoice_id
         where period_invoice_id = any($1)",
        periods,
    )
    .fetch_all(db)
    .await?;
    let mut billed = HashMap::<i64, Vec<Billed>>::new();
    for row in rows {
        billed.entry(row.period_invoice_id).or_default().push(Billed {
            invoice: row.invoice_id,
            is_rebilled: row.rebilled,
            row: QuantityRow {
                starts_at: Quarter::containing(row.starts_at.to_jiff()),
                meter: row.meter,
                model: row.model,
                tokens: row.tokens,
                requests: row.requests,
            },
        });
    }
    Ok(billed)
}
