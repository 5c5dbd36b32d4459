//! An invoice as the API and the pages show it.

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_domain::{
    currency::Currency,
    id::{Meter, TenantId},
    invoice::Subject,
    limit::Unit,
    money::Money,
    price::{Charge, Tier},
    quantity::Quantity,
};

use super::draft::Draft;

/// How far an invoice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum InvoiceState {
    /// A preview of the current period; it is not stored.
    Draft,
    /// The period is closed, the number is still to come.
    Grace,
    /// Numbered, and never changed again.
    Final,
    Sent,
    Paid,
    Void,
}

/// What a tenant owes for a billing period.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Invoice {
    /// Null in a draft.
    pub id: Option<i64>,
    /// Numbers of a deployment have no gaps. Null until the invoice is final.
    pub number: Option<String>,
    pub tenant: String,
    pub state: InvoiceState,
    pub currency: Currency,
    pub period_start: Timestamp,
    /// The first instant after the period.
    pub period_end: Timestamp,
    pub lines: Vec<Line>,
    /// The sum of the lines, with all digits of the currency's minor unit.
    #[schema(value_type = String)]
    pub total: Decimal,
    /// Null in a draft.
    pub created_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Line {
    /// From 1.
    pub position: u32,
    pub name: String,
    pub kind: LineKind,
    /// Whose usage was counted; null where the amount does not depend on usage.
    pub meter: Option<Meter>,
    /// What was counted.
    pub unit: Option<Unit>,
    /// How much was used while the price was in force, the included units with it.
    pub quantity: Option<u64>,
    /// Null where there is no single one.
    #[schema(value_type = Option<String>)]
    pub unit_price: Option<Decimal>,
    /// How much of the quantity is free, for a whole period.
    pub included: Option<Quantity>,
    /// For a whole period.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<Tier>,
    /// Which part of the period the price was in force; null if all of it.
    pub share: Option<Share>,
    /// The period that an adjustment is for.
    pub adjusts: Option<Adjusted>,
    #[schema(value_type = String)]
    pub amount: Decimal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LineKind {
    Flat,
    PerUnit,
    Graduated,
    Adjustment,
}

/// A part of a period: `quarter_hours` of `of`. Flat amounts, included units and tiers count by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Share {
    pub quarter_hours: u32,
    pub of: u32,
}

/// A closed period whose usage came late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Adjusted {
    /// The id of the invoice that closed it.
    pub invoice: Option<i64>,
    pub period_start: Timestamp,
    pub period_end: Timestamp,
}

/// A line that charges a price.
pub(super) struct PricedLine<'a> {
    pub(super) position: u32,
    pub(super) name: String,
    pub(super) charge: &'a Charge,
    pub(super) meter: &'a Meter,
    pub(super) quantity: u64,
    pub(super) share: Share,
    pub(super) amount: Money,
}

impl PricedLine<'_> {
    pub(super) fn line(self) -> Line {
        let Self { position, name, charge, meter, quantity, share, amount } = self;
        let unit = charge.unit();
        let (kind, unit_price, included, tiers) = match charge {
            Charge::Flat { .. } => (LineKind::Flat, None, None, &[][..]),
            Charge::PerUnit { unit_price, included, .. } => {
                (LineKind::PerUnit, Some(*unit_price), Some(*included), &[][..])
            }
            Charge::Graduated { tiers, included, .. } => {
                (LineKind::Graduated, None, Some(*included), tiers.as_slice())
            }
        };
        Line {
            position,
            name,
            kind,
            meter: unit.map(|_| meter.clone()),
            unit,
            quantity: unit.map(|_| quantity),
            unit_price,
            included,
            tiers: tiers.to_vec(),
            share: (share.quarter_hours != share.of).then_some(share),
            adjusts: None,
            amount: amount.decimal(),
        }
    }
}

/// A line for usage of a closed period that came late.
pub(super) fn adjustment(position: u32, name: String, adjusts: Adjusted, amount: Money) -> Line {
    Line {
        position,
        name,
        kind: LineKind::Adjustment,
        meter: None,
        unit: None,
        quantity: None,
        unit_price: None,
        included: None,
        tiers: Vec::new(),
        share: None,
        adjusts: Some(adjusts),
        amount: amount.decimal(),
    }
}

/// A draft that is not to be stored.
pub(super) fn of_draft(tenant: &TenantId, draft: &Draft) -> Invoice {
    let invoice = &draft.invoice;
    let lines = (1..).zip(&invoice.lines).map(|(position, line)| {
        let name = line.subject.name();
        match &line.subject {
            Subject::Price { price, quantity, share } => PricedLine {
                position,
                name,
                charge: &price.charge,
                meter: &price.meter,
                quantity: *quantity,
                share: Share { quarter_hours: share.quarters, of: share.of },
                amount: line.amount,
            }
            .line(),
            Subject::Adjustment { period } => {
                let adjusts = Adjusted {
                    invoice: draft.invoice_of(*period),
                    period_start: period.start().start(),
                    period_end: period.end().start(),
                };
                adjustment(position, name, adjusts, line.amount)
            }
        }
    });
    Invoice {
        id: None,
        number: None,
        tenant: tenant.to_string(),
        state: InvoiceState::Draft,
        currency: invoice.total.currency(),
        period_start: invoice.period.start().start(),
        period_end: invoice.period.end().start(),
        lines: lines.collect(),
        total: invoice.total.decimal(),
        created_at: None,
    }
}
