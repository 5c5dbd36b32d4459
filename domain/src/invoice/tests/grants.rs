//! Credits, computed by hand, and what holds for all of them.

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::super::{grants::*, *};

/// January 2026 in UTC, with one line.
fn invoice(minor: i64) -> Invoice {
    let quarter = |time: &str| Quarter::containing(time.parse().unwrap());
    let period =
        BillingPeriod::new(quarter("2026-01-01T00:00:00Z"), quarter("2026-02-01T00:00:00Z"))
            .unwrap();
    let total = usd(minor);
    let lines = vec![Line { subject: Subject::Adjustment { period }, amount: total }];
    Invoice { period, lines, total, unpriced: Vec::new() }
}

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::new("USD").unwrap())
}

fn grant(id: i64, kind: GrantKind, expires: Option<&str>, left: i64) -> Grant {
    let expires_at = expires.map(|time| time.parse().unwrap());
    Grant { id, kind, description: format!("Credit {id}"), expires_at, left: usd(left) }
}

/// What is taken of which grant, and what is left to be paid.
fn paid(total: i64, grants: Vec<Grant>) -> (Vec<(i64, i64)>, i64) {
    let invoice = invoice(total).pay_from(grants).unwrap();
    let used = invoice.paid_from().map(|(grant, used)| (grant, used.minor())).collect();
    (used, invoice.total.minor())
}

#[test]
fn what_was_given_comes_first_then_what_expires_first_then_what_is_older() {
    use GrantKind::{Prepaid, Promotional};
    let grants = vec![
        grant(1, Prepaid, None, 400),
        grant(2, Prepaid, Some("2026-12-31T00:00:00Z"), 100),
        grant(3, Promotional, None, 50),
        grant(4, Promotional, Some("2026-03-01T00:00:00Z"), 30),
        grant(5, Promotional, Some("2026-03-01T00:00:00Z"), 20),
        grant(6, Prepaid, None, 400),
    ];
    let order = vec![(4, 30), (5, 20), (3, 50), (2, 100), (1, 400), (6, 100)];
    assert_eq!(paid(700, grants.clone()), (order, 0));
    assert_eq!(paid(40, grants.clone()), (vec![(4, 30), (5, 10)], 0));
    assert_eq!(paid(0, grants.clone()), (vec![], 0));
    assert_eq!(paid(-5, grants.clone()), (vec![], -5));
    assert_eq!(paid(1_001, grants).1, 1);
}

#[test]
fn a_grant_counts_for_periods_that_end_by_its_expiry() {
    let until = |time| vec![grant(1, GrantKind::Promotional, Some(time), 10)];
    assert_eq!(paid(10, until("2026-02-01T00:00:00Z")), (vec![(1, 10)], 0));
    assert_eq!(paid(10, until("2026-01-31T23:59:59Z")), (vec![], 10));
}

#[test]
fn a_grant_in_another_currency_is_an_error() {
    let mut grant = grant(1, GrantKind::Prepaid, None, 10);
    grant.left = Money::new(10, Currency::new("JPY").unwrap());
    let error = invoice(10).pay_from(vec![grant]).unwrap_err().to_string();
    assert_eq!(error, "\"Credit 1\": amounts in USD and JPY can't be added");
}

#[test]
fn what_is_granted_is_more_than_nothing_in_whole_minor_units() {
    let of = |text: &str, code| granted(text.parse().unwrap(), Currency::new(code).unwrap());
    assert_eq!(of("12.50", "USD"), Ok(usd(1_250)));
    assert_eq!(of("12.500", "KWD").unwrap().minor(), 12_500);
    assert_eq!(of("12", "JPY").unwrap().minor(), 12);
    assert_eq!(of("0.00", "USD"), Err(GrantError::Nothing));
    for (amount, code) in [("-1", "USD"), ("0.001", "USD"), ("0.5", "JPY"), ("1e20", "USD")] {
        let amount = rust_decimal::Decimal::from_scientific(amount)
            .unwrap_or_else(|_| amount.parse().unwrap());
        assert!(granted(amount, Currency::new(code).unwrap()).is_err(), "{amount} {code}");
    }
}

proptest! {
    #[test]
    fn credits_pay_all_they_can_and_never_more_than_is_left(
        total in -1_000_i64..10_000,
        left in prop::collection::vec((1_i64..3_000, any::<bool>(), any::<bool>()), 0..6),
    ) {
        let grants: Vec<Grant> = (1..).zip(&left).map(|(id, (left, is_prepaid, expires))| {
            let kind = if *is_prepaid { GrantKind::Prepaid } else { GrantKind::Promotional };
            grant(id, kind, expires.then_some("2026-06-01T00:00:00Z"), *left)
        }).collect();
        let invoice = invoice(total).pay_from(grants.clone()).unwrap();
        let lines: i64 = invoice.lines.iter().map(|line| line.amount.minor()).sum();
        prop_assert_eq!(lines, invoice.total.minor());
        let all: i64 = left.iter().map(|(left, ..)| left).sum();
        let paid = total.clamp(0, all);
        prop_assert_eq!(invoice.total.minor(), total - paid);
        for (id, used) in invoice.paid_from() {
            let grant = grants.iter().find(|grant| grant.id == id).unwrap();
            prop_assert!((1..=grant.left.minor()).contains(&used.minor()));
        }
        prop_assert_eq!(invoice.paid_from().map(|(_, used)| used.minor()).sum::<i64>(), paid);
    }
}
