//! How long billing periods are, and on which dates they begin.

use jiff::{Span, civil::Date, tz::TimeZone};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Quarter, date_of};

/// How long billing periods are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Cadence {
    /// From the first of a month to the next.
    #[default]
    CalendarMonth,
    /// From the day of the month on which the first such period began to that of the next month; to
    /// the last day of a month that is too short for it.
    Anniversary,
    /// So many days, from the day on which the first such period began.
    EveryDays(Days),
}

/// How many days a billing period has: 1 to 366.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64")]
pub struct Days(u16);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a billing period has 1 to {max} days, not {0}", max = Days::MAX)]
pub struct NoSuchDays(i64);

/// The dates on which the billing periods of a tenant begin, as long as their cadence stays the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    cadence: Cadence,
    /// On which the first period of this cadence began.
    anchor: Date,
}

impl Cadence {
    /// Whether it is the one of plans that name none.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Days {
    pub const MAX: u16 = 366;

    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<i64> for Days {
    type Error = NoSuchDays;

    fn try_from(days: i64) -> Result<Self, NoSuchDays> {
        u16::try_from(days)
            .ok()
            .filter(|days| (1..=Self::MAX).contains(days))
            .map(Self)
            .ok_or(NoSuchDays(days))
    }
}

impl Schedule {
    /// That of periods whose first one starts at `start`, on the date that it is in `zone`.
    pub fn since(cadence: Cadence, start: Quarter, zone: &TimeZone) -> Self {
        Self { cadence, anchor: date_of(start, zone) }
    }

    pub const fn cadence(self) -> Cadence {
        self.cadence
    }

    /// The first of its dates after `day`.
    pub(super) fn next_after(self, day: Date) -> Result<Date, jiff::Error> {
        match self.cadence {
            Cadence::CalendarMonth => day.first_of_month().checked_add(Span::new().months(1)),
            Cadence::Anniversary => {
                // Always from the anchor: a short month must not shorten those after it.
                let months = months_between(self.anchor, day);
                let anniversary = |months| self.anchor.checked_add(Span::new().try_months(months)?);
                let date = anniversary(months)?;
                if date > day { Ok(date) } else { anniversary(months + 1) }
            }
            Cadence::EveryDays(days) => {
                let passed = self.anchor.until(day)?.get_days();
                let days = i32::from(days.get());
                let next = (passed.div_euclid(days) + 1) * days;
                self.anchor.checked_add(Span::new().try_days(next)?)
            }
        }
    }
}

/// From the month of `from` to that of `to`.
fn months_between(from: Date, to: Date) -> i32 {
    let month = |date: Date| i32::from(date.year()) * 12 + i32::from(date.month());
    month(to) - month(from)
}
