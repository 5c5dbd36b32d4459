//! `weir invoice run`: the invoices of all billing periods that have ended.

use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use sqlx::PgPool;
use weir_domain::id::TenantId;

use super::{Error, close, period};

/// How many tenants are read at once.
const PAGE: i64 = 500;

/// What a run has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    pub tenants: u64,
    pub invoices: u64,
    /// Tenants whose invoices could not be computed; the log says why.
    pub failed: u64,
}

/// Makes the invoices of all periods that ended before `as_of` (by default now) and have none: of
/// `only` one tenant, or of all. To run it again, or twice at once, changes nothing.
///
/// A tenant whose invoice can't be computed is logged and counted, and the others go on. Ends with an
/// error where Postgres does: what is made by then is made.
pub async fn run(
    db: &PgPool,
    only: Option<&TenantId>,
    as_of: Option<Timestamp>,
) -> Result<Summary, Error> {
    let as_of = match as_of {
        Some(as_of) => as_of,
        None => period::now(&mut *db.acquire().await?).await?,
    };
    let mut summary = Summary::default();
    if let Some(tenant) = only {
        summary.tenants = 1;
        summary.invoices = close_all(db, tenant, as_of).await?;
        return Ok(summary);
    }
    let total = sqlx::query_scalar!(r#"select count(*) as "count!" from tenant"#);
    let bar = progress(total.fetch_one(db).await?);
    let mut last = String::new();
    loop {
        let tenants = sqlx::query_scalar!(
            "select id from tenant where id > $1 order by id limit $2",
            last,
            PAGE,
        )
        .fetch_all(db)
        .await?;
        let Some(end) = tenants.last() else { break };
        last.clone_from(end);
        for id in tenants {
            summary.tenants += 1;
            match close_all_of(db, id.clone(), as_of).await {
                Ok(made) => summary.invoices += made,
                Err(Error::Sql(error)) => return Err(Error::Sql(error)),
                Err(error) => {
                    summary.failed += 1;
                    tracing::error!(tenant = id, %error, "the invoice can't be made");
                }
            }
            bar.set_message(format!("{} invoices", summary.invoices));
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(summary)
}

async fn close_all_of(db: &PgPool, id: String, as_of: Timestamp) -> Result<u64, Error> {
    close_all(db, &TenantId::new(id).map_err(Error::stored)?, as_of).await
}

/// Closes all periods of a tenant that have ended; how many.
async fn close_all(db: &PgPool, tenant: &TenantId, as_of: Timestamp) -> Result<u64, Error> {
    let mut made = 0;
    while let Some(invoice) = close::close_ended(db, tenant, as_of).await? {
        tracing::info!(%tenant, invoice, "invoice made");
        made += 1;
    }
    Ok(made)
}

/// On a terminal; nothing is drawn elsewhere.
fn progress(tenants: i64) -> ProgressBar {
    let bar = ProgressBar::new(u64::try_from(tenants).unwrap_or(0));
    match ProgressStyle::with_template("{bar:40} {pos}/{len} tenants, {msg}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
