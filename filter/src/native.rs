//! The filter as a native module of Envoy (a "dynamic module"): the same decisions without a VM, whose
//! entries cost more than they do.
//!
//! | module | subject |
//! |---|---|
//! | `hooks` | what Envoy calls |
//! | `abi`, [`host`] | what is asked of Envoy |
//! | `filter` | one configuration and its workers |
//! | `registry` | all workers, and the configuration that ticks and calls for them |
//! | `seat` | one worker, used by the thread that it is of and by the main thread |
//! | `stream` | one request |
//! | `calls` | calls of the control plane |
//! | `pulse` | how Envoy is made to call |
//! | `timer` | the thread that says when a worker's time has come |
//! | `shared_data` | what workers share |
//!
//! A request is decided over on the thread that it came to. All else is done on Envoy's main thread, which is
//! the only one that can make calls without a request: ticks, and what comes of answers. So a worker is
//! behind a lock, which is hardly ever waited for. A request that waits is touched on its own thread only: who
//! has decided over it leaves a verdict with its worker and has Envoy call its stream.
//!
//! Whatever panics here is caught in the hook, and its worker replaced, as Envoy does with a VM that traps.

#![allow(unsafe_code, reason = "Envoy's ABI is one of C")]

/// Functions that must be found by their names, and that do nothing.
macro_rules! unused {
    ($($name:ident),* $(,)?) => {
        $(
            #[unsafe(no_mangle)]
            extern "C" fn $name() {}
        )*
    };
}
use unused;

mod abi;
mod calls;
mod filter;
mod hooks;
pub mod host;
mod pulse;
mod registry;
mod seat;
mod shared_data;
mod stream;
mod timer;
