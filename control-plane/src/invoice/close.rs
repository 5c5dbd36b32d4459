//! Closing billing periods. What is billed is read from one snapshot, before. Then the period is closed in a
//! transaction that holds the tenant's row and drops what is out of date, so that several runs at once make
//! each invoice once, and one that is killed leaves whole invoices behind.

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
    grants, late, period, store,
};
use crate::{plan_change, terms};

/// Makes the invoice of the tenant's first period without one, if that period has ended by `ended_by`.
/// Returns its id.
pub async fn close_ended(
    db: &PgPool,
    tenant: &TenantId,
    ended_by: Timestamp,
) -> Result<Option<i64>, Error> {
    loop {
        let (mut reader, read_at) = late::snapshot(db).await?;
        let open = period::open(&mut reader, tenant).await?;
        let Some(period) = open.ended_by(Quarter::containing(ended_by))? else { return Ok(None) };
        let draft = draft::draw_up(&mut reader, open.due(tenant.clone(), period), read_at).await?;
        reader.commit().await?;
        if draft.is_nothing() {
            return Ok(None);
        }
        if let Some(id) = close(db, draft, read_at, None).await? {
            return Ok(Some(id));
        }
    }
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
        // Prices that change with this quarter hour are seen, and others do not change before its end.
        let quarter = Quarter::containing(terms::read_point(db).await?);
        let (mut reader, read_at) = late::snapshot(db).await?;
        let open = period::open(&mut reader, tenant).await?;
        if open.start() > quarter {
            return Err(Error::NotStarted(open.start().start()));
        }
        let whole = open.period()?;
        let end = match open.is_after_close() {
            true => quarter.next(),
            false => whole.end().min(quarter.next()),
        };
        let ended = BillingPeriod::new(whole.start(), end)?;
        let draft = draft::draw_up(&mut reader, open.due(tenant.clone(), ended), read_at).await?;
        reader.commit().await?;
        if draft.is_nothing() {
            let text = format!("{tenant} is closed, and all that it used is billed");
            return Err(Error::Refused(text));
        }
        let early = (ended.end() < whole.end()).then(|| ended.end());
        match close(db, draft, read_at, early).await? {
            Some(id) if ended.contains(quarter) => return Ok(id),
            _ => {}
        }
    }
}

/// Makes the invoices up to where a closed tenant's last period ends. Returns the id of the last one,
/// if any was missing.
pub async fn close_account(db: &PgPool, tenant: &TenantId) -> Result<Option<i64>, Error> {
    let mut last = None;
    // Prices that changed before it was closed are seen.
    terms::read_point(db).await?;
    loop {
        let (mut reader, read_at) = late::snapshot(db).await?;
        let open = period::open(&mut reader, tenant).await?;
        if open.is_after_close() {
            return Ok(last);
        }
        let due = open.due(tenant.clone(), open.period()?);
        let draft = draft::draw_up(&mut reader, due, read_at).await?;
        reader.commit().await?;
        last = close(db, draft, read_at, None).await?.or(last);
    }
}

/// Closes the period of a draft that was read before; `None` where it is out of date. Where it ends `early`,
/// what waits for the next period follows.
async fn close(
    db: &PgPool,
    draft: Draft,
    read_at: Timestamp,
    early: Option<Quarter>,
) -> Result<Option<i64>, Error> {
    let mut tx = db.begin().await?;
    let tenant = draft.due.tenant.clone();
    let drafts = hold(&mut tx, vec![draft]).await?;
    let Some(id) = store::store(&mut tx, &drafts, read_at).await?.pop() else { return Ok(None) };
    if let Some(end) = early {
        plan_change::follow(&mut tx, &tenant, end.start()).await?;
    }
    tx.commit().await?;
    Ok(Some(id))
}

/// How many periods were closed, of how many that were to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closed {
    pub(super) made: u64,
    pub(super) of: u64,
    /// How many were out of date, and may have to be drawn up again.
    pub(super) stale: u64,
}

/// Closes the periods of `drafts`, which were read before; those that are out of date are dropped.
pub(super) async fn close_drawn_up(
    db: PgPool,
    drafts: Vec<Draft>,
    read_at: Timestamp,
) -> Result<Closed, Error> {
    let of = drafts.len() as u64;
    let mut tx = db.begin().await?;
    let mut drafts = hold(&mut tx, drafts).await?;
    let stale = of.saturating_sub(drafts.len() as u64);
    drafts.retain(|draft| !draft.is_nothing());
    let made = store::store(&mut tx, &drafts, read_at).await?.len() as u64;
    tx.commit().await?;
    Ok(Closed { made, of, stale })
}

/// Holds the tenants of `drafts`. Returns those drafts that are not out of date: nobody has closed or
/// reopened a period of the tenant since, or taken back a credit that the draft uses, and nobody does before
/// the end of the transaction.
async fn hold(tx: &mut PgConnection, mut drafts: Vec<Draft>) -> Result<Vec<Draft>, Error> {
    let tenants: Vec<String> = drafts.iter().map(|draft| draft.due.tenant.to_string()).collect();
    period::lock_all(tx, &tenants).await?;
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
    drafts.retain(|draft| last.get(draft.due.tenant.as_str()) == Some(&draft.due.last));
    grants::drop_overdrawn(tx, &mut drafts).await?;
    Ok(drafts)
}
