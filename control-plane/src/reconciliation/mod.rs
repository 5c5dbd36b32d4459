//! Reconciliation: whether the ledger, the invoices and the billing providers say the same.
//!
//! Each [`Section`](report::Section) compares two places that must agree, for all tenants at once or
//! those of a [`Scope`], and names what differs. What is known to be on its way is no difference: usage
//! that came late and that the tenant's next invoice will look at, and invoices that are still being
//! delivered. Nothing is changed.
//!
//! | module | what it compares |
//! |---|---|
//! | [`usage`] | usage records with the sums per quarter hour; those with what invoices have billed |
//! | [`amounts`] | lines with totals, credits with what invoices used of them, credit notes, periods |
//! | [`priced`] | lines with what the quantities that were billed cost |
//! | [`gaps`] | what is missing: numbers, usage that could not be stored or that lies before all periods |
//! | [`providers`], [`deliveries`], [`verdict`] | invoices with those at Stripe and Chargebee |
//! | [`report`] | what is found |
//! | [`command`] | `weir reconcile` |

mod amounts;
pub mod command;
mod deliveries;
mod gaps;
mod priced;
mod providers;
pub mod report;
mod usage;
mod verdict;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::PgPool;
use thiserror::Error;
use weir_domain::{billing_period::Quarter, id::TenantId};

use self::report::{Report, Section};
use crate::{
    invoice,
    problem::ApiError,
    provider::{Kind, Providers, call::Failure},
};

/// What is compared: usage of the quarter hours, and invoices of the billing periods, that lie in this
/// time at least in part.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// All without it.
    pub tenant: Option<TenantId>,
    /// From the beginning without it.
    pub from: Option<Timestamp>,
    /// The first instant after it; to the end without it.
    pub to: Option<Timestamp>,
    /// How many differences of a section are told; all are counted.
    pub limit: i64,
}

/// Why two places could not be compared.
#[derive(Debug, Error)]
pub enum Error {
    #[error("Postgres: {0}")]
    Sql(#[from] sqlx::Error),
    #[error("{}: {cause}", provider.as_str())]
    Provider { provider: Kind, cause: Failure },
    #[error("{0}")]
    Invoice(#[from] invoice::Error),
    #[error("what is stored can't be read: {0}")]
    Stored(String),
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::Sql(error) => error.into(),
            Error::Provider { cause: Failure::Sql(error), .. } => error.into(),
            Error::Invoice(error) => error.into(),
            Error::Provider { .. } => Self::Unavailable("the billing provider", Box::new(error)),
            Error::Stored(_) => Self::internal(error),
        }
    }
}

impl Scope {
    fn tenant(&self) -> Option<&str> {
        self.tenant.as_ref().map(TenantId::as_str)
    }

    /// The first quarter hour.
    fn first(&self) -> Option<jiff_sqlx::Timestamp> {
        self.from.map(|from| Quarter::containing(from).start().to_sqlx())
    }

    /// The end of the last quarter hour.
    fn end(&self) -> Option<jiff_sqlx::Timestamp> {
        self.to.map(|to| {
            let quarter = Quarter::containing(to);
            let end = if quarter.start() == to { quarter } else { quarter.next() };
            end.start().to_sqlx()
        })
    }
}

/// Compares what is in Postgres, as it is at one moment. Each statement may take `statement_ms` at
/// most; 0 for as long as it takes.
pub async fn in_postgres(db: &PgPool, scope: &Scope, statement_ms: u32) -> Result<Report, Error> {
    let mut tx = db.begin_with("begin isolation level repeatable read, read only").await?;
    sqlx::query!("select set_config('statement_timeout', $1, true)", statement_ms.to_string(),)
        .fetch_one(&mut *tx)
        .await?;
    let sections = vec![
        usage::ledger(&mut tx, scope).await?,
        usage::billed(&mut tx, scope).await?,
        amounts::lines(&mut tx, scope).await?,
        priced::lines(&mut tx, scope).await?,
        amounts::credits(&mut tx, scope).await?,
        amounts::credit_notes(&mut tx, scope).await?,
        amounts::periods(&mut tx, scope).await?,
        gaps::numbers(&mut tx, scope).await?,
        gaps::quarantined(&mut tx, scope).await?,
        gaps::before_first(&mut tx, scope).await?,
    ];
    Ok(Report { sections })
}

/// Compares invoices with those at a provider.
pub async fn at_provider(
    db: &PgPool,
    calls: &Providers,
    provider: Kind,
    scope: &Scope,
) -> Result<Section, Error> {
    providers::compare(db, calls, provider, scope)
        .await
        .map_err(|cause| Error::Provider { provider, cause })
}
