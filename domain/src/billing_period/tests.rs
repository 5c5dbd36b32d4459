//! Periods computed by hand.

mod properties;

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
    let (start, opened_in) = (at(start), zone(opened_in));
    let schedule = Schedule::since(Cadence::CalendarMonth, start, &opened_in);
    let period = BillingPeriod::scheduled(start, schedule, &opened_in, &zone(in_zone)).unwrap();
    period.end().start().to_string()
}

/// The ends of the first periods after `since`.
fn ends<const N: usize>(cadence: Cadence, since: &str, in_zone: &str) -> [String; N] {
    let (mut start, zone) = (at(since), zone(in_zone));
    let schedule = Schedule::since(cadence, start, &zone);
    std::array::from_fn(|_| {
        start = BillingPeriod::scheduled(start, schedule, &zone, &zone).unwrap().end();
        start.start().to_string()
    })
}

fn every(days: i64) -> Cadence {
    Cadence::EveryDays(Days::try_from(days).unwrap())
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
    let first = Quarter::containing(Timestamp::MIN);
    assert_eq!(first.start(), Timestamp::MIN);
    for cadence in [Cadence::CalendarMonth, Cadence::Anniversary, every(366)] {
        let open = |start| {
            let schedule = Schedule::since(cadence, start, &utc);
            BillingPeriod::scheduled(start, schedule, &utc, &utc)
        };
        assert!(matches!(open(last), Err(PeriodError::Calendar { .. })), "{cadence:?}");
        assert!(open(first).is_ok(), "{cadence:?}");
    }
    assert_eq!(BillingPeriod::new(last, first), Err(PeriodError::Empty));
    assert_eq!(BillingPeriod::new(first, first), Err(PeriodError::Empty));
}

#[test]
fn an_anniversary_in_a_short_month_is_its_last_day_and_comes_back() {
    let of = |since, in_zone| ends::<5>(Cadence::Anniversary, since, in_zone);
    assert_eq!(
        of("2026-01-31T10:07:00Z", "UTC"),
        ["2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31", "2026-06-30"]
            .map(|day| format!("{day}T00:00:00Z")),
    );
    assert_eq!(
        of("2023-12-30T00:00:00Z", "UTC"),
        ["2024-01-30", "2024-02-29", "2024-03-30", "2024-04-30", "2024-05-30"]
            .map(|day| format!("{day}T00:00:00Z")),
    );
    // The 15th in Zurich, over the change to summer time on 29 March.
    assert_eq!(
        of("2026-01-14T23:00:00Z", "Europe/Zurich"),
        [
            "2026-02-14T23:00:00Z",
            "2026-03-14T23:00:00Z",
            "2026-04-14T22:00:00Z",
            "2026-05-14T22:00:00Z",
            "2026-06-14T22:00:00Z",
        ],
    );
}

#[test]
fn every_so_many_days_counts_dates_and_not_hours() {
    assert_eq!(
        ends(every(30), "2026-01-10T10:07:00Z", "UTC"),
        ["2026-02-09T00:00:00Z", "2026-03-11T00:00:00Z", "2026-04-10T00:00:00Z"],
    );
    // New York's days of 23 hours (8 March) and of 25 hours (1 November).
    assert_eq!(
        ends(every(7), "2026-03-01T05:00:00Z", "America/New_York"),
        ["2026-03-08T05:00:00Z", "2026-03-15T04:00:00Z"],
    );
    assert_eq!(
        ends(every(1), "2026-10-31T04:00:00Z", "America/New_York"),
        ["2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"],
    );
    // Cairo skips midnight of 24 April; Apia skipped the whole 30 December 2011.
    assert_eq!(
        ends(every(1), "2026-04-22T22:00:00Z", "Africa/Cairo"),
        ["2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"],
    );
    assert_eq!(
        ends(every(1), "2011-12-28T10:00:00Z", "Pacific/Apia"),
        ["2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"],
    );
}

#[test]
fn a_plan_says_its_cadence_in_json() {
    for (json, cadence) in [
        (r#""calendar_month""#, Cadence::CalendarMonth),
        (r#""anniversary""#, Cadence::Anniversary),
        (r#"{"every_days":30}"#, every(30)),
    ] {
        assert_eq!(serde_json::from_str::<Cadence>(json).unwrap(), cadence);
        assert_eq!(serde_json::to_string(&cadence).unwrap(), json);
    }
    for (json, error) in [
        (r#"{"every_days":0}"#, "a billing period has 1 to 366 days, not 0"),
        (r#"{"every_days":-7}"#, "a billing period has 1 to 366 days, not -7"),
        (r#"{"every_days":367}"#, "a billing period has 1 to 366 days, not 367"),
        (r#"{"every_days":1.5}"#, "expected i64"),
        (r#""weekly""#, "expected one of `calendar_month`, `anniversary`, `every_days`"),
    ] {
        let refused = serde_json::from_str::<Cadence>(json).unwrap_err().to_string();
        assert!(refused.contains(error), "{json}: {refused}");
    }
}
