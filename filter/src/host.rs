//! What the filter asks of Envoy, in its own words. Each call crosses the VM's boundary and costs
//! microseconds.

use std::time::Duration;

use proxy_wasm::{
    hostcalls,
    types::{Bytes, LogLevel, Status},
};

/// Monotonic time in ns. All workers of an Envoy read the same clock.
pub fn now_ns() -> u64 {
    // 32.32 fixed-point seconds.
    let ticks = coarsetime::Instant::now().as_ticks();
    (ticks >> 32) * 1_000_000_000 + (((ticks & 0xffff_ffff) * 1_000_000_000) >> 32)
}

/// 128 random bits as hex digits: the name of this VM.
pub fn nonce() -> Option<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")))
}

pub fn log(level: LogLevel, message: &str) {
    let _ = hostcalls::log(level, message);
}

pub fn warn(message: &str) {
    log(LogLevel::Warn, message);
}

/// How often `on_tick` comes from now on.
pub fn set_tick(period: Duration) {
    let _ = hostcalls::set_tick_period(period);
}

/// The value of `key` in Envoy's shared data. An emptied key counts as absent.
pub fn read(key: &str) -> Option<Bytes> {
    hostcalls::get_shared_data(key).ok()?.0.filter(|value| !value.is_empty())
}

/// How often [`update`] tries before it gives up: another worker won each time.
const UPDATE_ATTEMPTS: u32 = 100;

/// Changes `key` in Envoy's shared data by compare-and-swap. `change` sees the present value (`None`
/// if absent or emptied) and returns the next one, or `None` to leave it as it is; it may be called
/// several times. Returns what the last call of `change` returned beside the value.
pub fn update<T>(
    key: &str,
    mut change: impl FnMut(Option<&[u8]>) -> (Option<Vec<u8>>, T),
) -> Option<T> {
    for _ in 0..UPDATE_ATTEMPTS {
        let (value, version) = hostcalls::get_shared_data(key).ok()?;
        let (next, result) = change(value.as_deref().filter(|value| !value.is_empty()));
        let Some(next) = next else {
            return Some(result);
        };
        // u32::MAX matches no version, so an absent key is created and a key that appeared
        // meanwhile is a mismatch.
        match hostcalls::set_shared_data(key, Some(&next), version.or(Some(u32::MAX))) {
            Ok(()) => return Some(result),
            Err(Status::CasMismatch) => {}
            Err(_) => return None,
        }
    }
    None
}

/// Empties `key`: Envoy keeps the key, which is why keys are few and reused.
pub fn clear(key: &str) {
    let _ = hostcalls::set_shared_data(key, None, None);
}

/// Tells Envoy that the root context, which was asked to end, is done.
pub fn done() {
    let _ = hostcalls::done();
}

/// Runs `action` on behalf of the paused stream `context`; nothing happens if it is gone.
pub fn with_stream<T>(context: u32, root: u32, action: impl FnOnce() -> T) -> Option<T> {
    let done = hostcalls::set_effective_context(context).is_ok().then(action);
    let _ = hostcalls::set_effective_context(root);
    done
}
