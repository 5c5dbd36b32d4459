//! Trims a linked filter to what Envoy is to call. Envoy calls each callback that a module exports for
//! each request, and the SDK exports all there are.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use walrus::{ExportId, Module, passes};

/// Callbacks of `filter/src/exports.rs`, which take the place of the SDK's: `weir_on_done` becomes
/// `proxy_on_done`.
const OWN: [&str; 5] = [
    "weir_on_memory_allocate",
    "weir_on_context_create",
    "weir_on_request_headers",
    "weir_on_response_headers",
    "weir_on_done",
];
/// Those that only the module has that reads bodies.
const OF_BODIES: [&str; 3] =
    ["weir_on_request_body", "weir_on_request_trailers", "weir_on_response_body"];
/// What the filter imports from here: whether it has them.
const READS_BODIES: (&str, &str) = ("weir", "reads_bodies");
const PREFIX: &str = "weir_";
const ABI: &str = "proxy_";

/// Callbacks of the SDK that stay, all of them for root contexts.
const KEPT: [&str; 4] =
    ["proxy_on_vm_start", "proxy_on_configure", "proxy_on_tick", "proxy_on_http_call_response"];

pub(super) fn trim(linked: &Path, trimmed: &Path, reads_bodies: bool) -> Result<()> {
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
    let of_bodies = if reads_bodies { &OF_BODIES[..] } else { &[] };
    let own: Vec<&str> = OWN.iter().chain(of_bodies).copied().collect();
    for export in module.exports.iter_mut().filter(|export| own.contains(&export.name.as_str())) {
        export.name = export.name.replacen(PREFIX, ABI, 1);
    }
    let left_over =
        module.exports.iter().filter(|export| OF_BODIES.contains(&export.name.as_str()));
    for id in left_over.map(|export| export.id()).collect::<Vec<_>>() {
        module.exports.delete(id);
    }
    let (from, name) = READS_BODIES;
    let import = module
        .imports
        .get_func(from, name)
        .with_context(|| format!("{} does not ask whether it reads bodies", linked.display()))?;
    module.replace_imported_func(import, |(body, _)| {
        body.i32_const(i32::from(reads_bodies));
    })?;
    let wanted = own.iter().map(|name| name.replacen(PREFIX, ABI, 1));
    for name in wanted.chain(KEPT.map(str::to_owned)) {
        let is_there = module.exports.iter().any(|export| export.name == name);
        ensure!(is_there, "{} does not export {name}", linked.display());
    }
    passes::gc::run(&mut module);
    fs::write(trimmed, module.emit_wasm()).with_context(|| trimmed.display().to_string())
}
