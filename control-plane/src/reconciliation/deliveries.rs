//! What our own rows say of deliveries to a provider.

use sqlx::PgPool;

use super::{Scope, report::Difference};
use crate::provider::{Kind, call::Failure, listed::Window};

/// How much a provider's clock may differ from Postgres', and its dates from times: two days.
const APART_S: i64 = 2 * 86_400;

/// What there is to compare.
pub(super) struct Outline {
    pub(super) delivered: i64,
    pub(super) on_its_way: i64,
    pub(super) window: Option<Window>,
}

/// Deliveries that have failed: nobody goes on with them by itself.
pub(super) async fn failed(
    db: &PgPool,
    provider: Kind,
    scope: &Scope,
) -> Result<Vec<Difference>, Failure> {
    let rows = sqlx::query!(
        r#"select invoice.id, number, invoice.tenant_id, period_start, period_end, invoice.state, step,
                  coalesce(last_error, 'nobody knows why') as "cause!"
           from delivery join invoice on invoice.id = invoice_id
           where provider = $4 and delivery.state = 'failed'
             and ($1::text is null or invoice.tenant_id = $1)
             and ($2::timestamptz is null or period_end > $2)
             and ($3::timestamptz is null or period_start < $3)
           order by invoice.id"#,
        scope.tenant(),
        scope.first() as _,
        scope.end() as _,
        provider.as_str(),
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Difference {
            tenant: Some(row.tenant_id),
            invoice: Some(row.id),
            number: row.number,
            from: row.period_start.to_jiff(),
            to: row.period_end.to_jiff(),
            what: format!("the delivery, which failed at the step \"{}\"", row.step),
            first: Some(row.state),
            second: Some(format!("failed: {}", row.cause)),
            difference: None,
        })
        .collect())
}

pub(super) async fn outline(
    db: &PgPool,
    provider: Kind,
    scope: &Scope,
) -> Result<Outline, Failure> {
    let row = sqlx::query!(
        r#"select count(*) filter (where delivery.state = 'done' and provider_invoice_id is not null) as "delivered!",
                  count(*) filter (where delivery.state = 'open') as "on_its_way!",
                  extract(epoch from min(delivery.created_at))::bigint as first,
                  extract(epoch from case when $3::timestamptz is null then now()
                                          else max(delivery.updated_at) end)::bigint as last,
                  max(customer_id) filter (where $1::text is not null) as customer
           from delivery join provider_customer using (tenant_id, provider)
           join invoice on invoice.id = invoice_id
           where provider = $4 and ($1::text is null or invoice.tenant_id = $1)
             and ($2::timestamptz is null or period_end > $2)
             and ($3::timestamptz is null or period_start < $3)"#,
        scope.tenant(),
        scope.first() as _,
        scope.end() as _,
        provider.as_str(),
    )
    .fetch_one(db)
    .await?;
    let window = row.first.zip(row.last).map(|(first, last)| Window {
        customer: row.customer,
        from: first.saturating_sub(APART_S),
        to: last.saturating_add(APART_S),
    });
    Ok(Outline { delivered: row.delivered, on_its_way: row.on_its_way, window })
}
