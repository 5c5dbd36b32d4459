mod budget;
mod compiling;
mod deciding;
mod examples;
mod remembering;
mod schema;

use std::borrow::Cow;

use crate::{CompileError, Decision, Failure, Input, Place, Policy, Time};

/// A policy with these rules, for gateways.
fn policy(rules: &str) -> Policy {
    compiled(rules).unwrap_or_else(|error| panic!("{error}\n{rules}"))
}

fn compiled(rules: &str) -> Result<Policy, CompileError> {
    Policy::compile(&format!("package weir.rating\n{rules}"), Place::Edge)
}

fn refused(rules: &str) -> CompileError {
    match compiled(rules) {
        Ok(_) => panic!("it was accepted:\n{rules}"),
        Err(error) => error,
    }
}

fn decided(rules: &str, input: &Input<'_>) -> Result<Decision, Failure> {
    policy(rules).decide(input)
}

/// A request with all that a policy can read.
fn request() -> Input<'static> {
    let some = |text: &'static str| Some(Cow::Borrowed(text));
    Input {
        tenant: "acme".into(),
        plan: some("gold"),
        method: "POST".into(),
        path: "/v1/chat/completions".into(),
        model: some("gpt-4.1"),
        prompt_tokens: Some(1_500),
        max_output_tokens: Some(500),
        headers: [("x-tier".into(), "one".into()), ("host".into(), "api".into())].into(),
        time: Some(Time { hour: 10, weekday: 3 }),
    }
}
