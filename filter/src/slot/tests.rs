use super::*;
use weir_domain::id::TenantId;

fn amount(tokens: u32, requests: u32) -> Amount {
    Amount { tokens: Quantity::from(tokens), requests: Quantity::from(requests) }
}

fn answer(stamp: &str, granted: Amount, ttl_ms: u64, now_ms: i64) -> LeaseAnswer {
    LeaseAnswer {
        tenant: TenantId::new("acme").unwrap(),
        call: 1,
        state: TenantState::Active,
        stamp: stamp.to_owned(),
        granted,
        ttl_ms,
        now_ms,
        plan: "pro".to_owned(),
        retry_after_ms: 0,
        ask_again_ms: 50,
        limits: Vec::new(),
    }
}

fn daily() -> LimitStatus {
    LimitStatus {
        name: "daily".parse().unwrap(),
        unit: weir_domain::limit::Unit::Tokens,
        capacity: Quantity::from(1_000_000),
        remaining: Quantity::from(900_000),
        window_s: 86_400,
        reset_s: 3_600,
        violated: true,
    }
}

fn called(need: Amount, sent_ns: u64) -> Called {
    Called { caller: 7, need, generation: 0, sent_ns, reads_plan: true, tells_limits: false }
}

fn leased(granted: Amount) -> Slot {
    let mut slot = Slot::default();
    slot.apply(&answer("s1", granted, 2_000, 1_000), &called(amount(1, 1), 0), 0);
    slot
}

#[test]
fn a_slot_survives_shared_data() {
    let mut slot = leased(amount(100, 100));
    slot.refusal = Some(Refusal { need: amount(1, 1), until_ns: 5, retry_ns: None });
    slot.limits = Some(vec![daily()]);
    assert_eq!(Slot::decode(slot.encode().as_deref()), slot);
}

#[test]
fn slices_shrink_to_the_cost_and_nothing_is_stranded() {
    let mut slot = leased(amount(100, 100));
    let mut slices = Vec::new();
    while let Some(drawn) = slot.draw(amount(1, 1), 10) {
        slices.push(drawn.slice.tokens.get());
    }
    assert_eq!(slices.first(), Some(&25));
    assert_eq!(slices.iter().sum::<u64>(), 100);
    assert_eq!(slices.last(), Some(&1));
}

#[test]
fn a_cost_is_covered_whole_or_not_at_all() {
    let mut slot = leased(amount(40, 100));
    assert_eq!(slot.draw(amount(50, 1), 10), None);
    assert_eq!(slot.free, amount(40, 100));
    assert_eq!(slot.draw(amount(30, 1), 10).unwrap().slice.tokens.get(), 30);
}

#[test]
fn nothing_is_drawn_past_the_end() {
    let mut slot = leased(amount(10, 10));
    assert!(slot.draw(amount(1, 1), 1_999_999_999).is_some());
    assert_eq!(slot.draw(amount(1, 1), 2_000_000_000), None);
}

#[test]
fn a_new_stamp_replaces_what_is_held_and_the_same_one_adds() {
    let mut slot = leased(amount(10, 10));
    slot.apply(&answer("s1", amount(5, 5), 2_000, 1_001), &called(amount(1, 1), 0), 0);
    assert_eq!(slot.free, amount(15, 15));
    let first = slot.lease;
    slot.put_back(first, amount(0, 0), amount(3, 3));
    slot.apply(&answer("s2", amount(7, 7), 2_000, 1_002), &called(amount(1, 1), 0), 0);
    assert_eq!((slot.free, slot.spent), (amount(7, 7), Amount::ZERO));
    slot.put_back(first, amount(2, 2), amount(1, 1));
    assert_eq!((slot.free, slot.spent), (amount(7, 7), Amount::ZERO), "old slices are void");
    slot.apply(&answer("s1", amount(9, 9), 2_000, 1_001), &called(amount(1, 1), 0), 0);
    assert_eq!(slot.stamp, "s2", "an overtaken answer is ignored");
}

#[test]
fn one_worker_calls_at_a_time() {
    let mut slot = leased(amount(10, 10));
    let basis = slot.start_call(7, amount(1, 1), 0, 100).unwrap();
    assert_eq!(basis.stamp, "s1");
    assert_eq!(slot.start_call(8, amount(1, 1), 0, 200), None);
    assert_eq!(slot.start_call(8, Amount::ZERO, 0, 99 + CALLER_NS), None);
    let mut other = slot.clone();
    assert!(other.start_call(8, Amount::ZERO, 0, 100 + CALLER_NS).is_some(), "7 is taken for dead");
    let waited_ns = 100 + CALLER_NS_WITH_NEED;
    assert!(slot.start_call(8, amount(1, 1), 0, waited_ns).is_some(), "a request waits");
}

#[test]
fn demand_sizes_the_next_lease() {
    let mut slot = leased(amount(1_000, 1_000));
    slot.measured_ns = 1_000_000_000;
    slot.used = amount(1_500, 1_500);
    let basis = slot.start_call(7, Amount::ZERO, 0, 1_500_000_000).unwrap();
    assert_eq!(slot.demand, amount(3_000, 3_000));
    assert_eq!(basis.want, amount(2_000, 2_000));
}

#[test]
fn what_is_used_at_once_is_not_taken_for_a_rate() {
    let mut slot = leased(amount(1_000, 1_000));
    slot.measured_ns = 1_000_000_000;
    slot.used = amount(100, 100);
    slot.start_call(7, Amount::ZERO, 0, 1_001_000_000).unwrap();
    assert_eq!(slot.demand, amount(400, 400));
    slot.used = slot.used.saturating_add(amount(50, 50));
    slot.start_call(7, Amount::ZERO, 0, 1_500_000_000).unwrap();
    assert_eq!(slot.demand, amount(300, 300), "150 in half a second");
}

/// A lease of a tenant that had plenty.
fn long(granted: Amount, used: Amount) -> Slot {
    Slot { ttl_ns: 120_000_000_000, end_ns: 120_000_000_000, used, ..leased(granted) }
}

/// Also where there is hardly any demand: who waits for a lease costs more than a call that comes in time.
#[test]
fn a_slot_is_low_when_it_does_not_hold_a_few_requests_more() {
    let is_low = |free: u32, used| {
        let mut slot = long(amount(free, 100), used);
        slot.draw(amount(1, 1), 1).unwrap().low
    };
    assert!(!is_low(24, amount(9, 2)), "18 tokens are free, and four requests take 18");
    assert!(is_low(24, amount(10, 2)), "they take 20");
    assert!(!is_low(2, Amount::ZERO), "nobody knows what is typical");
    let scarce = Slot { ttl_ns: 2_000_000_000, ..long(amount(1, 1), amount(10, 2)) };
    assert!(!scarce.clone().draw(amount(1, 1), 1).unwrap().low, "there is no plenty to ask for");
}

/// Else every so many requests of a tenant that comes rarely, one would wait.
#[test]
fn a_lease_that_is_renewed_holds_enough_for_those_who_come_rarely() {
    let want = |tokens, requests| {
        let mut slot = long(amount(90, 9), amount(tokens, requests));
        let now_ns = 119_000_000_000;
        slot.measured_ns = 1;
        slot.start_call(7, Amount::ZERO, 0, now_ns).unwrap().want
    };
    assert_eq!(want(0, 0), Amount::ZERO, "nobody came");
    assert_eq!(want(40, 4), amount(230, 23), "32 at 10 tokens each");
    assert_eq!(want(118, 59), amount(0, 23), "32 at 2 tokens each: twice a second is no demand");
    assert_eq!(want(59_500, 5_950), amount(410, 41), "50 at 10 tokens each: the demand per second");
}

#[test]
fn what_the_demand_was_goes_back_while_the_lease_is_used() {
    let mut slot = leased(amount(3_000, 3_000));
    (slot.demand, slot.measured_ns) = (amount(3_000, 3_000), 1);
    slot.used = amount(10, 10);
    let basis = slot.start_call(7, Amount::ZERO, 0, 1_300_000_000).unwrap();
    assert_eq!((slot.demand, basis.refund), (amount(1_500, 1_500), Amount::ZERO), "not at once");
    slot.end_ns = 20_000_000_000;
    slot.used = amount(80, 80);
    let basis = slot.start_call(7, Amount::ZERO, 0, 9_300_000_000).unwrap();
    assert_eq!((slot.demand, slot.free), (amount(10, 10), amount(20, 20)), "8 s later");
    assert_eq!((basis.refund, basis.want), (amount(2_980, 2_980), Amount::ZERO));
    slot.free = amount(100, 100);
    let basis = slot.start_call(7, Amount::ZERO, 0, 9_400_000_000).unwrap();
    assert_eq!(basis.refund, Amount::ZERO, "nobody misses that little");
}

/// Its few requests would make it look like little, and cheap ones would renew it for ever.
#[test]
fn what_an_expensive_request_brought_goes_back_while_cheap_ones_come() {
    let refund = |used| {
        let mut slot = leased(amount(4_000_000, 60));
        (slot.used, slot.measured_ns) = (used, 1);
        slot.start_call(7, Amount::ZERO, 0, 1_300_000_000).unwrap().refund
    };
    assert_eq!(refund(amount(5_000, 50)), amount(4_000_000 - 128 * 100, 0));
    assert_eq!(refund(amount(1_000_000, 1)), Amount::ZERO, "as much may be needed again");
    assert_eq!(refund(Amount::ZERO), Amount::ZERO, "nobody came");
}

/// Slices are drawn far ahead of what is spent of them, above all of a unit that is plentiful beside
/// a scarce one. If that counted as demand, leases would feed on themselves.
#[test]
fn what_was_only_drawn_is_no_demand() {
    let mut slot = leased(amount(8, 1_000));
    let mut now_ns = 1_000;
    for _ in 0..20 {
        let drawn = slot.draw(amount(1, 1), now_ns).unwrap();
        now_ns += 2_000_000;
        slot.start_call(7, Amount::ZERO, 0, now_ns).unwrap();
        slot.put_back(slot.lease, drawn.slice.saturating_sub(amount(1, 1)), amount(1, 1));
        let call = called(Amount::ZERO, now_ns);
        slot.apply(&answer("s1", amount(1, 1), 2_000, 1_001), &call, now_ns);
    }
    // One in 2 ms.
    assert!(amount(500, 500).covers(slot.demand), "{:?}", slot.demand);
}

#[test]
fn a_changed_tenant_is_asked_for_again_with_a_refund() {
    let mut slot = leased(amount(10, 10));
    slot.invalidate(5);
    assert_eq!(slot.draw(amount(1, 1), 10), None);
    let basis = slot.start_call(7, amount(1, 1), 0, 10).unwrap();
    assert_eq!((basis.refund, slot.free), (amount(10, 10), Amount::ZERO));
    slot.apply(&answer("s1", amount(8, 8), 2_000, 1_001), &called(amount(1, 1), 10), 20);
    assert!(slot.draw(amount(1, 1), 30).is_some());
}

#[test]
fn an_answer_from_before_a_change_does_not_undo_it() {
    let mut slot = leased(amount(10, 10));
    slot.invalidate(5);
    slot.apply(&answer("s1", amount(8, 8), 2_000, 1_001), &called(amount(1, 1), 4), 6);
    assert_eq!(slot.draw(amount(1, 1), 10), None);
    slot.apply(&answer("s1", Amount::ZERO, 2_000, 1_001), &called(amount(1, 1), 4), 6);
    assert_eq!(slot.refusal, None);
}

#[test]
fn a_grant_that_came_too_late_is_no_refusal() {
    let mut slot = Slot::default();
    let mut nothing = answer("s1", Amount::ZERO, 0, 1_001);
    nothing.ask_again_ms = 0;
    slot.apply(&nothing, &called(amount(1, 1), 0), 0);
    assert_eq!(slot.refusal, None);
    nothing.ask_again_ms = 20;
    nothing.retry_after_ms = u64::MAX;
    slot.apply(&nothing, &called(amount(1, 1), 0), 10);
    assert_eq!(slot.refusal.unwrap().retry_ns, Some(u64::MAX));
}

#[test]
fn a_refusal_holds_for_what_costs_as_much() {
    let mut slot = leased(Amount::ZERO);
    let refusal = slot.refusal.unwrap();
    assert!(refusal.refuses(amount(1, 1), 10));
    assert!(!refusal.refuses(amount(1, 1), refusal.until_ns));
    slot.apply(&answer("s1", Amount::ZERO, 2_000, 1_001), &called(amount(50, 1), 0), 0);
    assert!(!slot.refusal.unwrap().refuses(amount(49, 1), 10));
}

#[test]
fn a_lease_of_an_older_generation_is_given_up_for_a_fresh_one() {
    let mut slot = leased(amount(10, 10));
    let drawn = slot.draw(amount(1, 1), 10).unwrap();
    slot.put_back(slot.lease, Amount::ZERO, amount(1, 1));
    let basis = slot.start_call(7, amount(1, 1), 1, 10).unwrap();
    assert!(basis.fresh);
    assert_eq!((basis.refund, basis.spent), (amount(8, 8), amount(1, 1)));
    assert_eq!(drawn.slice, amount(2, 2), "1 of it is in a worker that may be lost");

    let call = Called { generation: 1, ..called(amount(1, 1), 10) };
    slot.apply(&answer("s2", amount(9, 9), 2_000, 1_001), &call, 20);
    assert_eq!((slot.free, slot.generation), (amount(9, 9), 1));
    assert!(!slot.start_call(7, amount(1, 1), 1, 30).unwrap().fresh, "once is enough");
}

/// A worker that has not heard of the new generation yet must not undo what another asked for.
#[test]
fn a_caller_that_is_behind_asks_for_nothing_fresh() {
    let mut slot = leased(amount(10, 10));
    slot.generation = 2;
    assert!(!slot.start_call(7, amount(1, 1), 1, 10).unwrap().fresh);
    slot.apply(&answer("s2", amount(9, 9), 2_000, 1_001), &called(amount(1, 1), 10), 20);
    assert_eq!(slot.generation, 2);
    assert!(
        !Slot::default().start_call(7, amount(1, 1), 3, 10).unwrap().fresh,
        "no lease, no loss"
    );
}

/// It got nothing when it asked ahead of demand: that is remembered for an outage, and no request is
/// refused for it, as the limits were told with what the gateway still held.
#[test]
fn what_was_asked_ahead_in_vain_refuses_nobody() {
    let mut slot = leased(amount(1, 1));
    let mut refused = answer("s1", Amount::ZERO, 2_000, 1_001);
    (refused.ask_again_ms, refused.retry_after_ms) = (2_000, 60_000);
    slot.apply(&refused, &called(Amount::ZERO, 5), 5);
    let refusal = slot.refusal.unwrap();
    assert!(!refusal.refuses(amount(1, 1), 5) && refusal.retry_ns.is_some());
    slot.apply(&refused, &called(amount(1, 1), 5), 5);
    assert!(slot.refusal.unwrap().refuses(amount(1, 1), 6));
}

/// The answer to a call from before a change does not know the plan after it.
#[test]
fn a_slot_knows_the_plan_since_the_last_change() {
    let mut slot = leased(amount(1, 1));
    assert_eq!(slot.plan.as_deref(), Some("pro"));
    slot.invalidate(10);
    assert_eq!(slot.plan, None);
    let mut told = answer("s1", Amount::ZERO, 2_000, 1_001);
    "free".clone_into(&mut told.plan);
    slot.apply(&told, &called(Amount::ZERO, 9), 20);
    assert_eq!(slot.plan, None);
    slot.apply(&told, &called(Amount::ZERO, 11), 20);
    assert_eq!(slot.plan.as_deref(), Some("free"));
    slot.apply(&told, &Called { reads_plan: false, ..called(Amount::ZERO, 12) }, 20);
    assert_eq!(slot.plan, None, "nobody asks");
}

/// Among very many tenants a slot must be small; Envoy keeps one for each, and a key.
#[test]
fn a_slot_in_steady_use_is_small() {
    let mut slot = Slot::default();
    let now_ns = 4_000_000_000_000_000;
    let mut answer = answer("0123456789ab.17", amount(320, 32), 120_000, 1_800_000_000_000);
    answer.limits = vec![daily()];
    let called = Called { caller: u64::MAX, reads_plan: false, ..called(amount(10, 1), now_ns) };
    slot.start_call(u64::MAX, amount(10, 1), 0, now_ns).unwrap();
    slot.apply(&answer, &called, now_ns);
    let drawn = slot.draw(amount(10, 1), now_ns).unwrap();
    slot.put_back(drawn.lease, drawn.slice.saturating_sub(amount(10, 1)), amount(10, 1));
    let size = slot.encode().unwrap().len();
    assert!(size <= 79, "{size} bytes");
}

#[test]
fn limits_are_kept_where_somebody_may_be_told_of_them() {
    let limits = vec![daily()];
    let kept = |granted, tells_limits| {
        let mut slot = Slot::default();
        let answer = LeaseAnswer { limits: limits.clone(), ..answer("s1", granted, 2_000, 1_000) };
        slot.apply(&answer, &Called { tells_limits, ..called(amount(1, 1), 0) }, 0);
        slot.limits.is_some()
    };
    assert!(!kept(amount(1, 1), false));
    assert!(kept(amount(1, 1), true), "who is admitted");
    assert!(kept(Amount::ZERO, false), "who is refused");
}

/// A worker that still holds a slice of the first lease must not put it into the second one.
#[test]
fn no_number_of_a_lease_comes_again() {
    let lease = |slot: &mut Slot, stamp, now_ns| {
        slot.apply(
            &answer(stamp, amount(8, 8), 2_000, 1_000),
            &called(amount(1, 1), now_ns),
            now_ns,
        );
        slot.lease
    };
    let mut slot = Slot::default();
    let first = lease(&mut slot, "s1", 5);
    assert_eq!(lease(&mut slot, "s1", 6), first, "it was renewed");
    let second = lease(&mut slot, "s2", 6);
    assert!(second > first);
    let mut anew = Slot::default();
    assert!(lease(&mut anew, "s1", 7) > second, "the slot was emptied");
    let free = anew.free;
    anew.put_back(first, amount(3, 3), amount(1, 1));
    assert_eq!((anew.free, anew.spent), (free, Amount::ZERO));
}
