//! The tests of `domain` as wasm: the filter runs that code, and numbers and time must not differ.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};

use crate::{
    command::{cargo, run_shown},
    setup, workspace,
};

/// In a module with it, `#[test]` runs natively and on wasm32.
const IMPORT: &str = "use wasm_bindgen_test::wasm_bindgen_test as test;";

pub(super) fn on_wasm() -> Result<()> {
    let runner = setup::wasm_test_runner()?;
    let silent = modules_without_wasm_tests(&workspace().join("domain/src"))?;
    ensure!(
        silent.is_empty(),
        "the tests in {silent:?} would not run on wasm32; begin their `mod tests` with\n\
         #[cfg(target_arch = \"wasm32\")]\n{IMPORT}",
    );
    let target = ["--target=wasm32-unknown-unknown", "--target-dir=target-wasm"];
    run_shown(
        cargo()
            .args(["test", "--package=weir-domain", "--lib"])
            .args(target)
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER", runner),
    )
}

/// On wasm32 a plain `#[test]` is compiled and silently never run.
fn modules_without_wasm_tests(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut silent = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            silent.extend(modules_without_wasm_tests(&path)?);
        } else {
            let text = fs::read_to_string(&path)?;
            if text.contains("#[test]") && !text.contains(IMPORT) {
                silent.push(path);
            }
        }
    }
    Ok(silent)
}
