//! README.md is the reference, so it names everything there is, and nothing that is not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use weir_filter::config::Config;

use crate::{
    harness::Fleet,
    repository::{read, variables_in, weir},
};

const README: &str = "README.md";

/// Each field of the plugin's configuration, by its path.
#[test]
fn every_plugin_field_is_explained() -> Result<()> {
    let readme = read(README)?;
    let control_plane = |field: &str| format!(r#"{{"control_plane":{{"{field}":0}}}}"#);
    let probes = [
        ("", r#"{"?":0}"#.to_owned()),
        ("control_plane.", control_plane("?")),
        ("identity.", r#"{"identity":{"kind":"header","?":0}}"#.to_owned()),
        ("exempt[].", r#"{"exempt":[{"?":0}]}"#.to_owned()),
        ("outage.", r#"{"outage":{"?":0}}"#.to_owned()),
        // The values of these fields.
        ("", r#"{"identity":{"kind":"?"}}"#.to_owned()),
        ("", r#"{"rate_limit_fields":"?"}"#.to_owned()),
        ("", r#"{"outage":{"then":"?"}}"#.to_owned()),
    ];
    for (path, json) in probes {
        let names = expected_by(&json)?;
        assert!(!names.is_empty(), "{json}");
        for name in names {
            // Of these the fields inside are named.
            if ["control_plane", "identity", "exempt", "outage"].contains(&name.as_str()) {
                continue;
            }
            let quoted = format!("`{path}{name}`");
            assert!(readme.contains(&quoted), "{README} does not explain {quoted}");
        }
    }
    Ok(())
}

/// What the filter says that it expects where `json` has a `?`.
fn expected_by(json: &str) -> Result<Vec<String>> {
    let error = Config::parse(Some(json.as_bytes())).err().context("it was accepted")?.to_string();
    let (_, expected) = error.split_once("expected").with_context(|| error.clone())?;
    Ok(expected.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

/// Each variable that `weir` knows, and no other.
#[test]
fn every_variable_is_explained() -> Result<()> {
    let help = variables_in(&weir(&["serve", "--help"], &BTreeMap::new())?);
    let readme = variables_in(&read(README)?);
    assert_eq!(readme, help);
    Ok(())
}

/// Each counter of the filter.
#[test]
fn every_stat_is_explained() -> Result<()> {
    let source = read("filter/src/stats.rs")?;
    let readme = read(README)?;
    let stats: BTreeSet<_> = source.split('"').filter(|text| text.starts_with("weir.")).collect();
    assert!(stats.contains("weir.admitted"));
    for stat in stats {
        assert!(readme.contains(&format!("`{stat}`")), "{README} does not explain {stat}");
    }
    Ok(())
}

/// Each metric of the control plane, and no other.
#[test]
fn every_metric_is_explained() -> Result<()> {
    let mut recorded = BTreeSet::new();
    for file in rust_files(&xtask::workspace().join("control-plane/src"))? {
        let source = fs::read_to_string(file)?;
        for macro_call in ["counter!(\"", "gauge!(\"", "histogram!(\""] {
            let names = source.split(macro_call).skip(1).filter_map(|rest| rest.split('"').next());
            recorded.extend(names.map(|name| format!("`{name}`")));
        }
    }
    let readme = read(README)?;
    let explained = readme.split_inclusive('`').collect::<Vec<_>>();
    let explained: BTreeSet<_> = explained
        .iter()
        .filter(|text| text.starts_with("weir_") && !text.contains(['.', '{', ' ']))
        .map(|text| format!("`{text}"))
        .collect();
    assert_eq!(explained, recorded);
    Ok(())
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// Each path of the admin API that README.md names is in the API's own description, with its method
/// where one stands before it; and README.md names all that is described.
#[tokio::test]
async fn the_paths_of_the_admin_api_exist() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(0)).await?;
    let document = fleet.admin.get("/openapi.json").await?.ok()?;
    let paths = document["paths"].as_object().context("no paths")?;
    let readme = read(README)?;
    let mut named = BTreeSet::new();
    for (method, path) in admin_paths(&readme) {
        let (known, operations) = paths
            .iter()
            .find(|(known, _)| is_path(known, &path))
            .with_context(|| format!("{README} names {path}, which the admin API does not have"))?;
        if let Some(method) = method {
            assert!(operations.get(&method).is_some(), "{README} names {method} {path}");
            named.insert((method, known.clone()));
        }
    }
    for (path, operations) in paths {
        for method in operations.as_object().into_iter().flat_map(|all| all.keys()) {
            let operation = (method.clone(), path.clone());
            assert!(named.contains(&operation), "{README} does not name {operation:?}");
        }
    }
    Ok(())
}

/// Every `/admin/v1/…`, and what stands beside it, in a text, with the method (in lower case) before it.
fn admin_paths(text: &str) -> Vec<(Option<String>, String)> {
    let in_path =
        |character: char| character.is_ascii_alphanumeric() || "/-_.{}".contains(character);
    let beside = ["/v1/policies", "/v1/usage", "/v1/data/"].into_iter().flat_map(|path| {
        let elsewhere = |before: &str| before.ends_with("/admin") || before.ends_with("/edge");
        text.match_indices(path).filter(move |(at, _)| !elsewhere(&text[..*at]))
    });
    text.match_indices("/admin/v1/")
        .chain(beside)
        .map(|(at, _)| {
            let path: String = text[at..].chars().take_while(|one| in_path(*one)).collect();
            let before = text[..at].split([' ', '`', '\n', '|']).rfind(|word| !word.is_empty());
            let method = before.map(str::to_lowercase);
            let methods = ["get", "put", "post", "patch", "delete"];
            (method.filter(|word| methods.contains(&word.as_str())), path)
        })
        .collect()
}

/// Whether `path` is `known`, in which `{…}` stands for any segment.
fn is_path(known: &str, path: &str) -> bool {
    let (known, path): (Vec<_>, Vec<_>) = (known.split('/').collect(), path.split('/').collect());
    known.len() == path.len()
        && known.iter().zip(&path).all(|(known, one)| known.starts_with('{') || known == one)
}
