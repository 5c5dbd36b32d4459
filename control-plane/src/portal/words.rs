//! What an invoice says, in words.

use jiff::tz::TimeZone;

use super::format::{grouped, instant_in};
use crate::invoice::{
    Invoice, InvoiceState,
    view::{Line, LineKind},
};

/// Until when something of it changes or is to be paid; may be empty.
pub(super) fn until(invoice: &Invoice, zone: &TimeZone) -> String {
    match (invoice.state, invoice.final_at, invoice.due_at) {
        (InvoiceState::Grace, Some(at), _) => format!("final from {}", instant_in(zone, at)),
        (InvoiceState::Final | InvoiceState::Sent, _, Some(at)) => {
            format!("due by {}", instant_in(zone, at))
        }
        (InvoiceState::Overdue, _, Some(at)) => format!("was due by {}", instant_in(zone, at)),
        _ => String::new(),
    }
}

pub(super) fn state(state: InvoiceState) -> &'static str {
    match state {
        InvoiceState::Draft => "draft",
        InvoiceState::Grace => "not final yet",
        InvoiceState::Final => "final",
        InvoiceState::Sent => "sent",
        InvoiceState::Overdue => "overdue",
        InvoiceState::Paid => "paid",
        InvoiceState::Void => "void",
    }
}

/// What else the amount comes from: `1,000 included; 0.01 up to 50, then 0.005`.
pub(crate) fn details(line: &Line) -> String {
    let mut details: Vec<String> =
        line.model.iter().map(|model| format!("model {model}")).collect();
    if let Some(included) = line.included.filter(|included| !included.is_zero()) {
        details.push(format!("{} included", grouped(&included.to_string())));
    }
    details.extend(tiers(line));
    if let Some(package) = line.package {
        let size = grouped(&package.size.to_string());
        details.push(format!("{} for each started package of {size}", package.price));
    }
    if let Some(discount) = &line.discount {
        details.push(format!("of {}", discount.of));
    }
    if let Some(minimum) = &line.minimum {
        details.push(format!("{} without it", minimum.reached));
    }
    if let Some(share) = line.share {
        let (part, whole) = (share.quarter_hours.to_string(), share.of.to_string());
        details.push(format!(
            "in force for {} of the period's {} quarter hours",
            grouped(&part),
            grouped(&whole)
        ));
    }
    details.join("; ")
}

/// `0.01 up to 50, 0.005 for each further one`; `None` without any.
fn tiers(line: &Line) -> Option<String> {
    // The quantity says which one holds for all of it.
    let is_volume = line.kind == LineKind::Volume;
    let tiers: Vec<_> = line
        .tiers
        .iter()
        .map(|tier| match tier.up_to {
            Some(up_to) => format!("{} up to {}", tier.unit_price, grouped(&up_to.to_string())),
            None if is_volume => format!("{} for more", tier.unit_price),
            None => format!("{} for each further one", tier.unit_price),
        })
        .collect();
    let all = if is_volume { "all of them at " } else { "" };
    (!tiers.is_empty()).then(|| format!("{all}{}", tiers.join(", ")))
}
