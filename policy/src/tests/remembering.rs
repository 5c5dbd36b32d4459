//! A memo says what the policy says.

use proptest::prelude::*;

use super::*;
use crate::Memo;

#[test]
fn only_what_is_read_makes_a_difference() {
    let mut memo = Memo::new(policy("allow := input.path == \"/\"\ncost := input.time.hour"));
    for (tenant, hour, evaluated) in [("a", 1, 1), ("b", 1, 1), ("b", 2, 2), ("a", 1, 2)] {
        let input = Input {
            tenant: tenant.into(),
            path: "/".into(),
            time: Some(Time { hour, weekday: hour }),
            ..request()
        };
        let said = memo.decide(&input).clone().unwrap();
        assert_eq!(
            (said.cost.get(), memo.evaluated()),
            (hour.into(), evaluated),
            "{tenant} {hour}"
        );
    }
}

#[test]
fn it_is_bounded_and_keeps_what_is_asked_for() {
    let mut memo = Memo::new(policy("allow := true\ncost := input.prompt_tokens"));
    let mut ask = |tokens: u64| {
        let input = Input { prompt_tokens: Some(tokens), ..request() };
        let said = memo.decide(&input).clone().unwrap().cost.get();
        (said, memo.evaluated())
    };
    for tokens in 1..20_000 {
        assert_eq!(ask(tokens).0, tokens);
        assert_eq!(ask(0), (0, tokens + 1 - u64::from(tokens == 0)), "{tokens}");
    }
    assert!(memo.held() <= 2_048, "{}", memo.held());
}

#[test]
fn failures_are_remembered_and_long_inputs_are_not() {
    let mut memo = Memo::new(policy("allow := true\ncost := count(input.path) - 5"));
    for _ in 0..3 {
        assert_eq!(memo.decide(&Input::default()), &Err(Failure::Cost));
    }
    assert_eq!(memo.evaluated(), 1);
    let long = Input { path: "/".repeat(2_000).into(), ..request() };
    for _ in 0..3 {
        assert_eq!(memo.decide(&long).clone().unwrap().cost.get(), 1_995);
    }
    assert_eq!((memo.evaluated(), memo.held()), (4, 1));
}

proptest! {
    /// No two inputs are taken for each other.
    #[test]
    fn it_says_what_the_policy_says(inputs in prop::collection::vec(("[ab]{0,3}", "[ab]{0,3}", prop::option::of("[ab]{0,2}"), prop::option::of(0_u64..3)), 1..60)) {
        let policy = policy("allow := input.method != \"ab\"
cost := 100 * count(input.path) + 10 * count(input.model) + input.prompt_tokens
meter := input.headers.m");
        let mut memo = Memo::new(policy.clone());
        for (method, path, model, prompt_tokens) in inputs {
            let headers = [("m".into(), path.clone().into())].into();
            let input = Input {
                method: method.into(), path: path.into(), model: model.map(Into::into), prompt_tokens, headers, ..Input::default()
            };
            prop_assert_eq!(memo.decide(&input), &policy.decide(&input));
        }
    }
}
