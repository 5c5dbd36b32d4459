//! Invoices that are not made yet, as they would be now. They are not stored.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use sqlx::PgConnection;
use utoipa::ToSchema;
use weir_domain::{billing_period::Quarter, id::TenantId};

use super::{Error, Invoice, InvoiceState, draft, period, view};
use crate::{app::App, problem::ApiError};

/// Which of a tenant's invoices that are not made yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Upcoming {
    /// The one that is made next: of the period that has ended, until that invoice is made; then of the
    /// current one.
    #[default]
    Next,
    /// That of the current period. It may count credits and late usage that the one before it will take.
    Current,
}

/// The invoice as it would be now.
pub async fn preview(app: &App, tenant: &TenantId, which: Upcoming) -> Result<Invoice, ApiError> {
    // One snapshot, so that what is billed and what is used belong together.
    let mut tx = app.db.begin_with("begin isolation level repeatable read, read only").await?;
    Ok(preview_in(&mut tx, tenant, which, app.config.invoice_grace()).await?)
}

/// The same in the snapshot of a transaction that reads more.
pub async fn preview_in(
    tx: &mut PgConnection,
    tenant: &TenantId,
    which: Upcoming,
    grace: SignedDuration,
) -> Result<Invoice, Error> {
    let now = period::now(tx).await?;
    let open = period::open(tx, tenant).await?;
    if which == Upcoming::Next
        && let Some(ended) = open.ended_by(Quarter::containing(now))?
    {
        let draft = draft::draw_up(tx, open.due(tenant.clone(), ended), now).await?;
        // After a tenant was closed there may be no such invoice.
        if !draft.is_nothing() {
            let final_at = ended.end().start().checked_add(grace).unwrap_or(Timestamp::MAX);
            let state = InvoiceState::Grace;
            return Ok(Invoice {
                state,
                final_at: Some(final_at),
                ..view::of_draft(tenant, &draft)
            });
        }
    }
    let open = open.running_at(now)?;
    let draft = draft::draw_up(tx, open.due(tenant.clone(), open.period()?), now).await?;
    Ok(view::of_draft(tenant, &draft))
}
