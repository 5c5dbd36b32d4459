//! What holds for all periods of all cadences.

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

/// With offsets of half and quarter hours, changes at midnight and changes of half an hour.
const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Zurich",
    "America/New_York",
    "America/St_Johns",
    "Africa/Cairo",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
];

/// From 2000 to 2050.
fn quarters() -> impl Strategy<Value = Quarter> {
    (1_051_920_i64..2_805_120).prop_map(Quarter)
}

fn zones() -> impl Strategy<Value = TimeZone> {
    prop::sample::select(&ZONES[..]).prop_map(zone)
}

fn cadences() -> impl Strategy<Value = Cadence> {
    prop_oneof![
        Just(Cadence::CalendarMonth),
        Just(Cadence::Anniversary),
        (1_i64..=366).prop_map(every),
    ]
}

/// Whether a zone has no such day: Apia changed sides of the date line.
fn is_skipped(day: Date, zone: &TimeZone) -> bool {
    day.to_zoned(zone.clone()).unwrap().date() != day
}

proptest! {
    #[test]
    fn periods_end_at_midnight_on_the_dates_of_their_cadence(
        start in quarters(), zone in zones(), cadence in cadences(),
    ) {
        let schedule = Schedule::since(cadence, start, &zone);
        let anchor = date_of(start, &zone);
        let mut start = start;
        for index in 1_i32..=14 {
            let period = BillingPeriod::scheduled(start, schedule, &zone, &zone).unwrap();
            prop_assert!(period.end() > start);
            let end = period.end().start().to_zoned(zone.clone());
            prop_assert_eq!(end.start_of_day().unwrap(), end.clone(), "midnight");
            let day = end.date();
            prop_assume!(!is_skipped(day.yesterday().unwrap(), &zone));
            match cadence {
                Cadence::CalendarMonth => prop_assert_eq!(day.day(), 1),
                Cadence::Anniversary => {
                    prop_assert_eq!(day.day(), anchor.day().min(day.days_in_month()));
                }
                Cadence::EveryDays(days) => {
                    let passed = anchor.until(day).unwrap().get_days();
                    prop_assert_eq!(passed, index * i32::from(days.get()));
                }
            }
            if cadence == Cadence::Anniversary || cadence == Cadence::CalendarMonth {
                let month = |day: Date| i32::from(day.year()) * 12 + i32::from(day.month());
                prop_assert_eq!(month(day) - month(anchor), index, "one period per month");
            }
            start = period.end();
        }
    }

    #[test]
    fn a_period_that_is_ended_early_does_not_move_the_dates(
        start in quarters(), zone in zones(), cadence in cadences(), cut in any::<prop::sample::Index>(),
    ) {
        let schedule = Schedule::since(cadence, start, &zone);
        let whole = BillingPeriod::scheduled(start, schedule, &zone, &zone).unwrap();
        let cut = Quarter(start.0 + i64::try_from(cut.index(whole.quarters() as usize)).unwrap());
        let rest = BillingPeriod::scheduled(cut, schedule, &zone, &zone).unwrap();
        prop_assert_eq!(rest.end(), whole.end());
    }

    #[test]
    fn a_move_between_zones_keeps_one_period_per_date(
        start in quarters(), before in zones(), after in zones(), cadence in cadences(),
    ) {
        let schedule = Schedule::since(cadence, start, &before);
        let first = BillingPeriod::scheduled(start, schedule, &before, &before).unwrap();
        let moved = BillingPeriod::scheduled(first.end(), schedule, &before, &after).unwrap();
        let stayed = BillingPeriod::scheduled(first.end(), schedule, &before, &before).unwrap();
        // Zones are at most 25 hours apart, Apia's lost day with them 49.
        let apart = (moved.end().0 - stayed.end().0).abs();
        let short = matches!(cadence, Cadence::EveryDays(days) if days.get() <= 3);
        prop_assert!(short || apart <= 49 * 4, "{} quarter hours", apart);
    }
}
