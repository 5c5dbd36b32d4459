//! The least that a wasm filter can be. What Weir costs beyond it is Weir's own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

/// What a module does with each request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Does {
    /// It is only told of it.
    Nothing,
    /// It asks for the tenant's header, as whoever decides by it must, and is told when the request
    /// ends, as whoever has something to keep must.
    ReadsHeader,
}

/// Only what Envoy needs to call it once per request; so it is called for nothing else.
const NOOP: &str = r#"
  ;; Envoy hands values over in memory that it asks for; nothing is ever freed.
  (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $next))
    (global.set $next (i32.add (global.get $next) (local.get $size)))
    (local.get $at))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "_initialize"))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_context_create") (param i32 i32))
"#;

const IMPORTS: &str = r#"
  (import "env" "proxy_get_header_map_value"
    (func $get_header (param i32 i32 i32 i32 i32) (result i32)))
"#;

const MEMORY: &str = r#"
  (memory (export "memory") 2)
  (data (i32.const 1024) "x-tenant-id")
  (global $next (mut i32) (i32.const 65536))
"#;

const DOES_NOTHING: &str = r#"
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0))
"#;

const READS_HEADER: &str = r#"
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (global.set $next (i32.const 65536))
    (drop (call $get_header
      (i32.const 0) (i32.const 1024) (i32.const 11) (i32.const 2048) (i32.const 2052)))
    (i32.const 0))
  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
"#;

/// Writes the module into `folder`.
pub(super) fn write(folder: &Path, does: Does) -> Result<PathBuf> {
    let (name, text) = match does {
        Does::Nothing => ("noop.wasm", format!("(module {MEMORY}{NOOP}{DOES_NOTHING})")),
        Does::ReadsHeader => {
            ("header.wasm", format!("(module {IMPORTS}{MEMORY}{NOOP}{READS_HEADER})"))
        }
    };
    let file = folder.join(name);
    fs::write(&file, wat::parse_str(text)?)?;
    Ok(file)
}
