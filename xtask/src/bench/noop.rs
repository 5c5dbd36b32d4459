//! The least that a wasm filter can be: it takes part in each request and does nothing. What Weir
//! costs beyond it is Weir's own.

use std::{fs, path::Path};

use anyhow::Result;

/// Only what Envoy needs to call it once per request; so it is called for nothing else.
const NOOP: &str = r#"
(module
  (memory (export "memory") 2)
  (global $next (mut i32) (i32.const 65536))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "_initialize"))
  ;; Envoy hands the configuration over at the start; nothing is ever freed.
  (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $next))
    (global.set $next (i32.add (global.get $next) (local.get $size)))
    (local.get $at))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0)))
"#;

pub(super) fn write(file: &Path) -> Result<()> {
    Ok(fs::write(file, wat::parse_str(NOOP)?)?)
}
