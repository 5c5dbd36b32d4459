//! The filter as a wasm module: each of Envoy's threads runs it in a VM of its own.
//!
//! | module | subject |
//! |---|---|
//! | [`contexts`], [`requests`], `exports` | Envoy's callbacks: the rim |
//! | [`host`] | what is asked of Envoy |

pub mod contexts;
#[cfg(target_arch = "wasm32")]
mod exports;
#[cfg(any(target_arch = "wasm32", test))]
mod header_map;
pub mod host;
pub mod requests;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|id| Box::new(contexts::Root::new(id)));
}}
