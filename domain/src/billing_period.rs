//! Billing periods, and the quarter hours of UTC that they are made of.

use jiff::{Span, Timestamp, civil::Date, tz::TimeZone};
use thiserror::Error;

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
    #[error("the calendar has no month after {start}: {cause}")]
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

    /// The period that starts at `start` and ends with the calendar month of `zone`.
    ///
    /// Which month that is, is read in `opened_in`: the zone in which the period before it ended. So
    /// a tenant that moves to another zone gets one month that is some hours longer or shorter, and
    /// not a month of a few hours beside it.
    ///
    /// Some zones once had offsets that are not whole quarter hours. There the quarter hour in which
    /// a month starts belongs to that month.
    pub fn month(
        start: Quarter,
        opened_in: &TimeZone,
        zone: &TimeZone,
    ) -> Result<Self, PeriodError> {
        let no_month = |error: jiff::Error| PeriodError::Calendar {
            start: start.start(),
            cause: error.to_string(),
        };
        // Its last second: with such an offset its first one may still lie in the month before.
        let opened = start.last_second().to_zoned(opened_in.clone()).date();
        let mut next_month = month_after(opened).map_err(no_month)?;
        loop {
            let end = start_of(next_month, zone).map_err(no_month)?;
            if end > start {
                return Self::new(start, end);
            }
            next_month = month_after(next_month).map_err(no_month)?;
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

/// The first day of the month after that of `day`.
fn month_after(day: Date) -> Result<Date, jiff::Error> {
    day.first_of_month().checked_add(Span::new().months(1))
}

/// The quarter hour in which `day` starts in `zone`: at its first instant, since some zones skip
/// midnight.
fn start_of(day: Date, zone: &TimeZone) -> Result<Quarter, jiff::Error> {
    let midnight = day.to_zoned(zone.clone())?.start_of_day()?;
    Ok(Quarter::containing(midnight.timestamp()))
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn at(text: &str) -> Quarter {
        Quarter::containing(text.parse().unwrap())
    }

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    /// The end of the month that starts at `start`.
    fn end(start: &str, opened_in: &str, in_zone: &str) -> String {
        let period = BillingPeriod::month(at(start), &zone(opened_in), &zone(in_zone)).unwrap();
        period.end().start().to_string()
    }

    #[test]
    fn a_quarter_hour_starts_on_one() {
        for (instant, start) in [
            ("2026-01-31T12:44:59.999Z", "2026-01-31T12:30:00Z"),
            ("2026-01-31T12:45:00Z", "2026-01-31T12:45:00Z"),
            ("1969-12-31T23:59:59.5Z", "1969-12-31T23:45:00Z"),
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(at(instant).start().to_string(), start, "{instant}");
        }
    }

    #[test]
    fn months_end_at_midnight_of_the_zone() {
        for (start, in_zone, expected) in [
            ("2026-02-10T10:07:00Z", "UTC", "2026-03-01T00:00:00Z"),
            ("2026-01-31T23:00:00Z", "Europe/Zurich", "2026-02-28T23:00:00Z"),
            ("2026-02-28T23:00:00Z", "Europe/Zurich", "2026-03-31T22:00:00Z"),
            ("2026-01-31T18:15:00Z", "Asia/Kathmandu", "2026-02-28T18:15:00Z"),
            ("2026-12-31T23:45:00Z", "UTC", "2027-01-01T00:00:00Z"),
            ("2024-02-01T00:00:00Z", "UTC", "2024-03-01T00:00:00Z"),
        ] {
            assert_eq!(end(start, in_zone, in_zone), expected, "{start} {in_zone}");
        }
    }

    #[test]
    fn an_odd_offset_gives_the_quarter_hour_to_the_month_that_starts_in_it() {
        // Monrovia was 44 min 30 s behind UTC until 1972.
        let monrovia = "Africa/Monrovia";
        assert_eq!(end("1970-02-10T00:00:00Z", monrovia, monrovia), "1970-03-01T00:30:00Z");
        assert_eq!(end("1970-03-01T00:30:00Z", monrovia, monrovia), "1970-04-01T00:30:00Z");
    }

    #[test]
    fn a_move_to_another_zone_makes_one_month_longer_or_shorter() {
        // Opened as January of Zurich, ends as January of UTC, and the other way round.
        assert_eq!(end("2025-12-31T23:00:00Z", "Europe/Zurich", "UTC"), "2026-02-01T00:00:00Z");
        assert_eq!(end("2026-01-01T00:00:00Z", "UTC", "Europe/Zurich"), "2026-01-31T23:00:00Z");
        // The month that it was opened in has ended in the new zone already: the next one.
        assert_eq!(end("2026-01-31T23:30:00Z", "UTC", "Europe/Zurich"), "2026-02-28T23:00:00Z");
    }

    #[test]
    fn the_ends_of_the_calendar_are_errors_not_panics() {
        let utc = TimeZone::UTC;
        let last = Quarter::containing(Timestamp::MAX);
        assert!(matches!(
            BillingPeriod::month(last, &utc, &utc),
            Err(PeriodError::Calendar { .. })
        ));
        let first = Quarter::containing(Timestamp::MIN);
        assert_eq!(first.start(), Timestamp::MIN);
        assert!(BillingPeriod::month(first, &utc, &utc).is_ok());
        assert_eq!(BillingPeriod::new(last, first), Err(PeriodError::Empty));
        assert_eq!(BillingPeriod::new(first, first), Err(PeriodError::Empty));
    }
}
