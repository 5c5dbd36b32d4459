//! What the rules mean.

use weir_domain::quantity::Quantity;

use super::*;

fn cost(rules: &str) -> Result<u64, Failure> {
    decided(&format!("allow := true\n{rules}"), &request()).map(|decision| decision.cost.get())
}

#[test]
fn a_policy_says_who_may_and_what_it_costs() {
    let rules = "allow if input.plan == \"gold\"\ncost := 3\nmeter := \"llm\"";
    let decision = decided(rules, &request()).unwrap();
    assert_eq!((decision.allow, decision.cost.get(), decision.meter.as_str()), (true, 3, "llm"));
    let decision = decided(rules, &Input { plan: None, ..request() }).unwrap();
    assert_eq!((decision.allow, decision.cost), (false, Quantity::ZERO));
    let decision = decided("allow := true", &request()).unwrap();
    assert_eq!((decision.cost.get(), decision.meter.as_str()), (1, "default"));
}

#[test]
fn each_part_of_the_input_is_there() {
    for condition in [
        "input.tenant == \"acme\"",
        "input.plan == \"gold\"",
        "input.method == \"POST\"",
        "input.path == \"/v1/chat/completions\"",
        "input.model == \"gpt-4.1\"",
        "input.prompt_tokens == 1500",
        "input.max_output_tokens == 500",
        "input.headers[\"x-tier\"] == \"one\"",
        "input.headers.host == \"api\"",
        "input.time.hour == 10",
        "input.time.weekday == 3",
        "data.weir.rating.allow_path\nallow_path if split(input.path, \"/\")[1] == \"v1\"",
    ] {
        let rules = format!("allow if {condition}");
        assert!(decided(&rules, &request()).unwrap().allow, "{condition}");
        assert!(!decided(&rules, &Input::default()).unwrap().allow, "{condition}");
    }
}

/// Nothing that is wrong becomes a cost silently.
#[test]
fn what_can_not_be_used_is_a_failure() {
    assert_eq!(cost("cost := 9007199254740991"), Ok(Quantity::MAX.get()));
    assert_eq!(cost("cost := 0"), Ok(0));
    assert_eq!(cost("cost := 5 / 2 * 2"), Ok(5));
    for wrong in ["-1", "0.5", "9007199254740992", "\"1\"", "true", "null", "[1]", "{}"] {
        assert_eq!(cost(&format!("cost := {wrong}")), Err(Failure::Cost), "{wrong}");
    }
    let undefined = Err(Failure::Undefined { rule: "cost" });
    assert_eq!(cost("cost := 1 if input.plan == \"none\""), undefined);
    assert_eq!(cost("cost := input.prompt_tokens\ncost := 5 if input.model"), undefined);
    assert_eq!(cost("cost := 1 / (input.prompt_tokens - 1500)"), undefined);
    for (rules, rule) in [
        ("allow := 1", "allow"),
        ("allow := true\nmeter := 3", "meter"),
        ("allow := true\nreason := {}", "reason"),
    ] {
        let said = decided(rules, &request());
        assert!(
            matches!(said, Err(Failure::Type { rule: r, .. }) if r == rule),
            "{rules}: {said:?}"
        );
    }
    let said = decided("allow := true\nmeter := \"a b\"", &request());
    assert!(matches!(said, Err(Failure::Meter(_))), "{said:?}");
}

#[test]
fn a_reason_is_not_longer_than_it_may_be() {
    let said = decided(
        "allow := false\nreason := input.path",
        &Input { path: "é".repeat(2_000).into(), ..request() },
    );
    assert_eq!(said.unwrap().reason.unwrap(), "é".repeat(200));
}

/// What a step takes grows with the length of the texts in it.
#[test]
fn a_text_that_is_too_long_is_a_failure_where_it_is_read() {
    let long = Input { path: "a".repeat(4_097).into(), ..request() };
    assert!(decided("allow := input.method == \"POST\"", &long).is_ok());
    let said = decided("allow if startswith(input.path, \"a\")", &long).unwrap_err();
    assert_eq!(said.to_string(), "`input.path` has more than 4096 bytes");
}

#[test]
fn time_is_counted_from_a_thursday() {
    assert_eq!(Time::of_minute(0), Time { hour: 0, weekday: 4 });
    assert_eq!(Time::of_minute(-1), Time { hour: 23, weekday: 3 });
    // 2026-01-01T08:30Z, a Thursday; and the Sunday after it.
    let minute = 1_767_256_200 / 60;
    assert_eq!(Time::of_minute(minute), Time { hour: 8, weekday: 4 });
    assert_eq!(Time::of_minute(minute + 3 * 24 * 60), Time { hour: 8, weekday: 7 });
}
