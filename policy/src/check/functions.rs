//! The functions that policies may call.

/// What policies may call, by what they give. None of them is told the time or a random number, or
/// else what a policy said could not be kept; and none makes much of a little.
pub(super) const FUNCTIONS: [(Gives, &[&str]); 4] = [
    (
        Gives::Plain,
        &[
            "abs",
            "ceil",
            "contains",
            "count",
            "endswith",
            "floor",
            "format_int",
            "indexof",
            "is_array",
            "is_boolean",
            "is_null",
            "is_number",
            "is_object",
            "is_set",
            "is_string",
            "lower",
            "object.subset",
            "round",
            "startswith",
            "strings.any_prefix_match",
            "strings.any_suffix_match",
            "strings.count",
            "substring",
            "sum",
            "trim",
            "trim_left",
            "trim_prefix",
            "trim_right",
            "trim_space",
            "trim_suffix",
            "type_name",
            "upper",
        ],
    ),
    (Gives::Parts, &["object.keys", "split"]),
    (Gives::Inside, &["max", "min"]),
    (
        Gives::Whole,
        &[
            "array.reverse",
            "array.slice",
            "intersection",
            "object.filter",
            "object.get",
            "object.remove",
            "sort",
            "union",
            "__builtin_sets.union",
            "__builtin_sets.intersection",
        ],
    ),
];

/// What a function makes of its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gives {
    /// Something that is not nested.
    Plain,
    /// A list of what is not nested.
    Parts,
    /// A part of an argument.
    Inside,
    /// Something as deep as its arguments.
    Whole,
}

/// All functions that policies may call, for people.
pub(crate) fn names() -> String {
    let mut names: Vec<_> = FUNCTIONS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
    names.retain(|name| !name.starts_with("__"));
    names.sort_unstable();
    names.join(", ")
}
