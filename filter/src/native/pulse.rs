//! How Envoy is made to call, from any thread.

use std::sync::atomic::{AtomicBool, Ordering};

use super::abi::{self, ConfigPtr, SchedulerPtr, StreamPtr};

/// Has Envoy call a configuration on its main thread.
pub(super) struct Pulse {
    scheduler: SchedulerPtr,
    /// It was told to, and has yet to.
    is_called: AtomicBool,
}

// SAFETY: Envoy's scheduler may be used on any thread.
unsafe impl Send for Pulse {}
// SAFETY: the same.
unsafe impl Sync for Pulse {}

impl Pulse {
    /// # Safety
    /// The configuration exists.
    pub(super) unsafe fn new(config: ConfigPtr) -> Self {
        // SAFETY: the caller sees to it.
        let scheduler = unsafe { abi::config_scheduler_new(config) };
        Self { scheduler, is_called: AtomicBool::new(false) }
    }

    pub(super) fn call(&self) {
        if !self.is_called.swap(true, Ordering::SeqCst) {
            // SAFETY: the scheduler lives as long as this does; it knows whether the configuration does.
            unsafe { abi::config_scheduler_commit(self.scheduler, 0) }
        }
    }

    /// Envoy calls.
    pub(super) fn is_here(&self) {
        self.is_called.store(false, Ordering::SeqCst);
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        // SAFETY: nobody has it any more.
        unsafe { abi::config_scheduler_delete(self.scheduler) }
    }
}

/// Has Envoy call a stream on its thread.
pub(super) struct StreamCaller(SchedulerPtr);

// SAFETY: Envoy's scheduler may be used on any thread.
unsafe impl Send for StreamCaller {}

impl StreamCaller {
    /// # Safety
    /// The stream exists, on this thread.
    pub(super) unsafe fn new(stream: StreamPtr) -> Self {
        // SAFETY: the caller sees to it.
        Self(unsafe { abi::scheduler_new(stream) })
    }

    pub(super) fn call(&self) {
        // SAFETY: the scheduler lives as long as this does; it knows whether the stream does.
        unsafe { abi::scheduler_commit(self.0, 0) }
    }
}

impl Drop for StreamCaller {
    fn drop(&mut self) {
        // SAFETY: nobody has it any more.
        unsafe { abi::scheduler_delete(self.0) }
    }
}
