//! Blocks that come in another order than Postgres has released them in.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::lease::blocks::COMING_MS;

/// Asks for as many requests in one need; what is granted, or nothing where that is undecided.
fn ask(account: &mut Account, now_ms: i64, call: u64, requests: u64) -> Option<u64> {
    let need = amount(0, requests);
    match account.ask(now_ms, ("g", "w"), &an_ask(call, need, need), true) {
        Answer::Decided(decided) => Some(decided.granted.requests.get()),
        Answer::Unfed => None,
        Answer::Claim(wishes) => panic!("{wishes:?} claimed, though nothing is left"),
    }
}

/// Of a period of 60, one replica has claimed 20, another 10, and a third the rest, which comes first
/// and is spent.
fn last_comes_first() -> Account {
    let mut account = Account::new(vec![requests_by_period()], "p0", 0, TTL_MS);
    feed(&mut account, 0, 30, 60);
    assert_eq!(ask(&mut account, 0, 1, 30), Some(30));
    account
}

fn feed(account: &mut Account, now_ms: i64, block: i64, claimed: i64) {
    let left = Quantity::clamped((REQUESTS - claimed).unsigned_abs());
    account.feed(now_ms, 0, block, left, Some(Released { claimed, is_settled: false }));
}

/// Nobody is refused what is on its way, and nobody waits for more than that.
#[test]
fn what_comes_late_is_waited_for() {
    let mut account = last_comes_first();
    assert_eq!(ask(&mut account, 1, 2, 31), Some(0), "30 are coming");
    assert_eq!(ask(&mut account, 1, 3, 1), None);
    feed(&mut account, 2, 10, 30);
    assert_eq!(ask(&mut account, 2, 3, 11), None);
    assert_eq!(ask(&mut account, 2, 3, 10), Some(10));
    feed(&mut account, 3, 20, 20);
    assert_eq!(ask(&mut account, 3, 4, 20), Some(20));
    assert_eq!(ask(&mut account, 3, 5, 1), Some(0), "what the late blocks say of the rest is old");
}

/// A replica that is gone holds nobody up for long.
#[test]
fn what_never_comes_is_given_up() {
    let mut account = last_comes_first();
    assert_eq!(ask(&mut account, COMING_MS - 1, 2, 1), None);
    assert_eq!(ask(&mut account, COMING_MS, 2, 1), Some(0));
}

/// Whoever finds that the last block is old knows that nothing is coming, whatever Redis has lost.
#[test]
fn what_is_settled_is_not_waited_for() {
    let mut account = last_comes_first();
    let settled = Released { claimed: REQUESTS, is_settled: true };
    account.feed(1, 0, 0, Quantity::ZERO, Some(settled));
    assert_eq!(ask(&mut account, 1, 2, 1), Some(0));
}
