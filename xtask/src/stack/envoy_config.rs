//! Makes the configuration of a private gateway from the one that the repository ships.
//!
//! So each run of the demo and the tests proves that `envoy/envoy.yaml` works. What differs is
//! replaced as text, and each text must stand there exactly once.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::build;

/// Stands in `envoy.yaml` before the filter, and after it.
const FILTER_OPENS: &str = "                  - name: weir\n";
const FILTER_CLOSES: &str = "                  - name: envoy.filters.http.router";

pub(super) struct PrivateConfig<'a> {
    pub(super) port: u16,
    pub(super) admin_port: u16,
    pub(super) control_plane_ports: &'a [u16],
    pub(super) upstream_port: u16,
    pub(super) filter: &'a str,
    pub(super) gateway_token: &'a str,
    /// Merged into the plugin's configuration (RFC 7386: null removes a field).
    pub(super) plugin: &'a Value,
    /// What else differs: texts of envoy.yaml, and what stands there instead.
    pub(super) edits: &'a [(String, String)],
}

impl PrivateConfig<'_> {
    pub(super) fn apply_to(&self, shipped: &str) -> Result<String> {
        let (shipped, file) = if build::is_native(Path::new(self.filter)) {
            (with_native_filter(shipped)?, "/etc/envoy/libweir_filter.so")
        } else {
            (shipped.to_owned(), "/etc/envoy/weir_filter.wasm")
        };
        let endpoint = |host: &str, port: u16| {
            format!(
                "- endpoint: {{ address: {{ socket_address: {{ address: {host}, port_value: {port} }} }} }}"
            )
        };
        let control_planes: Vec<String> =
            self.control_plane_ports.iter().map(|port| endpoint("127.0.0.1", *port)).collect();
        let replacements = [
            (
                "address: 0.0.0.0, port_value: 10000".into(),
                format!("address: 127.0.0.1, port_value: {}", self.port),
            ),
            ("port_value: 9901".into(), format!("port_value: {}", self.admin_port)),
            (endpoint("control-plane", 8080), control_planes.join("\n              ")),
            (endpoint("upstream", 8000), endpoint("127.0.0.1", self.upstream_port)),
            // A JSON string is a YAML string, whatever the path has in it.
            (file.into(), Value::from(self.filter).to_string()),
        ];
        let text = replacements
            .iter()
            .chain(self.edits)
            .try_fold(shipped, |text, (from, to)| replace_once(&text, from, to))?;
        self.with_plugin_config(&text)
    }

    fn with_plugin_config(&self, text: &str) -> Result<String> {
        let (before, block, after) = plugin_block(text)
            .context("envoy.yaml has no `value: |` with the plugin's configuration")?;
        let mut plugin: Value = serde_json::from_str(block)
            .context("the plugin's configuration in envoy.yaml is not JSON")?;
        merge(&mut plugin, &serde_json::json!({"control_plane": {"token": self.gateway_token}}));
        merge(&mut plugin, self.plugin);
        let indent = " ".repeat(block.len() - block.trim_start().len());
        Ok(format!("{before}{indent}{plugin}\n{after}"))
    }
}

/// What of its configuration a private Envoy reads from a file of its own, and again whenever another
/// file is moved there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloadable {
    Nothing,
    /// Connections to the old listener are drained.
    Listener,
    /// The filter alone, as with Istio's `WasmPlugin`: it is replaced at once, for all connections.
    Plugin,
}

impl Reloadable {
    /// Parts a configuration: the rest, and what `file` must hold.
    pub(super) fn split(self, text: &str, file: &str) -> Result<(String, Option<String>)> {
        let source = format!("path_config_source: {{ path: {} }}", Value::from(file));
        // Envoy wants a name for itself where it reads its configuration from elsewhere.
        let node = "node: { id: private, cluster: private }\n";
        let cut = |opens: &str, closes: &str| {
            let missing = || format!("envoy.yaml has no `{opens}` that stands before `{closes}`");
            let (before, rest) = text.split_once(opens).with_context(missing)?;
            let (part, after) = rest.split_once(closes).with_context(missing)?;
            anyhow::Ok((before, part, format!("{closes}{after}")))
        };
        match self {
            Self::Nothing => Ok((text.to_owned(), None)),
            Self::Listener => {
                let (before, part, after) =
                    cut("  listeners:\n    - name: ingress", "\n  clusters:")?;
                let dynamic = format!("dynamic_resources: {{ lds_config: {{ {source} }} }}\n");
                let resource = format!(
                    "resources:\n    - \"@type\": type.googleapis.com/envoy.config.listener.v3.Listener\n\
                     \x20     name: ingress{part}\n"
                );
                Ok((format!("{node}{dynamic}{before}{after}"), Some(resource)))
            }
            Self::Plugin => {
                let (before, part, after) = cut(FILTER_OPENS, FILTER_CLOSES)?;
                let type_url = type_url(part).context("the filter has no type")?;
                let discovery = format!(
                    "{FILTER_OPENS}                    config_discovery: {{ config_source: {{ {source} }}, \
                     type_urls: [{type_url}] }}\n"
                );
                let resource = format!(
                    "resources:\n                  - \"@type\": \
                     type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig\n\
                     \x20                   name: weir\n{part}"
                );
                Ok((format!("{node}{before}{discovery}{after}"), Some(resource)))
            }
        }
    }
}

/// The configuration with the filter as a native module.
fn with_native_filter(shipped: &str) -> Result<String> {
    let native = include_str!("../../../envoy/native-filter.yaml");
    let missing = "envoy.yaml has no filter `weir` before the router";
    let (before, rest) = shipped.split_once(FILTER_OPENS).context(missing)?;
    let (_, after) = rest.split_once(FILTER_CLOSES).context(missing)?;
    Ok(format!("{before}{native}{FILTER_CLOSES}{after}"))
}

/// Of the filter that `part` begins with.
fn type_url(part: &str) -> Option<&str> {
    part.split_once("\"@type\": ")?.1.lines().next()
}

/// What stands before, in and after the lines of the only `value: |`.
fn plugin_block(text: &str) -> Option<(&str, &str, &str)> {
    const OPENS: &str = "value: |\n";
    let at = text.find(OPENS)?;
    let column = text[..at].len() - text[..at].rfind('\n')? - 1;
    let start = at + OPENS.len();
    let indented =
        |line: &&str| line.len() - line.trim_start().len() > column || line.trim().is_empty();
    let length =
        text[start..].split_inclusive('\n').take_while(indented).map(str::len).sum::<usize>();
    Some((&text[..start], &text[start..start + length], &text[start + length..]))
}

fn replace_once(text: &str, from: &str, to: &str) -> Result<String> {
    match text.matches(from).count() {
        1 => Ok(text.replace(from, to)),
        count => bail!(
            "envoy.yaml has `{from}` {count} times; private runs replace it and need it exactly once"
        ),
    }
}

fn merge(into: &mut Value, patch: &Value) {
    let (Value::Object(target), Value::Object(fields)) = (&mut *into, patch) else {
        *into = patch.clone();
        return;
    };
    for (name, value) in fields {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn private(plugin: &Value) -> PrivateConfig<'_> {
        PrivateConfig {
            port: 1,
            admin_port: 2,
            control_plane_ports: &[3, 4],
            upstream_port: 5,
            filter: "/a b/f.wasm",
            gateway_token: "secret",
            plugin,
            edits: &[],
        }
    }

    #[test]
    fn the_shipped_configuration_can_be_made_private() -> Result<()> {
        let shipped = include_str!("../../../envoy/envoy.yaml");
        let text = private(&json!({"shadow": true, "exempt": null})).apply_to(shipped)?;
        for expected in [
            "{ address: 127.0.0.1, port_value: 1 }",
            "{ address: 127.0.0.1, port_value: 2 }",
            "\n              - endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 3 } } }\n",
            "\n              - endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 4 } } }\n",
            "{ address: 127.0.0.1, port_value: 5 }",
            "filename: \"/a b/f.wasm\" }",
            "\"shadow\":true",
            "\"token\":\"secret\"",
        ] {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
        assert!(!text.contains("exempt\""), "{text}");
        Ok(())
    }

    #[test]
    fn a_part_of_it_can_be_in_a_file_of_its_own() -> Result<()> {
        let shipped = include_str!("../../../envoy/envoy.yaml");
        for (part, moved, stays) in [
            (Reloadable::Listener, "stat_prefix: ingress", "  clusters:\n"),
            (Reloadable::Plugin, "failure_policy: FAIL_RELOAD", "stat_prefix: ingress"),
        ] {
            let (rest, resource) = part.split(shipped, "/a b/part.yaml")?;
            let resource = resource.context("it has no part")?;
            assert!(resource.starts_with("resources:\n") && resource.contains(moved), "{resource}");
            assert!(!rest.contains(moved) && rest.contains(stays), "{rest}");
            assert!(rest.contains("path: \"/a b/part.yaml\""), "{rest}");
        }
        Ok(())
    }

    #[test]
    fn a_changed_default_is_noticed() {
        let shipped = include_str!("../../../envoy/envoy.yaml").replace("9901", "9902");
        let error = private(&Value::Null).apply_to(&shipped).expect_err("9901 is gone").to_string();
        assert!(error.contains("port_value: 9901") && error.contains("0 times"), "{error}");
    }
}
