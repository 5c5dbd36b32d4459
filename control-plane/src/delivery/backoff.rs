//! How long to wait after a failure.

use std::time::Duration;

use rand::RngExt;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(900);

/// How often a step is tried before the delivery stops: about three days.
pub const MAX_ATTEMPTS: i32 = 300;

/// After so many attempts, at least what the provider asks for. At random between half of it and all
/// of it, so that what failed together does not come back together.
pub fn wait(attempts: i32, asked: Option<Duration>) -> Duration {
    let exponent = u32::try_from(attempts.saturating_sub(1)).unwrap_or(0).min(20);
    let most = FIRST.saturating_mul(1 << exponent).min(LONGEST);
    let share: f64 = rand::rng().random_range(0.5..=1.0);
    most.mul_f64(share).max(asked.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_a_quarter_of_an_hour() {
        for (attempts, most_ms) in [(0, 500), (1, 500), (2, 1_000), (5, 8_000), (400, 900_000)] {
            for _ in 0..50 {
                let waited = wait(attempts, None).as_millis();
                assert!((most_ms / 2..=most_ms).contains(&waited), "{attempts}: {waited}");
            }
        }
        assert_eq!(wait(1, Some(Duration::from_secs(30))), Duration::from_secs(30));
        assert!(wait(400, Some(Duration::from_secs(30))) > Duration::from_secs(400));
    }
}
