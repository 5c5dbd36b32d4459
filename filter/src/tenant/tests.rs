use weir_domain::{protocol::LimitStatus, quantity::Quantity};

use super::*;
use crate::{refusal::Refused, slot::Refusal};

const ONE: Amount = Amount::request(Quantity::ONE);
const RATE: Rate = Rate::plain(ONE);

fn slice(tokens: u32, end_ns: u64, clock_offset_ns: i64) -> Drawn {
    let tokens = Quantity::from(tokens);
    Drawn {
        slice: Amount { tokens, requests: tokens },
        lease: 1,
        end_ns,
        ttl_ns: 0,
        clock_offset_ns,
        holds_little: true,
        low: false,
    }
}

#[test]
fn a_slice_admits_what_it_holds_until_its_end() {
    let mut usage = UsageLog::default();
    let mut tenant = Tenant::new(TenantId::new("acme").unwrap());
    assert!(!tenant.take(&RATE, 0, &mut usage));
    tenant.hold(slice(3, 1_000, 0));
    assert!(tenant.take(&RATE, 10, &mut usage));
    assert!(tenant.take(&RATE, 999, &mut usage));
    assert!(!tenant.take(&RATE, 1_000, &mut usage), "the lease has ended");
    let surrendered = tenant.surrender();
    assert_eq!((surrendered.rest, surrendered.spent.tokens.get()), (ONE, 2));
    assert!(!tenant.take(&RATE, 10, &mut usage), "nothing is left after that");
}

fn tokens(tokens: u64) -> Amount {
    Amount::request(Quantity::clamped(tokens))
}

/// A tenant with a lease of 100 tokens until 1,000 ns, of which a call has reserved 60.
fn reserved() -> (Tenant, UsageLog) {
    let mut usage = UsageLog::default();
    let mut tenant = Tenant::new(TenantId::new("acme").unwrap());
    tenant.hold(slice(100, 1_000, 0));
    assert!(tenant.take(&Rate::plain(tokens(60)), 0, &mut usage));
    tenant.reserve(tokens(60), true);
    (tenant, usage)
}

#[test]
fn what_is_reserved_is_neither_counted_nor_spent_nor_there() {
    let (mut tenant, mut usage) = reserved();
    assert!(!tenant.take(&Rate::plain(tokens(41)), 1, &mut usage), "40 are left");
    assert!(!tenant.is_idle());
    tenant.close_minute(&mut usage);
    assert!(usage.is_empty());
    let Surrendered { rest, spent } = tenant.surrender();
    assert_eq!((rest.tokens.get(), spent), (40, Amount::ZERO));
}

#[test]
fn a_settled_call_gives_the_rest_back_while_its_lease_lives() {
    let (mut tenant, mut usage) = reserved();
    let settled = tenant.settle(tokens(60), 1, tokens(10), 5);
    assert_eq!(settled, Settled { void: Amount::ZERO, owes: Amount::ZERO });
    assert!(
        tenant.take(&Rate::plain(tokens(90)), 6, &mut usage)
            && !tenant.take(&Rate::plain(tokens(1)), 6, &mut usage)
    );

    let (mut late, mut usage) = reserved();
    let settled = late.settle(tokens(60), 1, tokens(10), 1_000);
    assert_eq!((settled.void.tokens.get(), settled.owes), (50, Amount::ZERO));
    let (mut other, _) = reserved();
    other.hold(Drawn { lease: 2, ..slice(5, 1_000, 0) });
    let settled = other.settle(tokens(60), 1, tokens(10), 5);
    assert_eq!((settled.void.tokens.get(), settled.owes), (50, Amount::ZERO));
    assert!(
        !other.take(&Rate::plain(tokens(6)), 6, &mut usage),
        "nothing of another lease comes in"
    );
}

#[test]
fn a_call_that_takes_more_pays_from_the_slice_and_owes_the_rest() {
    let (mut tenant, mut usage) = reserved();
    let settled = tenant.settle(tokens(60), 1, tokens(90), 5);
    assert_eq!(settled.owes, Amount::ZERO);
    assert!(
        tenant.take(&Rate::plain(tokens(10)), 6, &mut usage)
            && !tenant.take(&Rate::plain(tokens(1)), 6, &mut usage)
    );

    let (mut tenant, _) = reserved();
    let settled = tenant.settle(tokens(60), 1, tokens(130), 5);
    assert_eq!((settled.owes.tokens.get(), settled.owes.requests.get()), (30, 0));
}

#[test]
fn usage_is_counted_in_the_control_planes_minutes() {
    let mut usage = UsageLog::default();
    let mut tenant = Tenant::new(TenantId::new("acme").unwrap());
    let minute = NS_PER_MINUTE.unsigned_abs();
    // The control plane's clock is 30 s into minute 100 when ours reads 0.
    tenant.hold(slice(10, 10 * minute, 100 * NS_PER_MINUTE + NS_PER_MINUTE / 2));
    assert!(tenant.take(&RATE, minute / 2 - 1, &mut usage));
    assert!(tenant.take(&RATE, minute / 2, &mut usage));
    assert!(tenant.take(&RATE, minute / 2 + 5, &mut usage));
    tenant.close_minute(&mut usage);
    let counted: Vec<_> = usage.take_records().iter().map(|r| (r.minute, r.tokens.get())).collect();
    assert_eq!(counted, [(100, 1), (101, 2)]);
}

/// The first call took 800 ms, so its clock is that much ahead; the renewal was fast, and lets
/// the slice live until minute 101, where its period ends.
#[test]
fn a_renewed_slice_is_never_counted_past_the_end_of_its_period() {
    const MS: i64 = 1_000_000;
    let mut usage = UsageLog::default();
    let mut tenant = Tenant::new(TenantId::new("acme").unwrap());
    let offset_ns = 101 * NS_PER_MINUTE - 2_000 * MS;
    tenant.hold(slice(10, 1_200_000_000, offset_ns + 800 * MS));
    assert!(tenant.take(&RATE, 0, &mut usage));
    let now_ms = offset_ns / MS;
    let renewed = Slot { end_ns: 2_000_000_000, ttl_ns: 2_000_000_000, now_ms, ..Slot::default() };
    assert_eq!(renewed.clock_offset_ns(), offset_ns);
    tenant.extend(&renewed);
    assert!(tenant.take(&RATE, 1_900_000_000, &mut usage));
    tenant.close_minute(&mut usage);
    let minutes: Vec<_> = usage.take_records().iter().map(|record| record.minute).collect();
    assert_eq!(minutes, [100]);
}

#[test]
fn usage_is_counted_apart_by_meter_and_version_of_the_policy() {
    let mut usage = UsageLog::default();
    let mut tenant = Tenant::new(TenantId::new("acme").unwrap());
    tenant.hold(slice(100, 1_000, 0));
    let exports = Some("exports".parse().unwrap());
    for (cost, policy_version, meter) in [
        (1, 1, None),
        (2, 1, None),
        (3, 2, None),
        (5, 2, exports.clone()),
        (7, 2, exports),
        (9, 1, None),
    ] {
        let rate = Rate { cost: tokens(cost), policy_version, meter };
        assert!(tenant.take(&rate, 1, &mut usage));
    }
    tenant.close_minute(&mut usage);
    let mut records: Vec<_> = usage
        .take_records()
        .into_iter()
        .map(|it| (it.meter.to_string(), it.policy_version, it.tokens.get(), it.requests.get()))
        .collect();
    records.sort();
    let counted =
        |meter: &str, version, tokens, requests| (meter.to_owned(), version, tokens, requests);
    assert_eq!(
        records,
        [
            counted("default", 1, 3, 2),
            counted("default", 1, 9, 1),
            counted("default", 2, 3, 1),
            counted("exports", 2, 12, 2),
        ]
    );
}

#[test]
fn a_plan_that_was_outdated_is_corrected_by_the_slot() {
    let mut tenant = Tenant::new(TenantId::new("acme").unwrap());
    let slot = |plan: Option<&str>| Slot { plan: plan.map(str::to_owned), ..Slot::default() };
    tenant.plan = Some("gold".into());
    tenant.see_plan(&slot(None));
    assert_eq!(tenant.plan.as_deref(), Some("gold"), "nobody asks for it");
    tenant.see_plan(&slot(Some("iron")));
    assert_eq!(tenant.plan.as_deref(), Some("iron"));
}

/// Where one token was refused for now, what costs more than there ever is does not hear that it will
/// pass later.
#[test]
fn what_can_never_pass_is_told_so() {
    let mut tenant = Tenant::new(TenantId::new("acme").unwrap());
    let limit = LimitStatus {
        name: "monthly".parse().unwrap(),
        unit: weir_domain::limit::Unit::Tokens,
        capacity: Quantity::clamped(10),
        remaining: Quantity::ZERO,
        window_s: 60,
        reset_s: 60,
        violated: true,
    };
    tenant.see_limits(&Slot { limits: Some(vec![limit]), ..Slot::default() });
    let refusal = Refusal { need: ONE, until_ns: 1_000, retry_ns: Some(60_000_000_000) };
    let mut is_for_ever = |cost| match tenant.refuse(refusal, tokens(cost), 0) {
        Refused::Limit(told) => told.is_for_ever(),
        other => panic!("{other:?}"),
    };
    assert!(is_for_ever(11) && !is_for_ever(10) && is_for_ever(11));
}
