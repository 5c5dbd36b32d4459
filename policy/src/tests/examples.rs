//! The examples in `envoy/policies`.

use super::*;

fn example(source: &str) -> impl Fn(Input<'_>) -> (bool, u64, String) {
    let policy = Policy::compile(source, Place::Edge).unwrap();
    move |input| {
        let said = policy.decide(&input).unwrap();
        (said.allow, said.cost.get(), said.meter.to_string())
    }
}

#[test]
fn token_bucket() {
    let said = example(include_str!("../../../envoy/policies/token_bucket.rego"));
    assert_eq!(said(request()), (true, 1, "default".to_owned()));
}

#[test]
fn cost_by_model() {
    let said = example(include_str!("../../../envoy/policies/cost_by_model.rego"));
    assert_eq!(said(request()), (true, 20, "llm".to_owned()));
    let mini = Input { model: Some("gpt-4.1-mini".into()), ..request() };
    assert_eq!(said(mini), (true, 4, "llm".to_owned()));
    let stranger = Input { model: Some("new".into()), ..request() };
    assert_eq!(said(stranger), (true, 20, "llm".to_owned()));
    assert_eq!(said(Input { model: None, ..request() }), (true, 20, "requests".to_owned()));
}

#[test]
fn cost_by_prompt() {
    let said = example(include_str!("../../../envoy/policies/cost_by_prompt.rego"));
    for (tokens, cost) in
        [(None, 1), (Some(0), 1), (Some(1_000), 1), (Some(1_001), 2), (Some(250_000), 250)]
    {
        assert_eq!(said(Input { prompt_tokens: tokens, ..request() }).1, cost, "{tokens:?}");
    }
}

#[test]
fn deny_by_path_and_hour() {
    let said = example(include_str!("../../../envoy/policies/deny_by_path_and_hour.rego"));
    let at = |path: &'static str, hour, weekday| {
        said(Input { path: path.into(), time: Some(Time { hour, weekday }), ..request() }).0
    };
    assert!(at("/admin/users", 7, 1));
    assert!(!at("/admin/users", 6, 1));
    assert!(!at("/admin/users", 19, 1));
    assert!(!at("/admin/users", 10, 6));
    assert!(at("/export/all", 8, 6));
    assert!(!at("/export/all", 9, 6));
    assert!(at("/", 3, 7));
    // A time that is not known is no working hour.
    assert!(!said(Input { path: "/admin/".into(), time: None, ..request() }).0);
}

#[test]
fn free_tier() {
    let said = example(include_str!("../../../envoy/policies/free_tier.rego"));
    let free = |method: &'static str, prompt_tokens| Input {
        plan: Some("free".into()),
        method: method.into(),
        prompt_tokens: Some(prompt_tokens),
        ..request()
    };
    assert_eq!(said(free("GET", 0)), (true, 0, "default".to_owned()));
    assert_eq!(said(free("POST", 8_000)), (true, 1, "default".to_owned()));
    assert!(!said(free("POST", 8_001)).0);
    assert!(said(Input { prompt_tokens: Some(8_001), ..request() }).0);
}
