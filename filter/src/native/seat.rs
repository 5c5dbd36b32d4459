//! A worker, and who uses it: the thread that it is of, for requests, and the main thread, for all else.

use std::{
    mem::take,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use hashbrown::HashMap;

use super::{
    abi::{self, ConfigPtr, SchedulerPtr, StreamPtr},
    host::{self, now_ns},
    timer,
};
use crate::{
    config::Config,
    ending::Ending,
    host::warn,
    http_call::Answer,
    refusal::Refused,
    stats::Stats,
    streams::{Next, Verdict},
    worker::Worker,
};

/// What is to come within this time, comes without the timer.
const AT_ONCE: Duration = Duration::from_millis(1);

pub(super) struct Seat {
    worker: Mutex<Worker>,
    /// What it takes to make another one.
    config: Config,
    stats: Stats,
    /// The streams of this worker that are paused.
    paused: Mutex<HashMap<u32, StreamCaller>>,
    pulse: Arc<Pulse>,
    period_ns: AtomicU64,
    due_ns: AtomicU64,
}

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
        if !self.is_called.swap(true, Ordering::AcqRel) {
            // SAFETY: the scheduler lives as long as this does; it knows whether the configuration does.
            unsafe { abi::config_scheduler_commit(self.scheduler, 0) }
        }
    }

    /// Envoy calls.
    pub(super) fn is_here(&self) {
        self.is_called.store(false, Ordering::Release);
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        // SAFETY: nobody has it any more.
        unsafe { abi::config_scheduler_delete(self.scheduler) }
    }
}

/// Has Envoy call a stream on its thread.
struct StreamCaller(SchedulerPtr);

// SAFETY: Envoy's scheduler may be used on any thread.
unsafe impl Send for StreamCaller {}

impl StreamCaller {
    fn call(&self) {
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

impl Seat {
    pub(super) fn new(config: &Config, stats: &Stats, pulse: &Arc<Pulse>) -> Self {
        let seat = Self {
            worker: Mutex::new(worker(config, stats)),
            config: config.clone(),
            stats: stats.clone(),
            paused: Mutex::default(),
            pulse: Arc::clone(pulse),
            period_ns: AtomicU64::new(0),
            due_ns: AtomicU64::new(0),
        };
        // What the worker has just said of its ticks is known.
        host::take_tick();
        seat
    }

    /// Has the worker do something; `None` where it panicked and was replaced.
    #[inline]
    pub(super) fn enter<T>(&self, act: impl FnOnce(&mut Worker) -> T) -> Option<T> {
        let result = catch_unwind(AssertUnwindSafe(|| act(&mut self.worker())));
        if let Some(period) = host::take_tick() {
            self.call_every(period);
        }
        match result {
            Ok(result) => Some(result),
            Err(_) => {
                self.replace_worker();
                None
            }
        }
    }

    fn worker(&self) -> MutexGuard<'_, Worker> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker is not to be trusted any more. It falls silent, and the others take it for lost.
    #[cold]
    fn replace_worker(&self) {
        warn("weir: a worker has panicked and is replaced");
        *self.worker() = worker(&self.config, &self.stats);
        self.worker.clear_poison();
        host::take_tick();
        self.call_every(Duration::ZERO);
        // The new one does not know who waits.
        self.paused().values().for_each(StreamCaller::call);
    }

    fn call_every(&self, period: Duration) {
        let period_ns = period.as_nanos() as u64;
        self.period_ns.store(period_ns, Ordering::Release);
        let due_ns = now_ns() + period_ns;
        self.due_ns.store(due_ns, Ordering::Release);
        if period <= AT_ONCE {
            self.pulse.call();
        }
        // Also then: the configuration may be gone.
        timer::look_by(due_ns);
    }

    /// When its time comes, as the timer should think: one whose time has come will have another time.
    pub(super) fn next_ns(&self, now_ns: u64) -> u64 {
        let due_ns = self.due_ns.load(Ordering::Acquire);
        if due_ns > now_ns {
            due_ns
        } else {
            now_ns + self.period_ns.load(Ordering::Acquire).max(1_000_000)
        }
    }

    pub(super) fn is_due(&self, now_ns: u64) -> bool {
        self.due_ns.load(Ordering::Acquire) <= now_ns
    }

    /// On the main thread: does what its worker does on a tick.
    pub(super) fn tick(&self) {
        let next_ns = now_ns() + self.period_ns.load(Ordering::Acquire);
        self.due_ns.store(next_ns, Ordering::Release);
        self.enter_for_all(Worker::on_tick);
    }

    /// On the main thread: the answer to a call, if it was this worker's.
    pub(super) fn on_answer(&self, call: u32, answer: &Answer) -> bool {
        self.enter_for_all(|worker| {
            let is_mine = worker.calls.contains_key(&call);
            if is_mine {
                worker.on_answer(call, answer);
            }
            is_mine
        })
        .unwrap_or_default()
    }

    /// On the main thread: what comes of it may concern any stream that is paused.
    fn enter_for_all<T>(&self, act: impl FnOnce(&mut Worker) -> T) -> Option<T> {
        let (result, contexts) = self.enter(|worker| {
            let result = act(worker);
            (result, worker.verdicts.iter().map(|(context, _)| *context).collect::<Vec<_>>())
        })?;
        if !contexts.is_empty() {
            let paused = self.paused();
            contexts.iter().filter_map(|context| paused.get(context)).for_each(StreamCaller::call);
        }
        Some(result)
    }

    /// The configuration ends. `false` where the worker has something left to do.
    pub(super) fn end(&self) -> bool {
        self.enter(|worker| {
            // Envoy cancels these.
            let calls: Vec<u32> = worker.calls.keys().copied().collect();
            for call in calls {
                worker.on_answer(call, &Answer::new(None, Vec::new()));
            }
            worker.on_done(now_ns())
        })
        .unwrap_or(true)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.worker().ending == Ending::Ended
    }

    fn paused(&self) -> MutexGuard<'_, HashMap<u32, StreamCaller>> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream is paused until it is called.
    pub(super) fn pause(&self, context: u32, stream: StreamPtr) {
        host::note_paused(context, stream);
        // SAFETY: the stream exists, on this thread.
        let caller = StreamCaller(unsafe { abi::scheduler_new(stream) });
        self.paused().insert(context, caller);
    }

    /// It is not any more, or gone.
    pub(super) fn unpause(&self, context: u32) -> Option<StreamPtr> {
        let stream = host::take_paused(context)?;
        self.paused().remove(&context);
        Some(stream)
    }

    /// On the thread of its streams: has those go on who have waited for a verdict. `context` is the one that
    /// was called for it.
    pub(super) fn deliver(&self, context: u32) {
        let verdicts = self.enter(|worker| {
            let mut verdicts = take(&mut worker.verdicts);
            if verdicts.iter().any(|(_, verdict)| matches!(verdict, Verdict::Look)) {
                worker.serve_all_waiters(now_ns());
                verdicts.append(&mut worker.verdicts);
            }
            verdicts
        });
        for (context, verdict) in verdicts.into_iter().flatten() {
            match verdict {
                Verdict::Pass => self.go_on(context, None),
                Verdict::Refuse(refused) => self.go_on(context, Some(&refused)),
                Verdict::Look => {}
            }
        }
        let is_known = |worker: &mut Worker| worker.paused.contains_key(&context);
        if host::is_paused(context) && self.enter(is_known) != Some(true) {
            match self.fail() {
                Next::Refuse(refused) => self.go_on(context, Some(&refused)),
                _ => self.go_on(context, None),
            }
        }
    }

    /// What becomes of a request whose worker has panicked.
    pub(super) fn fail(&self) -> Next {
        let refused = Refused::WorkerFailed;
        if self.enter(|worker| worker.note_refusal(&refused)) == Some(false) {
            return Next::Pass;
        }
        Next::Refuse(refused)
    }

    fn go_on(&self, context: u32, refused: Option<&Refused>) {
        let Some(stream) = self.unpause(context) else {
            return;
        };
        host::on_stream(stream, || match refused {
            None => host::resume(),
            Some(refused) => refused.send(),
        });
    }
}

fn worker(config: &Config, stats: &Stats) -> Worker {
    let mut worker = Worker::new(config.clone(), 0);
    worker.stats = stats.clone();
    worker
}
