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
    use weir_domain::{
        id::TenantId,
        protocol::{LeaseAnswer, LeaseAsk, LeaseResponse, TenantState},
        quantity::{Amount, Quantity},
    };

    use super::super::*;
    use crate::{
        config::Config,
        http_call::Answer,
        rating::Rate,
        tenant::{PendingCall, slot_key},
        tenants::Known,
        worker::Draw,
    };

    const SECOND: u64 = 1_000_000_000;
    const MINUTE: u64 = 60 * SECOND;
    const CONFIG: &[u8] = br#"{
        "control_plane": { "cluster": "weir", "token": "t" },
        "identity": { "kind": "header", "name": "x-tenant-id" }
    }"#;

    fn requests(count: u64) -> Amount {
        Amount::request(Quantity::ONE)
            .max(Amount { tokens: Quantity::clamped(count), requests: Quantity::clamped(count) })
    }

    /// Workers of one gateway, one tenant, and a control plane that answers at once.
    struct World {
        workers: Vec<Worker>,
        tenant: TenantId,
        now_ns: u64,
        /// Leases last until then at most.
        period_ends_ns: u64,
        has_plenty: bool,
        /// Whether the first worker has traffic.
        is_busy: bool,
        stamp: u32,
        lease_ends_ns: u64,
        asks: Vec<(u64, LeaseAsk)>,
        /// What was free or in slices when a lease ended.
        stranded: u64,
    }

    impl World {
        fn new(tenant: &str, workers: usize) -> Self {
            let config = Config::parse(Some(CONFIG)).unwrap();
            let worker = |number| {
                let mut worker = Worker::new(config.clone(), 0);
                // So that it renews each in its own time, and not at the last moment.
                for other in 0..=number {
                    worker.tenants.find(format!("other-{other}").as_bytes(), 0);
                }
                worker
            };
            Self {
                workers: (0..workers).map(worker).collect(),
                tenant: TenantId::new(tenant).unwrap(),
                now_ns: 1_000 * MINUTE,
                period_ends_ns: u64::MAX,
                has_plenty: true,
                is_busy: true,
                stamp: 1,
                lease_ends_ns: 0,
                asks: Vec::new(),
                stranded: 0,
            }
        }

        fn slot(&self) -> Slot {
            Slot::decode(host::read(&slot_key(&self.tenant)).as_deref())
        }

        fn index(&mut self, worker: usize) -> Index {
            match self.workers[worker].tenants.find(self.tenant.as_str().as_bytes(), self.now_ns) {
                Known::Tenant(index) => index,
                _ => panic!("the tenant is known"),
            }
        }

        fn answer(&mut self, worker: usize, ask: &LeaseAsk) {
            let answer = LeaseResponse { leases: vec![self.decide(ask)] };
            let answer = Answer::new(Some(200), serde_json::to_vec(&answer).unwrap());
            let index = self.index(worker);
            self.workers[worker].on_leases(vec![index], &answer, self.now_ns);
        }

        fn decide(&mut self, ask: &LeaseAsk) -> LeaseAnswer {
            let ends_ns = self.now_ns + if self.has_plenty { 2 * MINUTE } else { 2 * SECOND };
            // Who only has a lease renewed gets nothing more of what is scarce.
            let is_scarce = !self.has_plenty && ask.need.is_zero();
            let granted = if is_scarce { Amount::ZERO } else { ask.want };
            let has_ended = self.lease_ends_ns <= self.now_ns;
            if has_ended && !ask.stamp.is_empty() {
                self.stamp += 1;
            }
            if has_ended || !granted.is_zero() || self.has_plenty {
                self.lease_ends_ns = self.lease_ends_ns.max(ends_ns).min(self.period_ends_ns);
            }
            LeaseAnswer {
                tenant: ask.tenant.clone(),
                call: ask.call,
                state: TenantState::Active,
                stamp: format!("base.{}", self.stamp),
                granted,
                ttl_ms: self.lease_ends_ns.saturating_sub(self.now_ns) / 1_000_000,
                now_ms: 1_700_000_000_000,
                plan: String::new(),
                retry_after_ms: 0,
                ask_again_ms: 0,
                limits: Vec::new(),
            }
        }

        /// Lets time pass, sweep by sweep.
        fn pass(&mut self, span_ns: u64) {
            let until_ns = self.now_ns + span_ns;
            while self.now_ns < until_ns {
                self.now_ns += SWEEP_NS;
                if self.is_busy {
                    self.workers[0].busy_ns = self.now_ns;
                }
                self.note_stranded();
                for worker in 0..self.workers.len() {
                    self.count_nothing(worker);
                    self.workers[worker].sweep(self.now_ns);
                    self.calls(worker);
                }
            }
        }

        /// What was counted is on its way to the ledger.
        fn count_nothing(&mut self, worker: usize) {
            let (index, worker) = (self.index(worker), &mut self.workers[worker]);
            worker.tenants.get_mut(index).unwrap().close_minute(&mut worker.usage);
        }

        fn calls(&mut self, worker: usize) {
            self.workers[worker].call_for_leases(self.now_ns);
            let index = self.index(worker);
            let tenant = self.workers[worker].tenants.get_mut(index).unwrap();
            if let Some(ask) = tenant.call.as_ref().map(|call| call.ask.clone()) {
                self.answer(worker, &ask);
                self.asks.push((self.now_ns, ask));
            }
        }

        fn note_stranded(&mut self) {
            let slot = self.slot();
            if !slot.stamp.is_empty() && slot.end_ns <= self.now_ns && !slot.free.is_zero() {
                self.stranded += slot.free.requests.get();
                host::clear(&slot_key(&self.tenant));
            }
        }

        /// A request, which asks for a lease where it has to; `false` if it had to.
        fn request(&mut self, worker: usize) -> bool {
            let (index, rate) = (self.index(worker), Rate::plain(requests(1)));
            let at_once =
                matches!(self.workers[worker].draw(index, &rate, self.now_ns), Draw::Took);
            if !at_once {
                self.lease(worker, 32);
                let drawn = self.workers[worker].draw(index, &rate, self.now_ns);
                assert!(matches!(drawn, Draw::Took), "there is a lease");
            }
            self.workers[worker].list(index);
            at_once
        }

        /// A lease of so many requests.
        fn lease(&mut self, worker: usize, count: u64) {
            let index = self.index(worker);
            let ask = LeaseAsk {
                tenant: self.tenant.clone(),
                call: 0,
                stamp: self.slot().stamp,
                need: requests(1),
                want: requests(count),
                spent: Amount::ZERO,
                refund: Amount::ZERO,
                owe: Amount::ZERO,
                fresh: false,
            };
            let tenant = self.workers[worker].tenants.get_mut(index).unwrap();
            tenant.call = Some(Box::new(PendingCall {
                ask: ask.clone(),
                generation: 0,
                sent_ns: self.now_ns,
                retry_ns: 0,
                failures: 0,
            }));
            self.answer(worker, &ask);
        }

        fn asks_since(&self, since_ns: u64) -> usize {
            self.asks.iter().filter(|(at_ns, _)| *at_ns >= since_ns).count()
        }

        fn refunded(&self) -> u64 {
            self.asks.iter().map(|(_, ask)| ask.refund.requests.get()).sum()
        }
    }

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
