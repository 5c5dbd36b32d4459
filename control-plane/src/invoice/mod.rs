//! Invoices: drawing them up, storing them, and closing billing periods.
//!
//! A period is closed by its invoice: the next one starts where the last invoice's period ends, and
//! the first at the tenant's creation. All that closes periods holds the tenant's row, so any number
//! of runs may go on at once.
//!
//! | module | subject |
//! |---|---|
//! | [`period`] | which billing period of a tenant is open |
//! | [`dates`] | on which dates the periods of a tenant end |
//! | [`terms`] | the terms by which periods are priced |
//! | [`usage`] | rolled-up quantities |
//! | [`late`] | usage of closed periods that no invoice has priced yet |
//! | [`grants`] | credits, and what invoices use of them |
//! | [`draft`] | an invoice before it is stored: its terms, its usage, and what came late |
//! | [`store`] | writing invoices, and giving them numbers |
//! | [`close`] | closing the periods that have ended, or one before its end |
//! | [`run`] | `weir invoice run` |
//! | [`read`] | reading stored invoices |
//! | [`credit`] | credit notes, and voiding an invoice |
//! | [`rule`] | lines that come from other lines |
//! | [`view`] | an invoice as the API and the pages show it |

pub mod close;
pub mod credit;
mod dates;
mod draft;
pub mod grants;
mod late;
pub mod period;
pub mod read;
mod rule;
pub mod run;
mod store;
mod terms;
mod usage;
pub mod view;

use sqlx::PgConnection;
use thiserror::Error;
use weir_domain::{billing_period::PeriodError, id::TenantId, invoice::InvoiceError};

pub use view::{Invoice, InvoiceState};

use crate::{app::App, problem::ApiError};

/// Why an invoice was not made or changed.
#[derive(Debug, Error)]
pub enum Error {
    #[error("there is no tenant {:?}", .0.as_str())]
    NoTenant(TenantId),
    #[error("the current billing period starts at {0} only; it can be ended once it has started")]
    NotStarted(jiff::Timestamp),
    #[error("there is no invoice {0:?}")]
    NoInvoice(String),
    /// It is not possible as things are; the text says why.
    #[error("{0}")]
    Refused(String),
    /// An amount that can't be credited.
    #[error("amount: {0}")]
    Amount(String),
    #[error("{0}")]
    Invoice(#[from] InvoiceError),
    #[error("{0}")]
    Period(#[from] PeriodError),
    #[error("what is stored for this tenant can't be read: {0}")]
    Stored(String),
    #[error("Postgres: {0}")]
    Sql(#[from] sqlx::Error),
}

impl Error {
    /// Something in the database that no code of this version has written.
    fn stored(error: impl ToString) -> Self {
        Self::Stored(error.to_string())
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::NoTenant(id) => Self::NotFound { what: "tenant", id: id.to_string() },
            Error::NoInvoice(id) => Self::NotFound { what: "invoice", id },
            Error::Amount(detail) => Self::field("amount", detail),
            Error::NotStarted(_) | Error::Refused(_) => Self::Conflict(error.to_string()),
            Error::Sql(error) => error.into(),
            Error::Invoice(_) | Error::Period(_) | Error::Stored(_) => Self::internal(error),
        }
    }
}

/// The invoice of the tenant's current billing period as it would be now. It is not stored.
pub async fn preview(app: &App, tenant: &TenantId) -> Result<Invoice, ApiError> {
    // One snapshot, so that what is billed and what is used belong together.
    let mut tx = app.db.begin_with("begin isolation level repeatable read, read only").await?;
    Ok(preview_in(&mut tx, tenant).await?)
}

/// The same in the snapshot of a transaction that reads more.
pub async fn preview_in(tx: &mut PgConnection, tenant: &TenantId) -> Result<Invoice, Error> {
    let now = period::now(tx).await?;
    let open = period::open(tx, tenant).await?.running_at(now)?;
    let draft = draft::draw_up(tx, open.due(tenant.clone(), open.period()?)).await?;
    Ok(view::of_draft(tenant, &draft))
}
