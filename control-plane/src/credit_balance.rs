//! What is left of a tenant's credits, as tenants see it.

use jiff::Timestamp;
use sqlx::PgConnection;
use weir_domain::{currency::Currency, money::Money};

/// A credit of which something is left.
#[derive(Debug, Clone)]
pub struct CreditLeft {
    /// As invoice lines name it.
    pub description: String,
    pub left: Money,
    /// It counts for the invoices of periods that end by then.
    pub expires_at: Option<Timestamp>,
}

/// Those that may pay the invoice of a period that ends at `period_end`, or later ones; what expires first
/// comes first.
pub async fn left(
    db: &mut PgConnection,
    tenant: &str,
    period_end: Timestamp,
) -> Result<Vec<CreditLeft>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select description, currency, left_minor as "left_minor!", expires_at
           from credit join credit_left using (id)
           where tenant_id = $1 and left_minor > 0 and (expires_at is null or expires_at >= $2)
           order by expires_at nulls last, id"#,
        tenant,
        jiff_sqlx::Timestamp::from(period_end) as _,
    )
    .fetch_all(db)
    .await?;
    let credits = rows.into_iter().filter_map(|row| {
        Some(CreditLeft {
            description: row.description,
            left: Money::new(row.left_minor, Currency::new(&row.currency).ok()?),
            expires_at: row.expires_at.map(|at| at.to_jiff()),
        })
    });
    Ok(credits.collect())
}

/// What was left of all credits for later invoices when this one was made; `None` where the tenant had
/// none. It stays the same, whatever is granted, used or taken back afterwards.
pub async fn after_invoice(
    db: &mut PgConnection,
    invoice: i64,
) -> Result<Option<Money>, sqlx::Error> {
    let row = sqlx::query!(
        r#"with known as (
             select credit.amount_minor
                    - coalesce((
                        select sum(used.amount_minor) from credit_use used
                        join invoice user_of_it on user_of_it.id = used.invoice_id
                        where used.credit_id = credit.id and user_of_it.created_at <= made.created_at
                          -- One that was void already had given it back.
                          and not exists (
                            select from credit_note note
                            where note.invoice_id = user_of_it.id and user_of_it.state = 'void'
                              and note.created_at <= made.created_at)
                      ), 0)
                    - coalesce((
                        select sum(reversal.amount_minor) from credit_reversal reversal
                        where reversal.credit_id = credit.id and reversal.created_at <= made.created_at
                      ), 0) as left_minor,
                    made.currency
             from invoice made join credit using (tenant_id, currency)
             where made.id = $1 and credit.created_at <= made.created_at
               and (credit.expires_at is null or credit.expires_at > made.period_end)
           )
           select min(currency) as currency, sum(left_minor)::bigint as left_minor from known"#,
        invoice,
    )
    .fetch_one(db)
    .await?;
    let currency = row.currency.and_then(|currency| Currency::new(&currency).ok());
    Ok(currency.zip(row.left_minor).map(|(currency, left)| Money::new(left, currency)))
}
