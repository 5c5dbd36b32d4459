//! An invoice as the API and the pages show it.

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_domain::{
    currency::Currency,
    id::{Meter, TenantId},
    invoice::{Subject, grants::GrantKind},
    limit::Unit,
    money::Money,
    price::{Charge, ModelPattern, Tier},
    quantity::Quantity,
};

use super::{draft::Draft, rule::StoredRule};

/// How far an invoice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum InvoiceState {
    /// As it would be now, while its period runs. It is not stored, and changes with what is used.
    Draft,
    /// The same after the end of its period, until `final_at`: usage may still arrive.
    Grace,
    /// Numbered, and never changed again.
    Final,
    /// The provider has it.
    Sent,
    /// It is final or sent, `due_at` has passed, and something is left to be paid.
    Overdue,
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
    /// When the invoice is made, in grace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_at: Option<Timestamp>,
    /// Until when it is to be paid. Null in a draft.
    pub due_at: Option<Timestamp>,
    pub lines: Vec<Line>,
    /// The sum of the lines, with all digits of the currency's minor unit.
    #[schema(value_type = String)]
    pub total: Decimal,
    /// What credit notes have taken off the total.
    #[schema(value_type = String)]
    pub credited: Decimal,
    /// Why it is void, where somebody said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub void_reason: Option<String>,
    /// Whether it is void, and another invoice bills its period anew.
    pub rebilled: bool,
    /// Usage that no price charges. In a draft only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unpriced: Vec<Unpriced>,
    /// Null in a draft.
    pub created_at: Option<Timestamp>,
}

/// Usage of a meter and model that no price of the plan charges. A unit that the plan charges nowhere
/// is told only where the other one is not charged either.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Unpriced {
    pub meter: Meter,
    /// Empty where no model is known.
    pub model: String,
    pub tokens: u64,
    pub requests: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Line {
    /// From 1.
    pub position: u32,
    pub name: String,
    pub kind: LineKind,
    /// Whose usage was counted; null where the amount does not depend on usage.
    pub meter: Option<Meter>,
    /// Of which models, where the price names them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelPattern>,
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
    /// What a package of units has and costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<Package>,
    /// What a discount is taken from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discount: Option<Discount>,
    /// What is paid at least, where the line makes up for what is missing to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<Minimum>,
    /// Which credit pays it, where the line is what a credit pays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credit: Option<UsedCredit>,
    /// Which part of the period the price was in force; null if all of it.
    pub share: Option<Share>,
    /// The period that an adjustment is for.
    pub adjusts: Option<Adjusted>,
    /// Where the usage is that it bills, by quarter hour. Of stored invoices only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
    #[schema(value_type = String)]
    pub amount: Decimal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LineKind {
    Flat,
    PerUnit,
    Graduated,
    Volume,
    Package,
    Discount,
    Minimum,
    Adjustment,
    Credit,
}

/// A package of units; one that is started counts whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Package {
    pub size: Quantity,
    #[schema(value_type = String)]
    pub price: Decimal,
}

/// So much percent less than an amount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Discount {
    /// The name of the price that it is for; null where it is the plan's.
    pub price: Option<String>,
    #[schema(value_type = String)]
    pub percent: Decimal,
    #[schema(value_type = String)]
    pub of: Decimal,
}

/// What is paid at least.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Minimum {
    /// The name of the price that it is for; null where it is the plan's.
    pub price: Option<String>,
    /// For the part of the period in which it was in force.
    #[schema(value_type = String)]
    pub amount: Decimal,
    /// What was charged without it.
    #[schema(value_type = String)]
    pub reached: Decimal,
}

/// A credit of the tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct UsedCredit {
    pub id: i64,
    pub kind: GrantKind,
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
    pub(super) model: Option<&'a ModelPattern>,
    pub(super) quantity: u64,
    pub(super) share: Share,
    pub(super) amount: Money,
}

impl Line {
    /// Whether it bills usage, of its own period or an earlier one.
    pub(super) fn bills_usage(&self) -> bool {
        self.unit.is_some() || self.kind == LineKind::Adjustment
    }

    /// A line that depends on nothing.
    pub(super) fn new(position: u32, name: String, kind: LineKind, amount: Money) -> Self {
        Self {
            position,
            name,
            kind,
            meter: None,
            model: None,
            unit: None,
            quantity: None,
            unit_price: None,
            included: None,
            tiers: Vec::new(),
            package: None,
            discount: None,
            minimum: None,
            credit: None,
            share: None,
            adjusts: None,
            usage: None,
            amount: amount.decimal(),
        }
    }
}

impl PricedLine<'_> {
    pub(super) fn line(self) -> Line {
        let Self { position, name, charge, meter, model, quantity, share, amount } = self;
        let unit = charge.unit();
        let line = Line {
            meter: unit.map(|_| meter.clone()),
            model: model.cloned(),
            unit,
            quantity: unit.map(|_| quantity),
            share: (share.quarter_hours != share.of).then_some(share),
            ..Line::new(position, name, LineKind::of(charge), amount)
        };
        match charge {
            Charge::Flat { .. } => line,
            Charge::PerUnit { unit_price, included, .. } => {
                Line { unit_price: Some(*unit_price), included: Some(*included), ..line }
            }
            Charge::Graduated { tiers, included, .. } | Charge::Volume { tiers, included, .. } => {
                Line { tiers: tiers.clone(), included: Some(*included), ..line }
            }
            Charge::Package { package_size, package_price, included, .. } => {
                let package = Package { size: *package_size, price: *package_price };
                Line { package: Some(package), included: Some(*included), ..line }
            }
        }
    }
}

impl LineKind {
    fn of(charge: &Charge) -> Self {
        match charge {
            Charge::Flat { .. } => Self::Flat,
            Charge::PerUnit { .. } => Self::PerUnit,
            Charge::Graduated { .. } => Self::Graduated,
            Charge::Volume { .. } => Self::Volume,
            Charge::Package { .. } => Self::Package,
        }
    }
}

/// A line for usage of a closed period that came late.
pub(super) fn adjustment(position: u32, name: String, adjusts: Adjusted, amount: Money) -> Line {
    Line { adjusts: Some(adjusts), ..Line::new(position, name, LineKind::Adjustment, amount) }
}

/// A draft that is not to be stored.
pub(super) fn of_draft(tenant: &TenantId, draft: &Draft) -> Invoice {
    let invoice = &draft.invoice;
    let lines = (1..).zip(&invoice.lines).map(|(position, line)| {
        let name = line.subject.name(&draft.due.time_zone.zone);
        match &line.subject {
            Subject::Price { price, quantity, share } => PricedLine {
                position,
                name,
                charge: &price.charge,
                meter: &price.meter,
                model: price.model.as_ref(),
                quantity: *quantity,
                share: Share { quarter_hours: share.quarters, of: share.of },
                amount: line.amount,
            }
            .line(),
            Subject::Rule(rule) => StoredRule::of(rule).line(position, name, line.amount),
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
    let unpriced = invoice.unpriced.iter().map(|rest| Unpriced {
        meter: rest.meter.clone(),
        model: rest.model.clone(),
        tokens: rest.used.tokens,
        requests: rest.used.requests,
    });
    Invoice {
        id: None,
        number: None,
        tenant: tenant.to_string(),
        state: InvoiceState::Draft,
        currency: invoice.total.currency(),
        period_start: invoice.period.start().start(),
        period_end: invoice.period.end().start(),
        final_at: None,
        due_at: None,
        lines: lines.collect(),
        total: invoice.total.decimal(),
        credited: Money::zero(invoice.total.currency()).decimal(),
        void_reason: None,
        rebilled: false,
        unpriced: unpriced.collect(),
        created_at: None,
    }
}
