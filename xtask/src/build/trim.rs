//! Trims a linked filter to what Envoy is to call. Envoy calls each callback that a module exports for
//! each request, and the SDK exports all there are.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use walrus::{ExportId, Module, passes};

/// Callbacks of `filter/src/exports.rs`, which take the place of the SDK's: `weir_on_done` becomes
/// `proxy_on_done`.
const OWN: &str = "weir_";
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
    let callbacks: Vec<(ExportId, String)> = module
        .exports
        .iter()
        .filter(|export| {
            export.name.starts_with("proxy_on_") && !KEPT.contains(&export.name.as_str())
        })
        .map(|export| (export.id(), export.name.clone()))
        .collect();
    for (id, _) in &callbacks {
        module.exports.delete(*id);
    }
    let mut own = 0;
    for export in module.exports.iter_mut() {
        if let Some(name) = export.name.strip_prefix(OWN) {
            let name = format!("{ABI}{name}");
            ensure!(
                callbacks.iter().any(|(_, known)| *known == name),
                "Envoy has no callback {name}"
            );
            export.name = name;
            own += 1;
        }
    }
    ensure!(own > 0, "{} exports no callbacks of its own", linked.display());
    passes::gc::run(&mut module);
    fs::write(trimmed, module.emit_wasm()).with_context(|| trimmed.display().to_string())
}
