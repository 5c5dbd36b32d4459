//! Invoices: drawing them up, storing them, and closing billing periods.
//!
//! A period is closed by its invoice: the next one starts where the last invoice's period ends, and
//! the first at the tenant's creation. All that closes periods holds the tenant's row, so any number
//! of runs may go on at once.
//!
//! An invoice is a draft while its period runs, and then in grace, for late usage to arrive. Both are only
//! computed, never stored: what is stored is final.
//!
//! | module | subject |
//! |---|---|
//! | [`period`] | which billing period of a tenant is open |
//! | [`dates`] | on which dates the periods of a tenant end |
//! | [`calendar`] | in which time zones they end, and the ends of those that are billed again |
//! | [`terms`] | the terms by which periods are priced |
//! | [`usage`] | rolled-up quantities |
//! | [`late`] | usage of closed periods that no invoice has priced yet |
//! | [`quarters`] | what invoices have billed of quarter hours |
//! | [`line_usage`] | the usage that a line has billed |
//! | [`grants`] | credits, and what invoices use of them |
//! | [`draft`] | an invoice before it is stored: its terms, its usage, and what came late |
//! | [`store`] | writing invoices, and giving them numbers |
//! | [`close`] | closing periods of a tenant that have ended, or one before its end |
//! | [`run`] | the same for all tenants: `weir invoice run` |
//! | [`scheduler`] | the task in `weir serve` that does so on time |
//! | [`preview`] | invoices that are not made yet, as they would be now |
//! | [`audit`] | whether stored lines are what stored quantities cost |
//! | [`read`] | reading stored invoices |
//! | [`credit`] | credit notes, and voiding an invoice |
//! | [`payment`] | payments that no provider tells of |
//! | [`rule`] | lines that come from other lines |
//! | [`view`] | an invoice as the API and the pages show it |

pub mod audit;
mod calendar;
pub mod close;
pub mod credit;
mod dates;
mod draft;
pub mod grants;
mod late;
pub mod line_usage;
pub mod payment;
pub mod period;
pub mod preview;
mod quarters;
pub mod read;
mod rule;
pub mod run;
pub mod scheduler;
mod store;
mod terms;
mod usage;
pub mod view;

use thiserror::Error;
use weir_domain::{billing_period::PeriodError, id::TenantId, invoice::InvoiceError};

pub use view::{Invoice, InvoiceState};

use crate::problem::ApiError;

/// Why an invoice was not made or changed.
#[derive(Debug, Error)]
pub enum Error {
    #[error("there is no tenant {:?}", .0.as_str())]
    NoTenant(TenantId),
    #[error("the current billing period starts at {0} only; it can be ended once it has started")]
    NotStarted(jiff::Timestamp),
    #[error("there is no invoice {0:?}")]
    NoInvoice(String),
    #[error("the invoice with id {invoice} has no line {line}")]
    NoLine { invoice: i64, line: i32 },
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
            Error::NoLine { invoice, line } => Self::NotFound {
                what: "line",
                id: format!("{line} of the invoice with id {invoice}"),
            },
            Error::Amount(detail) => Self::field("amount", detail),
            Error::NotStarted(_) | Error::Refused(_) => Self::Conflict(error.to_string()),
            Error::Sql(error) => error.into(),
            Error::Invoice(_) | Error::Period(_) | Error::Stored(_) => Self::internal(error),
        }
    }
}
