//! The lines of invoices, and what the quantities that they have billed cost by their terms.

use jiff::Timestamp;
use sqlx::PgConnection;

use super::{
    Error, Scope,
    report::{Check, Difference, Found, Section},
};
use crate::invoice::audit;

/// How many invoices are priced at once.
const WAVE: i64 = 2_000;

/// Each invoice is priced once more, from what it has stored.
pub(super) async fn lines(db: &mut PgConnection, scope: &Scope) -> Result<Section, Error> {
    let mut section = Section {
        check: Check::Priced,
        first: "lines of invoices",
        second: "what their quantities cost",
        compared: 0,
        differing: 0,
        differences: Vec::new(),
        awaited: 0,
        awaited_differences: Vec::new(),
    };
    let mut after = 0;
    loop {
        let invoices = wave(db, scope, after).await?;
        let Some(last) = invoices.last() else { return Ok(section) };
        after = last.id;
        section.compared += i64::try_from(invoices.len()).unwrap_or(i64::MAX);
        let ids: Vec<i64> = invoices.iter().map(|invoice| invoice.id).collect();
        for differs in audit::differences(db, &ids).await? {
            section.differing += 1;
            let told = i64::try_from(section.differences.len()).unwrap_or(i64::MAX);
            if told < scope.limit
                && let Ok(place) = ids.binary_search(&differs.invoice)
                && let Some(invoice) = invoices.get(place)
            {
                section.differences.push(invoice.differs(differs)?);
            }
        }
    }
}

struct Row {
    id: i64,
    number: Option<String>,
    tenant_id: String,
    currency: String,
    period_start: Timestamp,
    period_end: Timestamp,
}

impl Row {
    fn differs(&self, differs: audit::LineDiffers) -> Result<Difference, Error> {
        let audit::LineDiffers { invoice, what, is_money, stored, computed } = differs;
        Found {
            tenant: Some(self.tenant_id.clone()),
            invoice: Some(invoice),
            number: self.number.clone(),
            from: self.period_start,
            to: self.period_end,
            what,
            currency: is_money.then(|| self.currency.clone()),
            first: stored,
            second: computed,
        }
        .try_into()
    }
}

/// The first invoices with larger ids than `after`, in their order.
async fn wave(db: &mut PgConnection, scope: &Scope, after: i64) -> Result<Vec<Row>, Error> {
    let rows = sqlx::query!(
        "select id, number, tenant_id, currency, period_start, period_end from invoice
         where id > $4 and ($1::text is null or tenant_id = $1)
           and ($2::timestamptz is null or period_end > $2)
           and ($3::timestamptz is null or period_start < $3)
         order by id limit $5",
        scope.tenant(),
        scope.first() as _,
        scope.end() as _,
        after,
        WAVE,
    )
    .fetch_all(db)
    .await?;
    let rows = rows.into_iter().map(|row| Row {
        id: row.id,
        number: row.number,
        tenant_id: row.tenant_id,
        currency: row.currency,
        period_start: row.period_start.to_jiff(),
        period_end: row.period_end.to_jiff(),
    });
    Ok(rows.collect())
}
