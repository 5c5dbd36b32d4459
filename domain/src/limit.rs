//! Limits: the token buckets of a plan, and the windows of time that periodic ones live in.

use jiff::{
    Span, Timestamp, Zoned,
    civil::{Date, Weekday},
    tz::TimeZone,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{id::LimitName, quantity::Quantity};

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Tokens,
    Requests,
}

impl Unit {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Requests => "requests",
        }
    }
}

/// A token bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Limit {
    pub name: LimitName,
    pub unit: Unit,
    /// The most the bucket holds, at least 1.
    pub capacity: Quantity,
    pub refill: Refill,
}

/// How a bucket fills again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Refill {
    /// `amount` per `interval_ms`, evenly, up to the capacity.
    Continuous { amount: Quantity, interval_ms: u64 },
    /// Back to capacity at the start of each period.
    Periodic { period: Period },
}

/// When a periodic bucket is back at its capacity. Calendar periods are those of the tenant's time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// An hour of UTC.
    Hour,
    Day,
    /// From Monday.
    Week,
    Month,
    Year,
    /// Every so many minutes, counted from 1970-01-01T00:00Z.
    EveryMinutes(u32),
}

/// A stretch of time, from `start_ms` to before `end_ms`, in ms since 1970 (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub start_ms: i64,
    pub end_ms: i64,
}

/// What is wrong with a limit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LimitError {
    #[error("capacity must be at least 1")]
    NoCapacity,
    #[error("refill.amount must be at least 1")]
    NoRefill,
    #[error("refill.interval_ms is {0}; it must be 1 to {MAX_INTERVAL_MS} (366 days)")]
    Interval(u64),
    #[error("refill.period.every_minutes is {0}; it must be 1 to 527040 (366 days)")]
    Minutes(u32),
}

/// The longest refill interval: 366 days.
pub const MAX_INTERVAL_MS: u64 = 366 * 86_400_000;

/// The time that a window is asked for lies outside the calendar (years −9999 to 9999).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{now_ms} ms since 1970 has no calendar period: {cause}")]
pub struct WindowError {
    pub now_ms: i64,
    pub cause: String,
}

impl Limit {
    /// Whether the limit can work at all.
    pub fn check(&self) -> Result<(), LimitError> {
        if self.capacity.is_zero() {
            return Err(LimitError::NoCapacity);
        }
        match self.refill {
            Refill::Continuous { amount, .. } if amount.is_zero() => Err(LimitError::NoRefill),
            Refill::Continuous { interval_ms, .. }
                if !(1..=MAX_INTERVAL_MS).contains(&interval_ms) =>
            {
                Err(LimitError::Interval(interval_ms))
            }
            Refill::Periodic { period: Period::EveryMinutes(minutes) }
                if !(1..=527_040).contains(&minutes) =>
            {
                Err(LimitError::Minutes(minutes))
            }
            Refill::Continuous { .. } | Refill::Periodic { .. } => Ok(()),
        }
    }
}

impl Period {
    /// The period that holds `now_ms`, in `time_zone`. Days of 23 and 25 hours are whole days.
    pub fn window(self, now_ms: i64, time_zone: &TimeZone) -> Result<Window, WindowError> {
        self.try_window(now_ms, time_zone)
            .map_err(|error| WindowError { now_ms, cause: error.to_string() })
    }

    fn try_window(self, now_ms: i64, time_zone: &TimeZone) -> Result<Window, jiff::Error> {
        let in_zone = || {
            Timestamp::from_millisecond(now_ms).map(|instant| instant.to_zoned(time_zone.clone()))
        };
        let (first_day, length) = match self {
            Self::Hour => return Ok(fixed_window(now_ms, 60)),
            Self::EveryMinutes(minutes) => return Ok(fixed_window(now_ms, minutes)),
            Self::Day => (in_zone()?.date(), Span::new().days(1)),
            Self::Week => (monday_of(&in_zone()?)?, Span::new().weeks(1)),
            Self::Month => (in_zone()?.date().first_of_month(), Span::new().months(1)),
            Self::Year => (in_zone()?.date().first_of_year(), Span::new().years(1)),
        };
        // A day starts at its first instant: some zones skip midnight.
        let start_of = |day: Date| {
            let start = day.to_zoned(time_zone.clone())?.start_of_day()?;
            Ok::<_, jiff::Error>(start.timestamp().as_millisecond())
        };
        Ok(Window {
            start_ms: start_of(first_day)?,
            end_ms: start_of(first_day.checked_add(length)?)?,
        })
    }
}

fn fixed_window(now_ms: i64, minutes: u32) -> Window {
    let length_ms = i64::from(minutes.max(1)) * 60_000;
    let start_ms = now_ms.div_euclid(length_ms) * length_ms;
    Window { start_ms, end_ms: start_ms + length_ms }
}

fn monday_of(now: &Zoned) -> Result<Date, jiff::Error> {
    now.date().checked_sub(Span::new().days(now.weekday().since(Weekday::Monday)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn window(period: Period, now: &str, zone: &str) -> (String, String) {
        let zone = TimeZone::get(zone).unwrap();
        let now_ms = now.parse::<Timestamp>().unwrap().as_millisecond();
        let window = period.window(now_ms, &zone).unwrap();
        let text = |ms| Timestamp::from_millisecond(ms).unwrap().to_string();
        (text(window.start_ms), text(window.end_ms))
    }

    fn pair(start: &str, end: &str) -> (String, String) {
        (start.to_owned(), end.to_owned())
    }

    #[test]
    fn calendar_periods_follow_the_zone() {
        assert_eq!(
            window(Period::Day, "2026-03-29T10:00:00Z", "Europe/Zurich"),
            pair("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
            "a day of 23 hours",
        );
        assert_eq!(
            window(Period::Month, "2026-12-31T23:30:00Z", "UTC"),
            pair("2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        );
        assert_eq!(
            window(Period::Week, "2026-11-22T12:00:00Z", "UTC"),
            pair("2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z"),
        );
        assert_eq!(
            window(Period::Hour, "2026-11-22T12:20:00Z", "Asia/Kolkata"),
            pair("2026-11-22T12:00:00Z", "2026-11-22T13:00:00Z"),
            "hours are those of UTC",
        );
        assert_eq!(
            window(Period::EveryMinutes(15), "2026-11-22T12:20:00Z", "Asia/Kolkata"),
            pair("2026-11-22T12:15:00Z", "2026-11-22T12:30:00Z"),
        );
    }

    #[test]
    fn a_limit_that_cannot_work_is_refused() {
        let limit = Limit {
            name: LimitName::new("burst").unwrap(),
            unit: Unit::Requests,
            capacity: Quantity::ONE,
            refill: Refill::Continuous { amount: Quantity::ONE, interval_ms: 1000 },
        };
        assert_eq!(limit.check(), Ok(()));
        let with = |refill| Limit { refill, ..limit.clone() }.check();
        assert_eq!(
            with(Refill::Continuous { amount: Quantity::ZERO, interval_ms: 1 }),
            Err(LimitError::NoRefill)
        );
        assert_eq!(
            with(Refill::Continuous { amount: Quantity::ONE, interval_ms: 0 }),
            Err(LimitError::Interval(0))
        );
        assert_eq!(
            with(Refill::Periodic { period: Period::EveryMinutes(0) }),
            Err(LimitError::Minutes(0))
        );
        assert_eq!(
            Limit { capacity: Quantity::ZERO, ..limit.clone() }.check(),
            Err(LimitError::NoCapacity)
        );
    }

    fn any_period() -> impl Strategy<Value = Period> {
        prop_oneof![
            Just(Period::Hour),
            Just(Period::Day),
            Just(Period::Week),
            Just(Period::Month),
            Just(Period::Year),
            (1u32..10_000).prop_map(Period::EveryMinutes),
        ]
    }

    proptest! {
        /// Every instant lies in exactly one window: windows hold their instants and touch the next.
        #[test]
        fn windows_tile_time(
            period in any_period(),
            now_ms in 0i64..4_000_000_000_000,
            zone in prop::sample::select(vec![
                "UTC", "Europe/Zurich", "America/Sao_Paulo", "Africa/Cairo", "Australia/Lord_Howe", "Asia/Kathmandu",
            ]),
        ) {
            let zone = TimeZone::get(zone).unwrap();
            let this = period.window(now_ms, &zone).unwrap();
            prop_assert!(this.start_ms <= now_ms && now_ms < this.end_ms);
            prop_assert_eq!(period.window(this.start_ms, &zone).unwrap(), this);
            prop_assert_eq!(period.window(this.end_ms - 1, &zone).unwrap(), this);
            prop_assert_eq!(period.window(this.end_ms, &zone).unwrap().start_ms, this.end_ms);
        }
    }
}
