//! Closing billing periods. Each is one transaction that holds the tenant's row, so that several
//! runs at once make each invoice once, and one that is killed leaves whole invoices behind.

use jiff::Timestamp;
use sqlx::PgPool;
use weir_domain::{
    billing_period::{BillingPeriod, Quarter},
    id::TenantId,
};

use super::{Error, draft, period, store};
use crate::plan_change;

/// Makes the invoice of the tenant's first period without one, if that period has ended at `as_of`.
/// Returns its id.
pub async fn close_ended(
    db: &PgPool,
    tenant: &TenantId,
    as_of: Timestamp,
) -> Result<Option<i64>, Error> {
    let mut tx = db.begin().await?;
    period::lock(&mut tx, tenant).await?;
    let open = period::open(&mut tx, tenant).await?.period()?;
    if open.end() > Quarter::containing(as_of) {
        return Ok(None);
    }
    let draft = draft::draw_up(&mut tx, tenant, open).await?;
    let id = store::store(&mut tx, tenant, &draft).await?;
    tx.commit().await?;
    Ok(Some(id))
}

/// Ends the tenant's current period with the current quarter hour and makes its invoice, and before
/// it those of earlier periods that have none. Returns the id of the last one.
///
/// What is used in the rest of the quarter hour is late, and comes with the next invoice.
pub async fn end_now(db: &PgPool, tenant: &TenantId) -> Result<i64, Error> {
    loop {
        let mut tx = db.begin().await?;
        period::lock(&mut tx, tenant).await?;
        let open = period::open(&mut tx, tenant).await?;
        let quarter = Quarter::containing(period::now(&mut tx).await?);
        if open.start() > quarter {
            return Err(Error::NotStarted(open.start().start()));
        }
        let whole = open.period()?;
        let ended = BillingPeriod::new(whole.start(), whole.end().min(quarter.next()))?;
        let draft = draft::draw_up(&mut tx, tenant, ended).await?;
        let id = store::store(&mut tx, tenant, &draft).await?;
        if ended.end() < whole.end() {
            plan_change::follow(&mut tx, tenant, ended.end().start()).await?;
        }
        tx.commit().await?;
        if ended.contains(quarter) {
            return Ok(id);
        }
    }
}
