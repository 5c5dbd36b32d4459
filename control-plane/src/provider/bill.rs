//! An invoice as providers get it.

use sqlx::PgPool;
use weir_domain::currency::Currency;

use super::call::{Failure, Refusal};

/// The most lines that a provider takes: Stripe's limit for an invoice.
pub const MAX_LINES: usize = 250;
/// The longest description that a provider takes, in characters: Chargebee's limit.
const MAX_DESCRIPTION: usize = 250;

#[derive(Debug, Clone)]
pub struct Bill {
    /// Names the invoice at the provider, also after the database was restored from a backup.
    pub reference: String,
    /// Ours.
    pub number: String,
    pub tenant: String,
    pub tenant_name: String,
    pub currency: Currency,
    /// In seconds since 1970.
    pub period_start: i64,
    pub period_end: i64,
    /// How long there is to pay it, from when it was made.
    pub days_until_due: i64,
    pub total_minor: i64,
    pub is_void: bool,
    /// At most [`MAX_LINES`]; they add up to the total.
    pub lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its position, from 1.
    pub id: i32,
    pub description: String,
    pub amount_minor: i64,
}

/// What names invoices and customers of this deployment.
pub async fn deployment(db: &PgPool) -> Result<String, sqlx::Error> {
    sqlx::query_scalar!("select name from deployment").fetch_one(db).await
}

/// Whether a reference is one of this deployment.
pub fn is_of(reference: &str, deployment: &str) -> bool {
    reference.strip_prefix(deployment).is_some_and(|rest| rest.starts_with('-'))
}

impl Bill {
    /// Reads the invoice `id`.
    pub async fn read(db: &PgPool, id: i64) -> Result<Self, Failure> {
        let row = sqlx::query!(
            r#"select number, invoice.tenant_id, tenant.name, currency, period_start, period_end,
                      round(extract(epoch from due_at - invoice.created_at) / 86400)::bigint as "days_until_due!",
                      total_minor, invoice.state = 'void' as "is_void!", reference
               from invoice join tenant on tenant.id = invoice.tenant_id
               join delivery on invoice_id = invoice.id
               where invoice.id = $1"#,
            id,
        )
        .fetch_one(db)
        .await?;
        let lines = sqlx::query!(
            "select position, name, quantity::text as quantity, charge ->> 'unit' as unit, amount_minor
             from invoice_line where invoice_id = $1 order by position",
            id,
        )
        .fetch_all(db)
        .await?;
        let lines = lines.into_iter().map(|row| Line {
            id: row.position,
            description: describe(&row.name, row.quantity.as_deref(), row.unit.as_deref()),
            amount_minor: row.amount_minor,
        });
        let number = row.number.unwrap_or_default();
        let lines = fold(lines.collect(), &number)
            .ok_or_else(|| Refusal::found("the lines are too large to be added up"))?;
        let sum = lines.iter().try_fold(0_i64, |sum, line| sum.checked_add(line.amount_minor));
        if sum != Some(row.total_minor) {
            return Err(Refusal::found(format!(
                "the lines of the invoice with id {id} do not add up to its total; nothing more was sent. Look for what changed its rows in Postgres"
            )));
        }
        Ok(Self {
            reference: row.reference,
            number,
            tenant: row.tenant_id,
            tenant_name: row.name,
            currency: Currency::new(&row.currency)
                .map_err(|error| Refusal::found(error.to_string()))?,
            period_start: row.period_start.to_jiff().as_second(),
            period_end: row.period_end.to_jiff().as_second(),
            days_until_due: row.days_until_due.max(0),
            total_minor: row.total_minor,
            is_void: row.is_void,
            lines,
        })
    }
}

fn describe(name: &str, quantity: Option<&str>, unit: Option<&str>) -> String {
    let text = match quantity {
        Some(quantity) => format!("{name}: {quantity} {}", unit.unwrap_or("units")),
        None => name.to_owned(),
    };
    text.chars().take(MAX_DESCRIPTION).collect()
}

/// Where there are more lines than a provider takes, the last one stands for all that are left, with
/// their sum. `None` where that overflows.
fn fold(mut lines: Vec<Line>, number: &str) -> Option<Vec<Line>> {
    if lines.len() <= MAX_LINES {
        return Some(lines);
    }
    let rest = lines.split_off(MAX_LINES - 1);
    let amount_minor =
        rest.iter().try_fold(0_i64, |sum, line| sum.checked_add(line.amount_minor))?;
    let first = rest.first()?.id;
    let description = format!("{} more lines, see invoice {number}", rest.len());
    lines.push(Line { id: first, description, amount_minor });
    Some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: i32) -> Vec<Line> {
        let line = |id| Line { id, description: String::new(), amount_minor: i64::from(id) };
        (1..=count).map(line).collect()
    }

    #[test]
    fn what_is_too_much_is_one_line_with_the_same_sum() {
        assert_eq!(fold(lines(250), "INV-1"), Some(lines(250)));
        let folded = fold(lines(300), "INV-1").unwrap();
        assert_eq!((folded.len(), folded[249].id), (250, 250));
        assert_eq!(folded[249].description, "51 more lines, see invoice INV-1");
        let sum = |lines: &[Line]| lines.iter().map(|line| line.amount_minor).sum::<i64>();
        assert_eq!(sum(&folded), sum(&lines(300)));
        let most = Line { id: 1, description: String::new(), amount_minor: i64::MAX };
        assert_eq!(fold(vec![most; 300], ""), None);
    }

    #[test]
    fn references_are_of_one_deployment() {
        assert!(is_of("0123456789ab-17", "0123456789ab"));
        for other in ["0123456789ac-17", "0123456789ab17", "17", ""] {
            assert!(!is_of(other, "0123456789ab"), "{other}");
        }
    }
}
