//! Builds what runs: the filter for Envoy and the control plane.

mod trim;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};

use crate::{
    command,
    progress::{Step, step},
    workspace,
};

/// A folder of its own for wasm builds: one target folder for both would rebuild shared parts at each change.
const WASM_TARGET_DIR: &str = "target-wasm";

/// The filter as Envoy loads it: `wasm32-wasip1`, release, trimmed.
pub fn filter() -> Result<PathBuf> {
    step("filter (wasm32-wasip1, release)", |step| {
        build_filter(WASM_TARGET_DIR.as_ref(), &[], step)
    })
}

/// The filter with its feature `trap`, for tests of what happens when a VM traps. In a folder of its
/// own, so that nobody takes it for the filter.
pub fn trapping_filter() -> Result<PathBuf> {
    step("filter that traps on request (wasm32-wasip1)", |step| {
        // Built fast: nothing is measured with it.
        let options = ["--features=trap", "--config=profile.release.lto=false"];
        build_filter(&Path::new(WASM_TARGET_DIR).join("trap"), &options, step)
    })
}

/// The filter as a native module of Envoy.
pub fn native_filter() -> Result<PathBuf> {
    step("filter (native module, release)", |step| {
        build_native_filter(&["--profile=native", "--features=native"], "native", step)
    })
}

/// The same with the feature `trap`, for tests of what happens when a worker panics. In a folder of its own,
/// so that nobody takes it for the filter.
pub fn panicking_filter() -> Result<PathBuf> {
    step("filter that panics on request (native module)", |step| {
        // Built fast, of what other tests are built of.
        let (built_file, _) =
            build_native_filter(&["--profile=dev", "--features=native,trap"], "debug", step)?;
        let file = target_dir().join("native-trap").join("libweir_filter.so");
        fs::create_dir_all(target_dir().join("native-trap"))?;
        fs::copy(built_file, &file)?;
        built(file)
    })
}

fn build_native_filter(options: &[&str], folder: &str, step: &Step) -> Result<(PathBuf, String)> {
    let mut cargo = command::cargo();
    cargo.args(["rustc", "--package=weir-filter", "--lib", "--crate-type=cdylib"]);
    cargo.arg("--no-default-features").args(options);
    // It has a thread, so it must never be unloaded.
    cargo.args(["--", "-Clink-arg=-Wl,-z,nodelete"]);
    command::run_watched(&mut cargo, |line| step.shows(line))?;
    built(target_dir().join(folder).join("libweir_filter.so"))
}

/// Whether a built filter is a native module, and no wasm module.
pub fn is_native(filter: &Path) -> bool {
    filter.extension().is_some_and(|extension| extension == "so")
}

/// The module beside `filter` that is the same, but is told of bodies too.
pub fn reading_bodies(filter: &Path) -> PathBuf {
    if is_native(filter) {
        // It is told of all.
        return filter.to_owned();
    }
    filter.with_file_name("weir_filter_llm.wasm")
}

fn build_filter(folder: &Path, options: &[&str], step: &Step) -> Result<(PathBuf, String)> {
    let mut cargo = command::cargo();
    cargo.args(["build", "--package=weir-filter", "--target=wasm32-wasip1", "--release"]);
    cargo.args(options).arg("--target-dir").arg(folder);
    command::run_watched(&mut cargo, |line| step.shows(line))?;
    let linked = workspace().join(folder).join("wasm32-wasip1/release/weir_filter.wasm");
    let file = workspace().join(folder).join("weir_filter.wasm");
    trim::trim(&linked, &reading_bodies(&file), true)?;
    trim::trim(&linked, &file, false)?;
    built(file)
}

/// The control plane, native, with debug assertions.
pub fn control_plane() -> Result<PathBuf> {
    step("control plane", |step| build_native("weir", "debug", &[], step))
}

/// The control plane as it is shipped; for measurements.
pub fn control_plane_release() -> Result<PathBuf> {
    step("control plane (release)", |step| build_native("weir", "release", &["--release"], step))
}

/// The rate limit service that Weir is measured beside, built like it.
pub fn ratelimit_service() -> Result<PathBuf> {
    step("rate limit service (release)", |step| {
        build_native("ratelimit-service", "release", &["--release"], step)
    })
}

fn build_native(
    package: &str,
    folder: &str,
    arguments: &[&str],
    step: &Step,
) -> Result<(PathBuf, String)> {
    let mut cargo = command::cargo();
    cargo.args(["build", "--package", package, "--bin", package]).args(arguments);
    command::run_watched(&mut cargo, |line| step.shows(line))?;
    built(target_dir().join(folder).join(package))
}

fn built(file: PathBuf) -> Result<(PathBuf, String)> {
    ensure!(file.is_file(), "cargo built it, but {} is missing", file.display());
    let shown = file.strip_prefix(workspace()).unwrap_or(&file).display().to_string();
    Ok((file, shown))
}

/// Where native builds go.
fn target_dir() -> PathBuf {
    let chosen = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    workspace().join(chosen.as_deref().unwrap_or(Path::new("target")))
}
