//! Policies that want to run for ever, or to use up the memory. They are refused, or they fail within
//! the budget.

use std::{thread, time::Instant};

use proptest::prelude::*;

use super::*;

/// What a worker in Envoy has.
const STACK: usize = 1 << 20;

/// Compiles and decides on a small stack; how often the source was accepted, and what was said.
fn survived(rules: String) -> Result<Result<Decision, Failure>, CompileError> {
    let started = Instant::now();
    let work = move || Ok(compiled(&rules)?.decide(&request()));
    let said = thread::Builder::new().stack_size(STACK).spawn(work).unwrap().join().unwrap();
    // Far more than the budget, since tests run on busy machines and without optimization.
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    said
}

#[test]
fn recursion_is_refused() {
    for rules in [
        "allow if allow",
        "allow if a\na if b\nb if a",
        "allow := f(3)\nf(x) := f(x - 1)",
        "allow := f(3)\nf(x) := g(x)\ng(x) := f(x)",
        "allow if data.weir.rating[input.path]",
        "allow if data.weir.rating.allow",
    ] {
        let error = survived(rules.to_owned()).expect_err(rules);
        assert!(error.line >= 1, "{error}");
    }
}

#[test]
fn loops_end_with_the_budget() {
    let numbers = (0..60).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let bomb = format!("n := [{numbers}]\nallow := count([1 | n[_]; n[_]; n[_]; n[_]; n[_]]) > 0");
    assert_eq!(survived(bomb), Ok(Err(Failure::Steps)));
    let sets = format!(
        "n := {{{numbers}}}\nallow if {{ some a in n; some b in n; some c in n; some d in n; a + b + c + d == 1000 }}"
    );
    assert_eq!(survived(sets), Ok(Err(Failure::Steps)));
}

#[test]
fn numbers_do_not_grow_for_ever() {
    let mut squares = "f0(x) := x * x\n".to_owned();
    for n in 1..15 {
        squares.push_str(&format!("f{n}(x) := f{0}(f{0}(x))\n", n - 1));
    }
    let error =
        survived(format!("{squares}allow := f14(input.prompt_tokens) > 3")).expect_err("refused");
    assert!(error.message.contains("numbers are multiplied"), "{error}");
    assert_eq!(
        policy("allow := true\nf(x) := x * x * x * x\ncost := f(f(2)) % 1000")
            .decide(&request())
            .unwrap()
            .cost
            .get(),
        536
    );
    for huge in ["1e999999999", "10000000000000000000000000000", "1E5"] {
        assert!(survived(format!("allow := {huge} > 1")).is_err(), "{huge}");
    }
}

/// Values that are small to build and endless to compare.
#[test]
fn values_are_nested_a_few_times_at_most() {
    let mut rules = "x0 := [input.path, input.path]\ny0 := [input.path, input.path]\n".to_owned();
    for n in 1..15 {
        rules.push_str(&format!("x{n} := [x{0}, x{0}]\ny{n} := [y{0}, y{0}]\n", n - 1));
    }
    let error = survived(format!("{rules}allow if x14 == y14")).expect_err("refused");
    assert!(error.message.contains("nested too deep"), "{error}");
    let error = survived(
        "g(x) := [x, x, x, x]\nallow if { a := g(g(g(g(input.path)))); b := g(g(g(g(input.path)))); a == b }".to_owned(),
    )
    .expect_err("refused");
    assert!(error.message.contains("nested too deep"), "{error}");
    let error = survived("a := [[x | some y in [1, 2]; x := [y]] | some z in [1, 2]]\nallow if a == [[z] | some z in a]".to_owned()).expect_err("refused");
    assert!(error.message.contains("nested too deep"), "{error}");
}

/// What is deep or long in the text needs no deep stack.
#[test]
fn deep_texts_are_refused() {
    let chain = |rule: &str| {
        (1..1_000)
            .map(|n| rule.replace("$0", &(n - 1).to_string()).replace("$1", &n.to_string()))
            .collect::<String>()
    };
    for rules in [
        format!("allow := {}1{}", "[".repeat(5_000), "]".repeat(5_000)),
        format!("allow := {}1{} > 0", "(\n".repeat(5_000), ")\n".repeat(5_000)),
        format!("allow := 0 < 1{}", " +\n1".repeat(8_000)),
        format!("allow := 0 < 1{}", "\n* 1".repeat(8_000)),
        format!("allow if {{ input.path{} }}", "[0]\n".repeat(5_000)),
        format!("allow := {}true", "not\n".repeat(5_000)),
        format!("r0 := 1\n{}allow := r999 == 1", chain("r$1 := r$0\n")),
        format!("f0(x) := x\n{}allow := f999(1) == 1", chain("f$1(x) := f$0(x)\n")),
        format!("allow := false if {{ false }}{}", " else := false if {\nfalse }".repeat(1_000)),
        format!("allow := {}{}", "{1: ".repeat(500), "}".repeat(500)),
        format!("allow := {}\n", "- ".repeat(500)),
        format!("x := {}1{}\nallow if x", "[".repeat(40), "]".repeat(40)),
        format!("x := {}1{}\nallow if x", "{".repeat(40), "}".repeat(40)),
        format!("x := {}1{}\nallow if x", "{\"a\": ".repeat(40), "}".repeat(40)),
        format!("x := {}{}1{}\nallow if x", "[".repeat(10), "1, ".repeat(1_000), "]".repeat(10)),
    ] {
        let said = survived(rules.clone());
        let head: String = rules.chars().take(60).collect();
        assert!(said.is_err(), "{head}: {said:?}");
    }
}

/// Long texts that are all right.
#[test]
fn long_policies_work() {
    let prices: Vec<_> = (0..120).map(|n| format!("  \"model-{n}\": {n}")).collect();
    let table = format!(
        "allow := true\nprices := {{\n{}\n}}\ndefault cost := 7\ncost := prices[input.model]",
        prices.join(",\n")
    );
    assert_eq!(survived(table).unwrap().unwrap().cost.get(), 7);
    let lines: String = (0..500).map(|n| format!("allow if input.path == \"/{n}\"\n")).collect();
    assert!(!survived(lines).unwrap().unwrap().allow);
    let body: String = (0..60).map(|n| format!("  input.path != \"/{n}\"\n")).collect();
    assert!(survived(format!("allow if {{\n{body}}}")).unwrap().unwrap().allow);
}

/// Words of the language, thrown together.
fn noise() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "allow",
        "cost",
        "meter",
        ":=",
        "==",
        "=",
        "if",
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "|",
        "&",
        "-",
        "+",
        "*",
        "/",
        "%",
        ",",
        ";",
        ":",
        "\n",
        "\n",
        "input.path",
        "input.model",
        "input",
        "input.prompt_tokens",
        "input.headers[\"a\"]",
        "data.weir.rating.x",
        "some",
        "every",
        "in",
        "x",
        "y",
        "x",
        "f(",
        "contains",
        "default",
        "else",
        "not",
        "with",
        "import",
        "as",
        "1",
        "0.5",
        "-1",
        "\"a\"",
        "`b",
        "\"",
        "\\",
        "true",
        "null",
        "count(",
        "sum([",
        "max({",
        "split(",
        "_",
        "#",
        "é",
        "\u{0}",
    ]);
    prop::collection::vec(word, 0..60).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// No text ends the process, whatever it is.
    #[test]
    fn no_text_panics(text in noise()) {
        for rules in [text.clone(), format!("allow := true\n{text}"), format!("x := 1\nallow if {{ x\n {text} }}")] {
            if let Ok(policy) = compiled(&rules) {
                let _ = policy.decide(&request());
                let _ = policy.decide(&Input::default());
            }
        }
    }

    #[test]
    fn no_bytes_panic(text in ".{0,300}") {
        let _ = compiled(&text);
    }
}

/// What is as deep as it may be needs no deep stack either, whatever the brackets are.
#[test]
fn depth_at_the_bound_survives() {
    for (open, close) in [
        ("(", ")"),
        ("abs(", ")"),
        ("-(", ")"),
        ("1 + (", ")"),
        ("[", "]"),
        ("{", "}"),
        ("[x | x := ", "]"),
        ("{x | some x in ", "}"),
        ("{\"a\": ", "}"),
        ("count([", "])"),
        ("max({", "})"),
        ("(", " + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1)"),
        ("abs(", " - 1)[0][0][0][0][0][0][0][0][0]"),
        ("{x | x := (", "); x > 1; not x in [1, 2]}"),
    ] {
        for depth in [4, 8, 12, 14, 15, 16, 24, 32, 64, 127, 128] {
            let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            for rules in [
                format!("allow := true\ncost := {deep}"),
                format!("allow if {{ x := {deep}; x }}"),
                format!("allow if not {deep}"),
            ] {
                let _ = survived(rules);
            }
        }
    }
}
