//! The `weir` command.

use std::{error::Error, path::PathBuf};

use clap::{Parser, Subcommand};
use jiff::Timestamp;
use sqlx::PgPool;
use weir_domain::id::TenantId;

use crate::{
    admin::input::Name,
    config::Config,
    database,
    invoice::{
        self,
        credit::{self, Usage},
        run::Summary,
    },
    provider::settings::Settings,
    reconciliation, server, telemetry,
};

/// Admit, meter and bill the tenants of an API behind Envoy.
///
/// The configuration comes from the file named with --config (TOML) and from WEIR_* environment
/// variables, which win. `weir serve --help` lists them.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// Configuration file (TOML). Environment variables WEIR_* override what it says.
    #[arg(long, global = true, env = "WEIR_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve gateways, operators and tenants until told to stop (SIGTERM or Ctrl-C).
    ///
    /// Migrates the database first. Any number of replicas may run side by side.
    #[command(after_long_help = crate::config::HELP)]
    Serve,
    /// Bring the database to this version's schema, and exit.
    Migrate,
    /// Compare ledger, invoices and billing providers, and exit; with an error where they differ.
    ///
    /// Prints which tenant, invoice and period differ, what each place says, and by how much. Usage that
    /// came late and is billed with the next invoice, and invoices on their way, are told apart. Changes
    /// nothing.
    Reconcile(reconciliation::command::Arguments),
    /// Make and void invoices.
    #[command(subcommand)]
    Invoice(InvoiceCommand),
}

#[derive(Debug, Subcommand)]
enum InvoiceCommand {
    /// Make the invoices of all billing periods that have ended and have none, and exit.
    ///
    /// It may be stopped at any moment and run again, and several may run at once: each period gets
    /// one invoice. Usage that arrives later comes as an adjustment line of the tenant's next invoice.
    Run {
        /// Only this tenant's.
        #[arg(long, value_name = "ID")]
        tenant: Option<TenantId>,
        /// Act as if it were this time (RFC 3339, such as 2026-12-01T00:00:00Z). One in the future
        /// also closes periods that are still running.
        #[arg(long, value_name = "TIME")]
        as_of: Option<Timestamp>,
    },
    /// Void an invoice that is not paid: a credit note takes off what is left of it.
    ///
    /// Its usage is not charged again, unless it is to be billed again.
    Void {
        /// Such as INV-000042.
        number: String,
        /// Stands on the credit note.
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: String,
        /// Open the period again: the next run makes its invoice anew. For the tenant's last one only.
        #[arg(long)]
        rebill: bool,
    },
}

/// What the admin API takes as one, too.
fn reason(text: &str) -> Result<String, String> {
    Name::try_from(text.to_owned()).map(|reason| reason.as_str().to_owned())
}

impl Cli {
    /// Runs the command; the error says what was wrong and what to do.
    pub async fn run(self) -> Result<(), Box<dyn Error>> {
        let config = Config::load(self.config.as_deref())?;
        telemetry::init_logs(&config)?;
        match self.command {
            Command::Serve => server::serve(config).await?,
            Command::Migrate => {
                let db = database::connect(&config).await?;
                database::migrate(&db).await?;
                println!("The database is at this version's schema.");
            }
            Command::Reconcile(arguments) => {
                let db = database::connect(&config).await?;
                reconciliation::command::run(&db, &Settings::of(&config)?, arguments).await?;
            }
            Command::Invoice(InvoiceCommand::Run { tenant, as_of }) => {
                let db = database::connect(&config).await?;
                invoice_run(&db, tenant.as_ref(), as_of).await?;
            }
            Command::Invoice(InvoiceCommand::Void { number, reason, rebill }) => {
                let db = database::connect(&config).await?;
                let id = credit::numbered(&db, &number).await?;
                let usage = if rebill { Usage::Rebilled } else { Usage::Forgiven };
                credit::void(&db, id, &reason, usage).await?;
                println!("{number} is void.");
            }
        }
        Ok(())
    }
}

async fn invoice_run(
    db: &PgPool,
    tenant: Option<&TenantId>,
    as_of: Option<Timestamp>,
) -> Result<(), Box<dyn Error>> {
    let Summary { tenants, invoices, failed } = invoice::run::run(db, tenant, as_of).await?;
    let s = |count| if count == 1 { "" } else { "s" };
    println!("{invoices} invoice{} made for {tenants} tenant{}.", s(invoices), s(tenants));
    if failed > 0 {
        return Err(format!(
            "the invoices of {failed} tenants could not be made; the log above says why. Mend that and run again"
        )
        .into());
    }
    Ok(())
}

/// Prints `error` and what caused it to standard error.
pub fn print_error(error: &dyn Error) {
    eprintln!("weir: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        eprintln!("  caused by: {cause}");
        source = cause.source();
    }
}
