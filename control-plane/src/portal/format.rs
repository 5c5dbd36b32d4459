//! How numbers and times are written for people.

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};

/// Groups the digits before the point: `-1234567.50` becomes `-1,234,567.50`.
pub(crate) fn grouped(number: &str) -> String {
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |digits| ("−", digits));
    let (whole, rest) = digits.find('.').map_or((digits, ""), |point| digits.split_at(point));
    let mut text = sign.to_owned();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + rest
}

pub(crate) fn instant_in(zone: &TimeZone, instant: Timestamp) -> String {
    zone.to_datetime(instant).strftime("%-d %b %Y, %H:%M").to_string()
}

pub(super) fn date_of(zone: &TimeZone, instant: Timestamp) -> Date {
    zone.to_datetime(instant).date()
}

/// The last day of a period that ends at `end`.
pub(super) fn last_day(zone: &TimeZone, end: Timestamp) -> Date {
    date_of(zone, end.checked_sub(1.second()).unwrap_or(end))
}

/// `9 d 3 h`, `3 h 12 min`, `4 min`, `12 s`.
pub(super) fn waiting(seconds: i64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (1.., ..) => format!("{days} d {hours} h"),
        (_, 1.., _) => format!("{hours} h {minutes} min"),
        (_, _, 1..) => format!("{minutes} min"),
        _ => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_before_the_point_only() {
        for (number, text) in [
            ("0", "0"),
            ("999", "999"),
            ("1000", "1,000"),
            ("1234567.8901", "1,234,567.8901"),
            ("-100000.00", "−100,000.00"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn waits_are_said_in_two_units_at_most() {
        for (seconds, text) in
            [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3_725, "1 h 2 min"), (90_061, "1 d 1 h")]
        {
            assert_eq!(waiting(seconds), text);
        }
    }
}
