//! What is refused, and where the error says it is.

use super::*;
use crate::contract::Field;

#[test]
fn errors_name_line_and_column() {
    let cases = [
        ("allow := tru e", (2, 14)),
        ("allow := true\ncost := 1 +", (3, 12)),
        ("allow := true\ncost := unknown_thing", (3, 9)),
        ("allow := true\n  cost := nothing(3)", (3, 18)),
        ("allow := input.pathh == \"/\"", (2, 10)),
        ("allow := input.headers[input.path] == \"x\"", (2, 10)),
        ("allow := input == {}", (2, 10)),
        ("allow := data.users.acme", (2, 10)),
        ("allow := http.send({}).status_code == 200", (2, 19)),
        ("allow := true\ncost := rand.intn(\"x\", 5)", (3, 18)),
        ("allow := true\ncost := 1e99", (3, 9)),
        ("allow := true\ncosts := 3", (3, 1)),
        ("allow := \"never ends", (2, 10)),
    ];
    for (rules, place) in cases {
        let error = refused(rules);
        assert_eq!((error.line, error.column), place, "{rules}\n{error}");
        assert!(!error.message.contains("policy.rego"), "{error}");
    }
}

#[test]
fn errors_say_what_to_do() {
    for (rules, told) in [
        ("allow := input.headers[\"X-Tier\"] == \"a\"", "lower case: `input.headers[\"x-tier\"]`"),
        ("allow if some key, value in input.headers", "by its name"),
        (
            "allow := true\nhelp := 3",
            "nothing reads the rule `help`; the outputs are allow, cost, meter, reason",
        ),
        ("allow := rand.intn(\"x\", 3) == 1", "can't be used in a rating policy; these can: abs, "),
        ("cost := 1", "has no rule `allow`"),
        ("allow := regex.match(\".*\", input.path)", "these there are: abs, "),
        ("allow := time.now_ns() > 0", "there is no function `time.now_ns`"),
        ("allow := input.time.minute == 3", "`input.time.hour` and `input.time.weekday`"),
    ] {
        let error = refused(rules);
        assert!(error.message.contains(told), "{error}");
    }
    let other = Policy::compile("package other\nallow := true", Place::Edge).unwrap_err();
    assert!(other.message.contains("`package weir.rating`"), "{other}");
    let long = format!("package weir.rating\nallow := true\n# {}", "x".repeat(40_000));
    let long = Policy::compile(&long, Place::Edge).unwrap_err();
    assert!(long.message.contains("at most 32768"), "{long}");
}

#[test]
fn what_a_policy_reads_is_known() {
    let reads = |rules: &str| policy(rules).reads().to_vec();
    assert_eq!(reads("allow := true"), []);
    assert_eq!(
        reads(
            "# input.path and \"input.model\nallow := concat_free\nconcat_free := \"input.plan\" != `input.plan`"
        ),
        []
    );
    assert_eq!(
        reads(
            "import input.model as m\nallow if { m == \"a\"; input[\"path\"] == `/`; input.headers.host }"
        ),
        [Field::Path, Field::Model, Field::Header("host".to_owned())]
    );
}

#[test]
fn buckets_are_for_the_control_plane() {
    let rules = "package weir.rating\nallow if data.buckets[input.tenant].tokens > 0\ncost := 1";
    let error = Policy::compile(rules, Place::Edge).unwrap_err();
    assert_eq!((error.line, error.column), (2, 10));
    assert!(error.message.contains("the cost is taken only where there is enough"), "{error}");
    let policy = Policy::compile(rules, Place::Everywhere).unwrap();
    assert!(policy.reads_buckets());
    let left = |tokens| crate::Buckets {
        tokens: Some(weir_domain::quantity::Quantity::clamped(tokens)),
        requests: None,
    };
    assert!(policy.decide_knowing(&request(), Some(&left(1))).unwrap().allow);
    assert!(!policy.decide_knowing(&request(), Some(&left(0))).unwrap().allow);
    assert!(!policy.decide(&request()).unwrap().allow);
}
