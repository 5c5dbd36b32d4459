//! The `weir` command.

mod invoice;

use std::{error::Error, path::PathBuf};

use clap::{Parser, Subcommand};

use self::invoice::InvoiceCommand;
use crate::{
    config::Config, database, provider::settings::Settings, reconciliation, server, telemetry,
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
    /// Make invoices, look at the next one, void and send them.
    #[command(subcommand)]
    Invoice(InvoiceCommand),
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
            Command::Invoice(command) => command.run(&config).await?,
            Command::Reconcile(arguments) => {
                let db = database::connect(&config).await?;
                reconciliation::command::run(&db, &Settings::of(&config)?, arguments).await?;
            }
        }
        Ok(())
    }
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
