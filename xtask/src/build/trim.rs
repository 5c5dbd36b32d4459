//! Trims a linked filter to what Envoy is to call. Envoy calls each callback that a module exports for
//! each request, and the SDK exports all there are.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use walrus::{ExportId, Module, passes};

/// Callbacks of `filter/src/exports.rs`, which take the place of the SDK's: `weir_on_done` becomes
/// `proxy_on_done`.
const OWN: [&str; 4] = [
    "weir_on_context_create",
    "weir_on_request_headers",
    "weir_on_response_headers",
    "weir_on_done",
];
const PREFIX: &str = "weir_";
const ABI: &str = "proxy_";

/// Callbacks of the SDK that stay, all of them for root contexts.
const KEPT: [&str; 5] = [
    "proxy_on_memory_allocate",
    "proxy_on_vm_start",
    "proxy_on_configure",
    "proxy_on_tick",
    "proxy_on_http_call_response",
];

pub(super) fn trim(linked: &Path, trimmed: &Path) -> Result<()> {
    let mut module = Module::from_file(linked)
        .with_context(|| format!("{} is no wasm module", linked.display()))?;
    let callbacks: Vec<ExportId> = module
        .exports
        .iter()
        .filter(|export| {
            export.name.starts_with("proxy_on_") && !KEPT.contains(&export.name.as_str())
        })
        .map(|export| export.id())
        .collect();
    for id in callbacks {
        module.exports.delete(id);
    }
    for export in module.exports.iter_mut().filter(|export| OWN.contains(&export.name.as_str())) {
        export.name = export.name.replacen(PREFIX, ABI, 1);
    }
    let wanted = OWN.map(|name| name.replacen(PREFIX, ABI, 1)).into_iter();
    for name in wanted.chain(KEPT.map(str::to_owned)) {
        let is_there = module.exports.iter().any(|export| export.name == name);
        ensure!(is_there, "{} does not export {name}", linked.display());
    }
    passes::gc::run(&mut module);
    fs::write(trimmed, module.emit_wasm()).with_context(|| trimmed.display().to_string())
}
