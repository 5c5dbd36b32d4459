//! Billing periods, and the quarter hours of UTC that they are made of.

mod cadence;
#[cfg(test)]
mod tests;

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use thiserror::Error;

pub use self::cadence::{Cadence, Days, Schedule};

const QUARTER_S: i64 = 900;

/// A quarter hour of UTC. Usage is rolled up per quarter hour, and terms and periods start on one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Quarter(i64);

impl Quarter {
    /// The quarter hour that holds `instant`.
    pub fn containing(instant: Timestamp) -> Self {
        // A Timestamp's second is rounded towards 0; its nanosecond tells before 1970.
        let before = i64::from(instant.subsec_nanosecond() < 0);
        Self((instant.as_second() - before).div_euclid(QUARTER_S))
    }

    /// Its first instant.
    pub fn start(self) -> Timestamp {
        // Only the very first quarter hour of the calendar is cut.
        Timestamp::from_second(self.0.saturating_mul(QUARTER_S)).unwrap_or(Timestamp::MIN)
    }

    fn last_second(self) -> Timestamp {
        Timestamp::from_second(self.next().0.saturating_mul(QUARTER_S).saturating_sub(1))
            .unwrap_or(Timestamp::MAX)
    }

    /// The quarter hour after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// What one invoice covers: whole quarter hours, from `start` to before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BillingPeriod {
    start: Quarter,
    end: Quarter,
}

/// Why there is no such period.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PeriodError {
    #[error("a billing period must end after it starts")]
    Empty,
    #[error("a billing period must be shorter than 10,000 years")]
    TooLong,
    #[error("the calendar has no end for a billing period that starts at {start}: {cause}")]
    Calendar { start: Timestamp, cause: String },
}

impl BillingPeriod {
    pub fn new(start: Quarter, end: Quarter) -> Result<Self, PeriodError> {
        if end <= start {
            return Err(PeriodError::Empty);
        }
        if u32::try_from(end.0.saturating_sub(start.0)).is_err() {
            return Err(PeriodError::TooLong);
        }
        Ok(Self { start, end })
    }

    /// The period that starts at `start` and ends at midnight of `zone`, on the next date of
    /// `schedule`.
    ///
    /// After which date that is, is read in `opened_in`: the zone in which the period before it ended.
    /// So a tenant that moves to another zone gets one period that is some hours longer or shorter, and
    /// not a period of a few hours beside it.
    ///
    /// Some zones once had offsets that are not whole quarter hours. There the quarter hour in which
    /// a day starts belongs to that day.
    pub fn scheduled(
        start: Quarter,
        schedule: Schedule,
        opened_in: &TimeZone,
        zone: &TimeZone,
    ) -> Result<Self, PeriodError> {
        let no_end = |error: jiff::Error| PeriodError::Calendar {
            start: start.start(),
            cause: error.to_string(),
        };
        let mut date = date_of(start, opened_in);
        loop {
            date = schedule.next_after(date).map_err(no_end)?;
            let end = start_of(date, zone).map_err(no_end)?;
            if end > start {
                return Self::new(start, end);
            }
        }
    }

    pub const fn start(self) -> Quarter {
        self.start
    }

    /// The first quarter hour after the period.
    pub const fn end(self) -> Quarter {
        self.end
    }

    pub fn contains(self, quarter: Quarter) -> bool {
        self.start <= quarter && quarter < self.end
    }

    /// How many quarter hours it has.
    pub fn quarters(self) -> u32 {
        quarters(self.start, self.end)
    }
}

/// How many quarter hours lie from `start` to before `end`; 0 if there are none.
pub(crate) fn quarters(start: Quarter, end: Quarter) -> u32 {
    u32::try_from(end.0.saturating_sub(start.0)).unwrap_or(0)
}

/// The date that `quarter` lies on in `zone`: that of its last second, since with an odd offset its
/// first one may still lie on the day before.
fn date_of(quarter: Quarter, zone: &TimeZone) -> Date {
    quarter.last_second().to_zoned(zone.clone()).date()
}

/// The quarter hour in which `day` starts in `zone`: at its first instant, since some zones skip
/// midnight.
fn start_of(day: Date, zone: &TimeZone) -> Result<Quarter, jiff::Error> {
    let midnight = day.to_zoned(zone.clone())?.start_of_day()?;
    Ok(Quarter::containing(midnight.timestamp()))
}
