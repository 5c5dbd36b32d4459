//! Large and small needs at one continuous bucket.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

const TTL_MS: i64 = 50;

/// Two gateways that ask every ms, one for small needs and one for a large one, and how often each is
/// granted in ten seconds. The large one spares itself the calls until it is told to come back.
fn contend(small: u64, large: u64, pause_ms: i64) -> (u64, u64, i64) {
    let mut account = Account::new(vec![tokens_by_rate()], "p", 0, TTL_MS);
    let (mut counts, mut longest_ms, mut since_ms, mut stamps) =
        ((0, 0), 0, 0, [const { (String::new(), Amount::ZERO) }; 2]);
    for now_ms in 0..10_000 {
        for (which, need) in [(0, small), (1, large)] {
            if which == 1 && now_ms % pause_ms > 0 {
                continue;
            }
            let call = u64::try_from(now_ms).unwrap() + 1;
            let mut ask = an_ask(call, amount(need, 1), amount(need, 1));
            (ask.stamp, ask.spent) = stamps[which].clone();
            let name = which.to_string();
            let Answer::Decided(decided) = account.ask(now_ms, (&name, "w"), &ask, true) else {
                panic!()
            };
            let granted = u64::from(!decided.granted.is_zero());
            stamps[which] = (decided.stamp, decided.granted);
            match which {
                0 => counts.0 += granted,
                _ => {
                    counts.1 += granted;
                    longest_ms = longest_ms.max(now_ms - since_ms);
                    since_ms = if granted > 0 { now_ms } else { since_ms };
                }
            }
        }
    }
    (counts.0, counts.1, longest_ms)
}

/// The bucket refills by 150 a second. Ten of them are there within 67 ms, and then others have as
/// long before the next ten are spared.
#[test]
fn neither_small_nor_large_needs_starve() {
    let (small, large, longest_ms) = contend(1, 10, 40);
    assert!(large >= 40, "{large} large ones");
    assert!(small >= 400, "{small} small ones");
    assert!(longest_ms <= 300, "{longest_ms} ms without a large one");
    assert!(small + 10 * large >= 1_480, "{small} and {large} are less than the rate gives");
}

/// Needs of the same size are never held back.
#[test]
fn equal_needs_lose_nothing() {
    let (some, others, _) = contend(4, 4, 1);
    assert!(4 * (some + others) >= 1_490, "{some} and {others}");
}

/// One that is not asked for again is spared for in vain, and not for ever.
#[test]
fn a_need_that_is_not_asked_for_again_is_forgotten() {
    let (small, large, _) = contend(1, 20, 100_000);
    assert_eq!(large, 0);
    assert!(small >= 1_490, "{small}");
    let mut account = Account::new(vec![tokens_by_rate()], "p", 0, TTL_MS);
    let mut ask = |now_ms: i64, name: &str, need: u64| {
        let call = u64::try_from(now_ms).unwrap() + 1;
        let ask = an_ask(call, amount(need, 1), amount(need, 1));
        let answer = account.ask(now_ms, (name, "w"), &ask, true);
        matches!(answer, Answer::Decided(decided) if !decided.granted.is_zero())
    };
    assert!(ask(0, "a", 20));
    assert!(!ask(60, "b", 20), "it needs 20, and 9 are there");
    assert!(!ask(61, "a", 1), "those are spared");
    let met = (62..400).find(|now_ms| ask(*now_ms, "a", 1));
    assert!(met.is_some_and(|now_ms| now_ms <= 60 + 134 + TTL_MS), "{met:?}");
}
