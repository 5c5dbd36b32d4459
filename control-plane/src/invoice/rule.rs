//! Lines that come from the other lines: discounts, minimums and credits.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use weir_domain::{
    currency::Currency,
    invoice::{Rule, grants::GrantKind},
    money::Money,
};

use super::view::{Discount, Line, LineKind, Minimum, UsedCredit};

/// What such a line was computed from, as it is stored. Amounts are in minor units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum StoredRule {
    Discount {
        /// The name of the price; none where it is the plan's.
        price: Option<String>,
        #[serde(with = "rust_decimal::serde::str")]
        percent: Decimal,
        of_minor: i64,
    },
    Minimum {
        price: Option<String>,
        minimum_minor: i64,
        reached_minor: i64,
    },
    Credit {
        credit: i64,
        credit_kind: GrantKind,
    },
}

impl StoredRule {
    pub(super) fn of(rule: &Rule) -> Self {
        match rule {
            Rule::Discount { price, percent, of } => {
                Self::Discount { price: price.clone(), percent: *percent, of_minor: of.minor() }
            }
            Rule::Minimum { price, minimum, reached } => Self::Minimum {
                price: price.clone(),
                minimum_minor: minimum.minor(),
                reached_minor: reached.minor(),
            },
            Rule::Credit { grant, kind, .. } => Self::Credit { credit: *grant, credit_kind: *kind },
        }
    }

    pub(super) fn line(self, position: u32, name: String, amount: Money) -> Line {
        let currency = amount.currency();
        match self {
            Self::Discount { price, percent, of_minor } => Line {
                discount: Some(Discount { price, percent, of: decimal(of_minor, currency) }),
                ..Line::new(position, name, LineKind::Discount, amount)
            },
            Self::Minimum { price, minimum_minor, reached_minor } => Line {
                minimum: Some(Minimum {
                    price,
                    amount: decimal(minimum_minor, currency),
                    reached: decimal(reached_minor, currency),
                }),
                ..Line::new(position, name, LineKind::Minimum, amount)
            },
            Self::Credit { credit: id, credit_kind: kind } => Line {
                credit: Some(UsedCredit { id, kind }),
                ..Line::new(position, name, LineKind::Credit, amount)
            },
        }
    }
}

fn decimal(minor: i64, currency: Currency) -> Decimal {
    Money::new(minor, currency).decimal()
}
