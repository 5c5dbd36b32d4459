//! The law, over random interleavings of asks, answers, spending, losses and time.
//!
//! The gateways here do all that gateways may do, in the worst way: they spend any part of what they
//! hold until its last ms, have several calls under way, repeat calls, say late or never what they
//! spent, and give back late. The network delays calls and answers, doubles and drops them. Redis is
//! lost, whole or in part; so are blocks on their way from Postgres.

mod fairness;
mod late;
mod world;

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use self::world::{Step, World};
use super::*;
use crate::{id::TenantId, protocol::LeaseAsk};

/// A bucket refills within a lease.
const TTL_MS: i64 = 200;
const TOKENS: Quantity = Quantity::clamped(20);
/// Three tokens in 20 ms.
const RATE: Rate = Rate { amount: Quantity::clamped(3), interval_ms: 20 };
const REQUESTS: i64 = 60;
const PERIOD_MS: i64 = 1_000;
const GATEWAYS: usize = 3;
const WORKERS: usize = 2;

fn amount(tokens: u64, requests: u64) -> Amount {
    Amount { tokens: Quantity::clamped(tokens), requests: Quantity::clamped(requests) }
}

fn an_ask(call: u64, need: Amount, want: Amount) -> LeaseAsk {
    let tenant = TenantId::new("acme").unwrap();
    let (spent, refund, owe) = (Amount::ZERO, Amount::ZERO, Amount::ZERO);
    LeaseAsk { tenant, call, stamp: String::new(), need, want, spent, refund, owe, fresh: false }
}

/// Tokens by rate, full.
fn tokens_by_rate() -> Bucket {
    Bucket {
        unit: Unit::Tokens,
        capacity: TOKENS,
        level: signed(TOKENS),
        refill: Refill::Continuous { rate: RATE, fraction: 0, at_ms: 0 },
        spared: Quantity::ZERO,
    }
}

/// Requests by period, not fed yet.
fn requests_by_period() -> Bucket {
    let (unclaimed, known) = (Quantity::ZERO, false);
    Bucket {
        unit: Unit::Requests,
        capacity: Quantity::clamped(REQUESTS.unsigned_abs()),
        level: 0,
        refill: Refill::Periodic {
            ends_ms: PERIOD_MS,
            unclaimed,
            known,
            checked_ms: 0,
            blocks: Blocks::default(),
        },
        spared: Quantity::ZERO,
    }
}

fn step() -> impl Strategy<Value = Step> {
    let ms = prop_oneof![8 => 0i64..15, 2 => 15i64..120, 1 => 9_990i64..11_000];
    let call = (0..GATEWAYS * WORKERS, 0u64..8, 0u64..30, any::<[bool; 2]>(), 0..10);
    prop_oneof![
        6 => ms.prop_map(|ms| Step::Pass { ms }),
        8 => call.prop_map(|(worker, need, more, [says, gives_back], owes)| Step::Call {
            worker, need, want: need + more, says, gives_back, owes: owes == 0, fresh: owes == 1 }),
        10 => (any::<usize>(), 0..4, 0..8, 0..8).prop_map(|(call, again, claims, strands)| Step::Arrive {
            call, again: again == 0, claims: claims > 0, strands: strands == 0 }),
        10 => (any::<usize>(), 0..6).prop_map(|(answer, lost)| Step::Answer { answer, arrives: lost > 0 }),
        12 => (0..GATEWAYS, 0u64..12).prop_map(|(gateway, tokens)| Step::Spend { gateway, tokens }),
        1 => (1i64..20).prop_map(|requests| Step::TopUp { requests }),
        1 => Just(Step::LoseAll),
        1 => (0usize..2).prop_map(|index| Step::LoseBucket { index }),
        1 => (0..GATEWAYS).prop_map(|gateway| Step::LoseCalls { gateway }),
    ]
}

proptest! {
    // What goes wrong takes several rare steps.
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// No interleaving admits more than the reference does, leaves a gateway with more in hand than
    /// is held, or loses what it should not: in the end the buckets are whole again.
    #[test]
    fn every_interleaving_keeps_the_law(steps in prop::collection::vec(step(), 1..150)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            world.check();
        }
        world.pass(3_600_000);
        world.account.settle(world.now_ms);
        prop_assert_eq!(world.account.held(), Amount::ZERO);
        prop_assert_eq!(world.account.buckets()[0].level, signed(TOKENS));
        let ask = an_ask(u64::MAX, amount(20, 60), amount(20, 60));
        world.account.ask(world.now_ms, ("new", "w"), &ask, true);
        world.claim((60, 60), false);
        let answer = world.account.ask(world.now_ms, ("new", "w"), &ask, true);
        let whole = matches!(answer, Answer::Decided(decided) if decided.granted == ask.need);
        prop_assert!(whole, "a whole bucket");
    }
}
