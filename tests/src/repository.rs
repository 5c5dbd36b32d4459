//! The files of the repository and the `weir` binary, for tests that hold one against the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::Value;
use xtask::workspace;

/// Runs `weir` with exactly these `WEIR_*`; all that it says.
pub(crate) fn weir(arguments: &[&str], variables: &BTreeMap<String, String>) -> Result<String> {
    let built = std::env::var_os(xtask::stack::CONTROL_PLANE_VARIABLE);
    let program = built.map_or_else(xtask::build::control_plane, |path| Ok(path.into()))?;
    let mut command = Command::new(program);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WEIR_")) {
        command.env_remove(name);
    }
    let output = command.args(arguments).envs(variables).output()?;
    Ok(String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?)
}

/// All names `WEIR_…` in a text.
pub(crate) fn variables_in(text: &str) -> BTreeSet<String> {
    text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_')
        .filter(|word| word.strip_prefix("WEIR_").is_some_and(|rest| !rest.is_empty()))
        .map(str::to_owned)
        .collect()
}

pub(crate) fn read(path: &str) -> Result<String> {
    fs::read_to_string(workspace().join(path)).with_context(|| path.to_owned())
}

pub(crate) fn yaml(path: &str) -> Result<Value> {
    serde_saphyr::from_str(&read(path)?).with_context(|| path.to_owned())
}

pub(crate) fn manifests(path: &str) -> Result<Vec<Value>> {
    serde_saphyr::from_multiple(&read(path)?).with_context(|| path.to_owned())
}

pub(crate) fn text(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("{value} is not text"))
}

pub(crate) fn fields(value: &Value) -> Result<&serde_json::Map<String, Value>> {
    value.as_object().with_context(|| format!("{value} has no fields"))
}

pub(crate) fn text_fields(value: &Value) -> Result<BTreeMap<String, String>> {
    fields(value)?.iter().map(|(name, value)| Ok((name.clone(), text(value)?.to_owned()))).collect()
}
