//! An invoice before it is stored.

use std::collections::BTreeMap;

use sqlx::{PgConnection, types::Json};
use weir_domain::{
    billing_period::{BillingPeriod, Quarter},
    id::TenantId,
    invoice::{self, Adjustment, Invoice, TermsFrom, Usage},
    plan::PlanTerms,
};

use super::{
    Error, grants,
    period::to_sql,
    usage::{self, QuantityRow},
};

/// A plan version, and from when it was in force in a billing period.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) starts_at: Quarter,
    pub(super) plan_id: String,
    pub(super) plan_version: i32,
    pub(super) terms: PlanTerms,
}

/// An invoice with all that it was computed from.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) invoice: Invoice,
    pub(super) terms: Vec<Terms>,
    /// The usage of the period itself.
    pub(super) quantities: Vec<QuantityRow>,
    /// What came late, oldest period first.
    pub(super) late: Vec<Late>,
}

/// Usage of a closed period that no invoice has priced yet.
#[derive(Debug)]
pub(super) struct Late {
    /// The invoice that closed the period.
    pub(super) invoice_id: i64,
    /// By how much the quantities differ from those that were billed.
    pub(super) differences: Vec<QuantityRow>,
    /// What that costs; `None` where it costs nothing.
    pub(super) adjustment: Option<Adjustment>,
}

impl Draft {
    /// The invoice that closed the late `period`.
    pub(super) fn invoice_of(&self, period: BillingPeriod) -> Option<i64> {
        self.late
            .iter()
            .find(|late| late.adjustment.is_some_and(|adjustment| adjustment.period == period))
            .map(|late| late.invoice_id)
    }
}

/// Draws up the invoice of `period`, with what came late for the periods before it.
pub(super) async fn draw_up(
    db: &mut PgConnection,
    tenant: &TenantId,
    period: BillingPeriod,
) -> Result<Draft, Error> {
    let terms = terms_of(db, tenant, period).await?;
    let quantities = usage::rolled_up(db, tenant, period, &terms).await?;
    let late = late(db, tenant).await?;
    let adjustments: Vec<Adjustment> = late.iter().filter_map(|late| late.adjustment).collect();
    let grants = grants::left(db, &[tenant.as_str()]).await?.remove(tenant.as_str());
    let invoice =
        invoice::draw_up(period, &in_force(&terms), &to_usage(&quantities)?, &adjustments)?
            .pay_from(grants.unwrap_or_default())?;
    Ok(Draft { invoice, terms, quantities, late })
}

/// The terms in force in `period`. Those of its start begin with it; a tenant's first terms also hold
/// for what lies before them.
async fn terms_of(
    db: &mut PgConnection,
    tenant: &TenantId,
    period: BillingPeriod,
) -> Result<Vec<Terms>, Error> {
    let rows = sqlx::query!(
        r#"select tenant_terms.starts_at, plan_id, plan_version,
                  plan_version.terms as "terms: Json<PlanTerms>"
           from tenant_terms join plan_version using (plan_id)
           where tenant_id = $1 and plan_version.version = tenant_terms.plan_version
             and starts_at >= coalesce(
               (select max(starts_at) from tenant_terms where tenant_id = $1 and starts_at <= $2),
               $2)
             and (starts_at < $3
               or starts_at = (select min(starts_at) from tenant_terms where tenant_id = $1))
           order by starts_at"#,
        tenant.as_str(),
        to_sql(period.start()) as _,
        to_sql(period.end()) as _,
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .enumerate()
        .map(|(index, row)| Terms {
            starts_at: match index {
                0 => period.start(),
                _ => Quarter::containing(row.starts_at.to_jiff()),
            },
            plan_id: row.plan_id,
            plan_version: row.plan_version,
            terms: row.terms.0,
        })
        .collect())
}

async fn late(db: &mut PgConnection, tenant: &TenantId) -> Result<Vec<Late>, Error> {
    let mut per_invoice = BTreeMap::<i64, Vec<QuantityRow>>::new();
    for (invoice_id, difference) in usage::late(db, tenant).await? {
        per_invoice.entry(invoice_id).or_default().push(difference);
    }
    let mut late = Vec::new();
    for (invoice_id, differences) in per_invoice {
        let (period, terms) = terms_billed(db, invoice_id).await?;
        let billed = usage::billed(db, invoice_id).await?;
        let now = to_usage(&with(&billed, &differences)?)?;
        let adjustment = invoice::adjust(period, &in_force(&terms), &to_usage(&billed)?, &now)?;
        late.push(Late { invoice_id, differences, adjustment });
    }
    Ok(late)
}

/// The period that an invoice closed, and the terms that it was priced by.
async fn terms_billed(
    db: &mut PgConnection,
    invoice_id: i64,
) -> Result<(BillingPeriod, Vec<Terms>), Error> {
    let rows = sqlx::query!(
        r#"select period_start, period_end, starts_at, billed.plan_id, billed.plan_version,
                  plan_version.terms as "terms: Json<PlanTerms>"
           from invoice
           join invoice_terms billed on billed.invoice_id = invoice.id
           join plan_version on plan_version.plan_id = billed.plan_id
                            and plan_version.version = billed.plan_version
           where invoice.id = $1 order by starts_at"#,
        invoice_id,
    )
    .fetch_all(db)
    .await?;
    let (start, end) = rows
        .first()
        .map(|row| (row.period_start.to_jiff(), row.period_end.to_jiff()))
        .ok_or_else(|| Error::stored(format!("the invoice with id {invoice_id} has no terms")))?;
    let period = BillingPeriod::new(Quarter::containing(start), Quarter::containing(end))?;
    let terms = rows
        .into_iter()
        .map(|row| Terms {
            starts_at: Quarter::containing(row.starts_at.to_jiff()),
            plan_id: row.plan_id,
            plan_version: row.plan_version,
            terms: row.terms.0,
        })
        .collect();
    Ok((period, terms))
}

/// `billed` and the differences together, in as many rows as there are sums.
fn with(billed: &[QuantityRow], differences: &[QuantityRow]) -> Result<Vec<QuantityRow>, Error> {
    let mut sums = billed.to_vec();
    for difference in differences {
        let same = |row: &&mut QuantityRow| {
            row.starts_at == difference.starts_at
                && row.meter == difference.meter
                && row.model == difference.model
        };
        let Some(row) = sums.iter_mut().find(same) else {
            sums.push(difference.clone());
            continue;
        };
        let sum = |a: rust_decimal::Decimal, b| {
            a.checked_add(b).ok_or_else(|| Error::stored("a sum of usage is too large"))
        };
        row.tokens = sum(row.tokens, difference.tokens)?;
        row.requests = sum(row.requests, difference.requests)?;
    }
    Ok(sums)
}

fn in_force(terms: &[Terms]) -> Vec<TermsFrom> {
    terms
        .iter()
        .map(|terms| TermsFrom { from: terms.starts_at, terms: terms.terms.clone() })
        .collect()
}

fn to_usage(quantities: &[QuantityRow]) -> Result<Vec<Usage>, Error> {
    quantities.iter().map(QuantityRow::usage).collect()
}
