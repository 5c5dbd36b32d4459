//! `weir invoice …`

use std::error::Error;

use clap::Subcommand;
use jiff::Timestamp;
use sqlx::PgPool;
use weir_domain::id::TenantId;

use crate::{
    admin::input::Name,
    config::Config,
    database,
    delivery::resend,
    invoice::{
        close,
        credit::{self, Usage},
        preview::{self, Upcoming},
        read,
        run::{self, Summary},
    },
    print,
};

#[derive(Debug, Subcommand)]
pub(super) enum InvoiceCommand {
    /// Make the invoices of all billing periods that ended a grace time ago and have none, and exit.
    ///
    /// `weir serve` does this by itself. It may be stopped at any moment and run again, and several may
    /// run at once: each period gets one invoice. Usage that arrives later comes as an adjustment line
    /// of the tenant's next invoice.
    Run {
        /// Only this tenant's.
        #[arg(long, value_name = "ID")]
        tenant: Option<TenantId>,
        /// Act as if it were this time (RFC 3339, such as 2026-12-01T01:00:00Z): periods are closed that
        /// ended WEIR_INVOICE_GRACE_MS before it. A time in the future also closes periods that are
        /// still running.
        #[arg(long, value_name = "TIME")]
        as_of: Option<Timestamp>,
    },
    /// Print the invoice that a tenant gets next, as it would be now. It is not stored.
    Preview {
        tenant: TenantId,
        /// That of the current billing period, where the one before it has no invoice yet.
        #[arg(long)]
        current: bool,
        /// As the admin API has it.
        #[arg(long)]
        json: bool,
    },
    /// Make a tenant's invoices of periods that have ended, without waiting for their grace to pass.
    Finalize { tenant: TenantId },
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
    /// Send an invoice again to the tenant's provider.
    ///
    /// A delivery that has stopped is tried again. For one that is done, Stripe sends its mail again. An
    /// invoice that was made when the tenant had no provider goes to the one that it has now.
    Resend {
        /// Such as INV-000042.
        number: String,
    },
}

/// What the admin API takes as one, too.
fn reason(text: &str) -> Result<String, String> {
    Name::try_from(text.to_owned()).map(|reason| reason.as_str().to_owned())
}

impl InvoiceCommand {
    pub(super) async fn run(self, config: &Config) -> Result<(), Box<dyn Error>> {
        let db = database::connect(config).await?;
        match self {
            Self::Run { tenant, as_of } => {
                let ended_by = run::due_by(&db, as_of, config.invoice_grace()).await?;
                make(&db, tenant.as_ref(), ended_by).await?;
            }
            Self::Preview { tenant, current, json } => {
                let which = if current { Upcoming::Current } else { Upcoming::Next };
                let grace = config.invoice_grace();
                let mut tx =
                    db.begin_with("begin isolation level repeatable read, read only").await?;
                let invoice = preview::preview_in(&mut tx, &tenant, which, grace).await?;
                let text = match json {
                    true => serde_json::to_string_pretty(&invoice)? + "\n",
                    false => print::invoice_text(&mut tx, &invoice).await?,
                };
                print!("{text}");
            }
            Self::Finalize { tenant } => {
                for id in close::finalize(&db, &tenant).await? {
                    let made = read::get(&db, id).await?;
                    let number = made.and_then(|invoice| invoice.number).unwrap_or_default();
                    println!("{number} is final.");
                }
            }
            Self::Void { number, reason, rebill } => {
                let id = credit::numbered(&db, &number).await?;
                let usage = if rebill { Usage::Rebilled } else { Usage::Forgiven };
                credit::void(&db, id, &reason, usage).await?;
                println!("{number} is void.");
            }
            Self::Resend { number } => {
                let id = credit::numbered(&db, &number).await?;
                resend::resend(&db, id).await?;
                println!("{number} is queued; weir serve sends it.");
            }
        }
        Ok(())
    }
}

async fn make(
    db: &PgPool,
    tenant: Option<&TenantId>,
    ended_by: Timestamp,
) -> Result<(), Box<dyn Error>> {
    let Summary { tenants, invoices, failed } =
        run::run(db, tenant, ended_by, run::progress()).await?;
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
