//! Closing billing periods. Each is closed in a transaction that holds the tenant's row, so that several
//! runs at once make each invoice once, and one that is killed leaves whole invoices behind.

use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::{PgConnection, PgPool};
use weir_domain::{
    billing_period::{BillingPeriod, Quarter},
    id::TenantId,
};

use super::{
    Error,
    draft::{self, Draft},
    late,
    period::{self, Due},
    store,
};
use crate::plan_change;

/// Makes the invoice of the tenant's first period without one, if that period has ended by `ended_by`.
/// Returns its id.
pub async fn close_ended(
    db: &PgPool,
    tenant: &TenantId,
    ended_by: Timestamp,
) -> Result<Option<i64>, Error> {
    let mut tx = db.begin().await?;
    period::lock(&mut tx, tenant).await?;
    let open = period::open(&mut tx, tenant).await?;
    let Some(period) = open.ended_by(Quarter::containing(ended_by))? else { return Ok(None) };
    let id = make(&mut tx, open.due(tenant.clone(), period)).await?;
    tx.commit().await?;
    Ok(id)
}

/// Makes the invoices of all periods of the tenant that have ended, without waiting for their grace to
/// pass. Returns their ids, oldest first; without any it is an error.
pub async fn finalize(db: &PgPool, tenant: &TenantId) -> Result<Vec<i64>, Error> {
    let now = period::now(&mut *db.acquire().await?).await?;
    let mut made = Vec::new();
    while let Some(id) = close_ended(db, tenant, now).await? {
        made.push(id);
    }
    if !made.is_empty() {
        return Ok(made);
    }
    let open = period::open(&mut *db.acquire().await?, tenant).await?.running_at(now)?;
    Err(Error::Refused(format!(
        "{tenant} has no billing period that has ended and has no invoice; the current one ends at {}",
        open.period()?.end().start()
    )))
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
        let end = match open.is_after_close() {
            true => quarter.next(),
            false => whole.end().min(quarter.next()),
        };
        let ended = BillingPeriod::new(whole.start(), end)?;
        let id = make(&mut tx, open.due(tenant.clone(), ended)).await?.ok_or_else(|| {
            Error::Refused(format!("{tenant} is closed, and all that it used is billed"))
        })?;
        if ended.end() < whole.end() {
            plan_change::follow(&mut tx, tenant, ended.end().start()).await?;
        }
        tx.commit().await?;
        if ended.contains(quarter) {
            return Ok(id);
        }
    }
}

/// Makes the invoices up to where a closed tenant's last period ends. Returns the id of the last one,
/// if any was missing.
pub async fn close_account(db: &PgPool, tenant: &TenantId) -> Result<Option<i64>, Error> {
    let mut last = None;
    loop {
        let mut tx = db.begin().await?;
        period::lock(&mut tx, tenant).await?;
        let open = period::open(&mut tx, tenant).await?;
        if open.is_after_close() {
            return Ok(last);
        }
        last = make(&mut tx, open.due(tenant.clone(), open.period()?)).await?;
        tx.commit().await?;
    }
}

/// Draws an invoice up and stores it; `None` where there is nothing to bill after the tenant was closed.
async fn make(tx: &mut PgConnection, due: Due) -> Result<Option<i64>, Error> {
    let read_at = late::read_point(tx).await?;
    let draft = draft::draw_up(tx, due).await?;
    if draft.is_nothing() {
        return Ok(None);
    }
    Ok(store::store(tx, &[draft], read_at).await?.pop())
}

/// How many periods were closed, of how many that were to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closed {
    pub(super) made: u64,
    pub(super) of: u64,
}

/// Closes the periods of `drafts`, which were read before, unless somebody else has closed or reopened one
/// of the tenant's since: that draft is out of date, and dropped.
pub(super) async fn close_drawn_up(
    db: PgPool,
    mut drafts: Vec<Draft>,
    read_at: jiff_sqlx::Timestamp,
) -> Result<Closed, Error> {
    let of = drafts.len() as u64;
    let mut tx = db.begin().await?;
    let tenants: Vec<String> = drafts.iter().map(|draft| draft.due.tenant.to_string()).collect();
    period::lock_all(&mut tx, &tenants).await?;
    let last = sqlx::query!(
        r#"select tenant.id, last.id as "last?"
           from tenant left join lateral (
             select id from invoice where tenant_id = tenant.id and not rebilled
             order by period_start desc limit 1
           ) last on true
           where tenant.id = any($1)"#,
        &tenants,
    )
    .fetch_all(&mut *tx)
    .await?;
    let last: HashMap<String, Option<i64>> =
        last.into_iter().map(|row| (row.id, row.last)).collect();
    drafts.retain(|draft| {
        !draft.is_nothing() && last.get(draft.due.tenant.as_str()) == Some(&draft.due.last)
    });
    let made = store::store(&mut tx, &drafts, read_at).await?.len() as u64;
    tx.commit().await?;
    Ok(Closed { made, of })
}
