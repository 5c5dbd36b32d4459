use super::*;

#[test]
fn long_leases_are_renewed_each_in_its_own_time() {
    let long_ns = 120_000_000_000;
    assert!((0..1_000).all(|index| renew_before_ns(index, 100_000_000_000) == RENEW_NS));
    let mut spans: Vec<u64> =
        (0..1_000).map(|index| renew_before_ns(index, long_ns) - RENEW_NS).collect();
    spans.sort_unstable();
    assert!(spans.iter().all(|span| *span < long_ns / 4));
    let widest = spans.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(widest < long_ns / 4 / 500, "{widest}");
}

/// The native form has its shared data in this process, so whole workers can be watched for hours of made-up
/// time.
#[cfg(feature = "native")]
mod in_time {
    use super::super::*;
    use crate::tenants::Known;

    mod world;

    use self::world::World;

    const SECOND: u64 = 1_000_000_000;
    const MINUTE: u64 = 60 * SECOND;

    #[test]
    fn who_comes_rarely_waits_once() {
        let mut world = World::new("rarely", 1);
        let mut waits = 0;
        for _ in 0..500 {
            waits += u32::from(!world.request(0));
            world.pass(13 * SECOND);
        }
        assert_eq!((waits, world.stranded), (1, 0));
        let minutes = 500 * 13 / 60;
        assert!(world.asks.len() < minutes, "{} asks in {minutes} min", world.asks.len());
    }

    #[test]
    fn who_stays_away_gives_all_back_and_is_not_looked_at_any_more() {
        let mut world = World::new("away", 1);
        world.request(0);
        world.pass(14 * MINUTE);
        assert!(world.slot().is_live(world.now_ns));
        world.pass(2 * MINUTE);
        assert_eq!((world.refunded(), world.stranded), (31, 0));
        world.pass(3 * MINUTE);
        let index = world.index(0);
        assert!(!world.workers[0].tenants.get_mut(index).unwrap().is_watched());
        assert!(!world.request(0));
        world.pass(10 * MINUTE);
        assert!(world.request(0), "the next lease is kept as well");
        assert_eq!(world.stranded, 0);
    }

    #[test]
    fn who_comes_back_just_when_all_went_back_has_a_lease_that_is_kept() {
        let mut world = World::new("back", 1);
        world.request(0);
        while world.refunded() == 0 {
            world.pass(SWEEP_NS);
        }
        world.pass(SECOND);
        assert!(!world.request(0));
        world.pass(10 * MINUTE);
        assert!(world.request(0));
        assert_eq!(world.stranded, 0);
    }

    #[test]
    fn who_has_plenty_no_more_gives_back_before_the_lease_ends() {
        for pause in [1, 7, 40, 100] {
            let mut world = World::new(&format!("plenty-{pause}"), 1);
            world.request(0);
            world.pass(pause * SECOND);
            world.has_plenty = false;
            let since_ns = world.now_ns;
            world.pass(3 * MINUTE);
            assert_eq!((world.refunded(), world.stranded), (31, 0), "after {pause} s");
            assert!(world.asks_since(since_ns) <= 3, "{} asks", world.asks_since(since_ns));
        }
    }

    #[test]
    fn the_end_of_a_period_makes_few_calls() {
        for lasts in [60, 130, 200, 230] {
            let mut world = World::new(&format!("period-{lasts}"), 1);
            world.period_ends_ns = world.now_ns + lasts * SECOND;
            while world.now_ns + SECOND < world.period_ends_ns {
                world.request(0);
                world.pass(SECOND);
            }
            let most = lasts as usize / 80 + 6;
            assert!(world.asks.len() <= most, "{} asks in {lasts} s", world.asks.len());
        }
    }

    #[test]
    fn what_a_burst_leaves_goes_back_within_seconds() {
        let mut world = World::new("burst", 1);
        world.lease(0, 5_000);
        world.request(0);
        world.pass(4 * SECOND);
        assert_eq!((world.refunded(), world.stranded), (4_999, 0));
    }

    #[test]
    fn another_lease_is_kept_and_given_back_as_well() {
        let mut world = World::new("another", 1);
        world.request(0);
        world.pass(30 * SECOND);
        world.request(0);
        world.stamp += 1;
        world.lease(0, 32);
        world.pass(5 * MINUTE);
        assert!(world.slot().is_live(world.now_ns));
        world.pass(15 * MINUTE);
        assert_eq!(world.stranded, 0);
        assert!(world.slot().free.is_zero());
    }

    /// A worker was lost, say: what the others have drawn is good until its end.
    #[test]
    fn another_lease_leaves_what_was_drawn_of_the_one_before() {
        for plenty in [true, false] {
            let mut world = World::new(&format!("drawn-{plenty}"), 1);
            world.request(0);
            world.has_plenty = plenty;
            world.stamp += 1;
            world.lease_ends_ns = 0;
            world.lease(0, 32);
            let free = world.slot().free;
            for _ in 0..7 {
                assert!(world.request(0));
            }
            assert_eq!(world.slot().free, free, "eight were drawn");
            assert!(world.request(0));
            assert_ne!(world.slot().free, free);
            world.pass(20 * MINUTE);
            assert_eq!((world.refunded(), world.stranded), (31, 0), "{plenty}");
        }
    }

    #[test]
    fn another_lease_that_is_short_is_given_back_in_time() {
        for pause in [1, 95, 115] {
            let mut world = World::new(&format!("scarce-{pause}"), 1);
            world.request(0);
            world.pass(pause * SECOND);
            world.stamp += 1;
            world.lease_ends_ns = world.now_ns + 2 * SECOND;
            world.has_plenty = false;
            world.lease(0, 32);
            world.pass(20 * SECOND);
            assert_eq!(world.stranded, 0, "after {pause} s");
        }
    }

    #[test]
    fn a_worker_without_traffic_leaves_its_siblings_their_leases() {
        let mut world = World::new("sibling", 2);
        world.request(0);
        world.pass(SWEEP_NS);
        assert!(world.request(1), "it draws last, and has no traffic any more");
        world.pass(SWEEP_NS);
        let refunded = world.refunded();
        let mut waits = 0;
        for _ in 0..100 {
            waits += u32::from(!world.request(0));
            world.pass(7 * SECOND);
        }
        assert!(waits <= 1, "{waits} waits");
        assert_eq!((world.refunded(), world.stranded), (refunded, 0));
    }

    #[test]
    fn who_hurries_leaves_no_lease_to_siblings_that_are_lost() {
        let mut world = World::new("lost", 2);
        world.request(1);
        world.pass(SWEEP_NS);
        assert!(world.request(0), "it draws last, and goes on alone");
        world.workers.truncate(1);
        world.is_busy = false;
        world.pass(3 * MINUTE);
        assert!(world.refunded() > 0);
        assert_eq!(world.stranded, 0);
    }

    /// Very many are looked after at once while there is no traffic; who is scarce must not wait for them when
    /// it is back.
    #[test]
    fn a_lull_delays_nobody_who_is_to_be_looked_after() {
        let mut world = World::new("lull", 1);
        for other in 0..40_000 {
            let worker = &mut world.workers[0];
            let Known::Tenant(index) = worker.tenants.find(format!("o{other}").as_bytes(), 0)
            else {
                panic!("it is known");
            };
            worker.tenants.prove(index);
            worker.watch(index, sweep_at(world.now_ns + MINUTE));
        }
        world.is_busy = false;
        world.pass(SECOND);
        (world.is_busy, world.has_plenty) = (true, false);
        world.request(0);
        world.pass(3 * SECOND);
        assert_eq!((world.refunded(), world.stranded), (31, 0));
    }

    /// Else thousands of them, in an outage, would keep the others from being looked after.
    #[test]
    fn who_has_no_lease_any_more_is_not_looked_at() {
        let mut world = World::new("ended", 1);
        world.request(0);
        let index = world.index(0);
        let worker = &mut world.workers[0];
        for _ in 0..4_000 {
            world.now_ns += SWEEP_NS;
            worker.busy_ns = world.now_ns;
            worker.sweep(world.now_ns);
            worker.call_for_leases(world.now_ns);
        }
        let tenant = worker.tenants.get_mut(index).unwrap();
        assert!(tenant.call.is_some(), "nobody answers");
        assert!(!tenant.is_watched());
    }
}
