use super::*;

const S: i64 = 1_000_000;
const HOUR: i64 = 3_600 * S;
/// Of the clocks that are right, in these tests.
const RIGHT: i64 = 1_767_225_600 * S;

/// A clock that is ahead of the right one, read within 1 ms.
fn ahead(us: i64) -> Offset {
    Offset { least: RIGHT + us - 500, most: RIGHT + us + 500 }
}

fn all_right() -> Estimate {
    let clocks = Clocks { own: ahead(0), redis: ahead(0), postgres: Some(ahead(0)) };
    Estimate::first(clocks, 0)
}

fn off(estimate: &Estimate) -> i64 {
    estimate.offset_us - RIGHT
}

#[test]
fn an_offset_lies_between_sending_and_receiving() {
    let offset = Offset::new(1_000, 100, 130);
    assert_eq!((offset.least, offset.most), (870, 900));
    assert_eq!(
        (offset.correction(880), offset.correction(860), offset.correction(950)),
        (0, 10, -50)
    );
}

#[test]
fn what_agrees_changes_nothing_and_a_slow_call_says_little() {
    let mut estimate = all_right();
    assert!(!estimate.hear(ahead(400), S));
    let slow = Offset { least: RIGHT - 3 * S, most: RIGHT + 2 };
    assert!(!estimate.hear(slow, 5 * S));
    assert_eq!((off(&estimate), estimate.redis), (0, Redis::InLine));
}

#[test]
fn a_drift_is_followed_to_the_nearest_edge() {
    let mut estimate = all_right();
    // 400 ppm for an hour.
    for second in 1..=3_600 {
        assert!(!estimate.hear(ahead(second * 400), second * S), "after {second} s");
    }
    assert_eq!(off(&estimate), 3_600 * 400 - 500);
}

#[test]
fn after_a_silence_more_may_have_drifted() {
    let mut estimate = all_right();
    assert!(estimate.is_stale(HOUR));
    assert!(!estimate.hear(ahead(-1_800_000), HOUR));
    assert_eq!(off(&estimate), 500 - 1_800_000);
    // But that is not left over for a jump.
    assert!(estimate.hear(ahead(0), HOUR + 1));
}

#[test]
fn a_jump_is_not_followed_in_either_direction() {
    for jump in [HOUR, -HOUR, 2 * STEP_US, -2 * STEP_US] {
        let mut estimate = all_right();
        assert!(estimate.hear(ahead(jump), S));
        assert_eq!((off(&estimate), estimate.redis), (0, Redis::Doubtful));
        assert!(!estimate.hear(ahead(jump), S), "it jumps once");
        assert_eq!(estimate.check(ahead(0), Some(ahead(0)), S), None);
        assert_eq!((off(&estimate), estimate.redis), (0, Redis::Wrong));
        // And it comes back.
        assert!(!estimate.hear(ahead(0), 2 * S));
        assert_eq!((off(&estimate), estimate.redis), (0, Redis::InLine));
    }
}

#[test]
fn many_small_steps_are_no_way_around() {
    let mut estimate = all_right();
    for step in 1..=100 {
        estimate.hear(ahead(step * 20_000), step * S);
    }
    assert!(off(&estimate) <= STEP_US + 100 * 500, "{}", off(&estimate));
}

#[test]
fn a_jump_of_this_hosts_wall_clock_does_not_matter() {
    for jump in [HOUR, -HOUR] {
        let clocks = Clocks { own: ahead(jump), redis: ahead(7), postgres: Some(ahead(0)) };
        let mut estimate = Estimate::first(clocks, 0);
        assert_eq!((off(&estimate), estimate.redis), (7, Redis::InLine));
        assert_eq!(estimate.check(ahead(-jump), Some(ahead(0)), S), None);
        assert_eq!((off(&estimate), estimate.redis), (7, Redis::InLine));
    }
}

#[test]
fn a_start_beside_a_redis_that_is_wrong_takes_the_median() {
    for jump in [HOUR, -HOUR] {
        let clocks = Clocks { own: ahead(-9), redis: ahead(jump), postgres: Some(ahead(9)) };
        let estimate = Estimate::first(clocks, 0);
        assert!(off(&estimate).abs() == 9 && estimate.redis == Redis::Wrong);
    }
}

#[test]
fn a_process_that_stood_still_takes_the_new_time() {
    let mut estimate = all_right();
    assert!(estimate.hear(ahead(HOUR), S));
    // Its wall clock may have stood still too.
    assert_eq!(estimate.check(ahead(0), Some(ahead(HOUR)), S), Some(HOUR));
    assert_eq!(estimate.redis, Redis::InLine);
}

#[test]
fn what_postgres_and_the_estimate_agree_on_stays() {
    let mut estimate = all_right();
    assert!(estimate.hear(ahead(HOUR), S));
    assert_eq!(estimate.check(ahead(HOUR), Some(ahead(0)), S), None);
    assert_eq!((off(&estimate), estimate.redis), (0, Redis::Wrong));
}

#[test]
fn without_postgres_the_estimate_stays() {
    let mut estimate = all_right();
    assert!(estimate.hear(ahead(HOUR), S));
    assert_eq!(estimate.check(ahead(HOUR), None, S), None);
    assert_eq!((off(&estimate), estimate.redis), (0, Redis::Doubtful), "it may have stood still");
    assert_eq!(estimate.check(ahead(0), None, S), None);
    assert_eq!((off(&estimate), estimate.redis), (0, Redis::Wrong));
    assert!(!estimate.wants_check(S) && estimate.wants_check(2 * S));
}

#[test]
fn a_start_without_postgres_is_in_doubt_until_it_is_back() {
    for (own, redis) in [(HOUR, 0), (0, HOUR)] {
        let clocks = Clocks { own: ahead(own), redis: ahead(redis), postgres: None };
        let mut estimate = Estimate::first(clocks, 0);
        assert_eq!((off(&estimate), estimate.redis), (0, Redis::Doubtful));
        assert_eq!(estimate.check(ahead(own), None, S), None);
        assert_eq!(estimate.redis, Redis::Doubtful);
        assert!(estimate.wants_check(S));
        assert!(estimate.check(ahead(own), Some(ahead(HOUR)), S).is_some());
        assert!((off(&estimate) - HOUR).abs() <= 500);
    }
}

#[test]
fn a_redis_that_stays_wrong_does_not_leave_us_to_drift() {
    let mut estimate = all_right();
    estimate.hear(ahead(HOUR), S);
    // Our monotonic clock loses 100 ppm on the others.
    for second in 1..=10_000 {
        let drift = second * 100;
        assert_eq!(estimate.check(ahead(drift), Some(ahead(drift)), second * S), None);
        assert!((off(&estimate) - drift).abs() <= 600, "after {second} s");
    }
}
