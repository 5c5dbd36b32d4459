//! The JSON Schema is what the types are.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;

fn schema() -> Value {
    serde_json::from_str(include_str!("../../contract.schema.json")).unwrap()
}

fn names(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap().keys().cloned().collect()
}

/// Whether `value` is what `schema` says, as far as this schema goes.
fn holds(schema: &Value, value: &Value) -> bool {
    let known = match schema["type"].as_str().unwrap() {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => {
            let least = schema["minimum"].as_u64().unwrap();
            let most = schema["maximum"].as_u64().unwrap();
            value.as_u64().is_some_and(|number| (least..=most).contains(&number))
        }
        "object" => value.is_object(),
        other => panic!("{other}"),
    };
    let Some(fields) = value.as_object().filter(|_| known) else { return known };
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    required.iter().all(|name| fields.contains_key(name.as_str().unwrap()))
        && fields.iter().all(|(name, value)| {
            let of = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
            if of.is_object() { holds(of, value) } else { *of == json!(true) }
        })
}

#[test]
fn the_input_is_as_described() {
    let schema = &schema()["$defs"]["input"];
    let whole = serde_json::to_value(request()).unwrap();
    assert_eq!(names(&schema["properties"]), names(&whole));
    assert_eq!(names(&schema["properties"]["time"]["properties"]), names(&whole["time"]));
    assert!(holds(schema, &whole), "{whole}");
    let least = serde_json::to_value(Input::default()).unwrap();
    assert!(holds(schema, &least), "{least}");
    assert_eq!(serde_json::from_value::<Input<'_>>(whole.clone()).unwrap(), request());
    for (path, wrong) in [
        ("/path", json!(1)),
        ("/prompt_tokens", json!("1")),
        ("/time/hour", json!(-1)),
        ("/headers/host", json!([])),
    ] {
        let mut input = whole.clone();
        *input.pointer_mut(path).unwrap() = wrong;
        assert!(
            !holds(schema, &input) && serde_json::from_value::<Input<'_>>(input).is_err(),
            "{path}"
        );
    }
    let mut input = whole;
    input["tennant"] = json!("acme");
    assert!(!holds(schema, &input) && serde_json::from_value::<Input<'_>>(input).is_err());
}

#[test]
fn the_decision_is_as_described() {
    let schema = &schema()["$defs"]["decision"];
    for rules in [
        "allow := false\nreason := \"no\"",
        "allow := true\ncost := 9007199254740991\nmeter := \"llm\"",
    ] {
        let said = serde_json::to_value(decided(rules, &request()).unwrap()).unwrap();
        assert!(holds(schema, &said), "{said}");
    }
    assert_eq!(names(&schema["properties"]), crate::contract::OUTPUTS.map(str::to_owned).into());
}

#[test]
fn the_buckets_are_as_described() {
    let schema = &schema()["$defs"]["buckets"];
    let left = Some(weir_domain::quantity::Quantity::MAX);
    let buckets = crate::Buckets { tokens: left, requests: left };
    let buckets = serde_json::to_value(buckets).unwrap();
    assert_eq!(names(&schema["additionalProperties"]["properties"]), names(&buckets));
    assert!(holds(schema, &json!({ "acme": buckets, "beta": {} })));
}
