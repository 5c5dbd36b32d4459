//! An invoice before it is stored.

use jiff::Timestamp;
use sqlx::PgConnection;
use weir_domain::{
    billing_period::BillingPeriod,
    invoice::{self, Adjustment, Invoice, grants::Grant},
};

use super::{
    Error, grants,
    late::{self, Closed, Late},
    period::Due,
    quarters::{self, QuarterRow},
    terms::{self, Terms, in_force},
    usage::{self, QuantityRow, to_usage},
};

/// All that the invoice of a period is computed from, but for the usage of the period itself.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) due: Due,
    pub(super) terms: Vec<Terms>,
    closed: Vec<Closed>,
    late_notes: Vec<i64>,
    quarters: Vec<QuarterRow>,
    /// The tenant's credits that are not used up.
    grants: Vec<Grant>,
}

/// An invoice with all that it was computed from.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) due: Due,
    pub(super) invoice: Invoice,
    pub(super) terms: Vec<Terms>,
    /// The usage of the period itself.
    pub(super) quantities: Vec<QuantityRow>,
    /// What came late, oldest period first.
    pub(super) late: Vec<Late>,
    /// The rows of `usage_late` that this invoice settles.
    pub(super) late_notes: Vec<i64>,
    /// What it bills of quarter hours that the rollup can't tell later.
    pub(super) quarters: Vec<QuarterRow>,
}

impl Draft {
    /// Whether the tenant was closed before the period, and all that it used is billed.
    pub(super) fn is_nothing(&self) -> bool {
        let is_zero = |row: &QuantityRow| row.tokens.is_zero() && row.requests.is_zero();
        self.due.is_after_close && self.late.is_empty() && self.quantities.iter().all(is_zero)
    }

    /// The invoice that closed the late `period`.
    pub(super) fn invoice_of(&self, period: BillingPeriod) -> Option<i64> {
        self.late
            .iter()
            .find(|late| late.adjustment.is_some_and(|adjustment| adjustment.period == period))
            .map(|late| late.invoice_id)
    }
}

/// Draws up the invoice of one period, with what came late for the periods before it, from a snapshot with
/// this read point.
pub(super) async fn draw_up(
    db: &mut PgConnection,
    due: Due,
    read_at: Timestamp,
) -> Result<Draft, Error> {
    let tenant = due.tenant.clone();
    let mut inputs = gather(db, vec![due], read_at).await?;
    let quantities = usage::rolled_up(db, &inputs).await?.pop().unwrap_or_default();
    inputs.pop().ok_or(Error::NoTenant(tenant))?.draw_up(quantities)
}

/// Reads what the invoices are computed from, in the order of `due`, in which each tenant is once.
pub(super) async fn gather(
    db: &mut PgConnection,
    due: Vec<Due>,
    read_at: Timestamp,
) -> Result<Vec<Input>, Error> {
    let terms = terms::of_periods(db, &due).await?;
    let mut found = late::find(db, &due).await?;
    let tenants: Vec<&str> = due.iter().map(|due| due.tenant.as_str()).collect();
    let mut grants = grants::left(db, &tenants).await?;
    let mut inputs: Vec<Input> = due
        .into_iter()
        .zip(terms)
        .map(|(due, terms)| {
            let tenant = due.tenant.as_str();
            let closed = found.closed.remove(tenant).unwrap_or_default();
            let late_notes = found.notes.remove(tenant).unwrap_or_default();
            let quarters = found.quarters.remove(tenant).unwrap_or_default();
            let grants = grants.remove(tenant).unwrap_or_default();
            Input { due, terms, closed, late_notes, quarters, grants }
        })
        .collect();
    let mut open = quarters::open(db, &inputs, read_at).await?;
    for input in &mut inputs {
        input.quarters.extend(open.remove(input.due.tenant.as_str()).unwrap_or_default());
    }
    Ok(inputs)
}

impl Input {
    /// Computes the invoice. `quantities` are the usage of the period, rolled up.
    pub(super) fn draw_up(self, quantities: Vec<QuantityRow>) -> Result<Draft, Error> {
        let Self { due, terms, closed, late_notes, quarters, grants } = self;
        let late: Vec<Late> = closed.into_iter().map(Closed::late).collect::<Result<_, _>>()?;
        let adjustments: Vec<Adjustment> = late.iter().filter_map(|late| late.adjustment).collect();
        let usage = to_usage(&quantities)?;
        let invoice = invoice::draw_up(due.period, &in_force(&terms), &usage, &adjustments)?
            .pay_from(grants)?;
        Ok(Draft { due, invoice, terms, quantities, late, late_notes, quarters })
    }
}
