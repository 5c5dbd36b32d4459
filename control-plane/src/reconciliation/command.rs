//! `weir reconcile`.

use std::error::Error;

use clap::Args;
use jiff::Timestamp;
use sqlx::PgPool;
use weir_domain::id::TenantId;

use super::{Scope, at_provider, in_postgres};
use crate::provider::{Providers, settings::Settings};

/// What `weir reconcile` is told.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only this tenant.
    #[arg(long, value_name = "ID")]
    tenant: Option<TenantId>,
    /// Only quarter hours and billing periods that end after this time (RFC 3339, such as
    /// 2026-12-01T00:00:00Z).
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// Only those that begin before this time.
    #[arg(long, value_name = "TIME")]
    to: Option<Timestamp>,
    /// Do not ask Stripe and Chargebee.
    #[arg(long)]
    no_providers: bool,
    /// How many differences of each kind are told; all are counted.
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// Prints what agrees and what does not; an error where something does not.
pub async fn run(
    db: &PgPool,
    settings: &Settings,
    arguments: Arguments,
) -> Result<(), Box<dyn Error>> {
    let Arguments { tenant, from, to, no_providers, limit } = arguments;
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        return Err("--to must be after --from".into());
    }
    let scope = Scope { tenant, from, to, limit: limit.into() };
    let report = in_postgres(db, &scope, 0).await?;
    let mut differing = report.differing();
    for section in &report.sections {
        println!("{section}");
    }
    if !no_providers {
        let calls = Providers::new(settings)?;
        for provider in calls.kinds() {
            let section = at_provider(db, &calls, provider, &scope).await?;
            println!("{section}");
            differing += section.differing;
        }
    }
    match differing {
        0 => Ok(()),
        1 => Err("1 value differs; it is named above".into()),
        count => Err(format!("{count} values differ; they are named above").into()),
    }
}
