//! A worker, and who uses it: the thread that it is of, for requests, and the main thread, for all else.

use std::{
    mem::take,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use hashbrown::HashMap;

use super::{
    abi::{ConfigPtr, StreamPtr},
    calls,
    host::{self, now_ns},
    pulse::StreamCaller,
    registry, timer,
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
/// A new worker is first called after this.
const FIRST: Duration = AT_ONCE;
/// The same after a panic: what panics on each tick must not keep the main thread busy.
const FIRST_AFTER_PANIC: Duration = Duration::from_secs(1);
/// Who waits behind a worker that is being used waits so long for its tick.
const BUSY_NS: u64 = 1_000_000;
/// When the main thread is so late, requests that wait are looked after on their own threads.
const LATE_NS: u64 = 50_000_000;

pub(super) struct Seat {
    worker: Mutex<Worker>,
    /// What it takes to make another one.
    config: Config,
    stats: Stats,
    /// The streams of this worker that are paused.
    paused: Mutex<HashMap<u32, StreamCaller>>,
    period_ns: AtomicU64,
    due_ns: AtomicU64,
    /// Its configuration has ended.
    is_left: AtomicBool,
}

/// What the worker has just said of its ticks.
struct Timing {
    due_ns: u64,
    at_once: bool,
}

impl Seat {
    pub(super) fn new(config: &Config, stats: &Stats) -> Self {
        let seat = Self {
            worker: Mutex::new(worker(config, stats)),
            config: config.clone(),
            stats: stats.clone(),
            paused: Mutex::default(),
            period_ns: AtomicU64::new(0),
            due_ns: AtomicU64::new(0),
            is_left: AtomicBool::new(false),
        };
        seat.worker().set_tick(FIRST);
        seat.note_tick();
        seat
    }

    /// Has the worker do something; `None` where it panicked and was replaced.
    #[inline]
    pub(super) fn enter<T>(&self, act: impl FnOnce(&mut Worker) -> T) -> Option<T> {
        self.enter_by(|| self.worker(), act)
    }

    #[inline]
    fn enter_by<'s, T>(
        &'s self,
        lock: impl FnOnce() -> MutexGuard<'s, Worker>,
        act: impl FnOnce(&mut Worker) -> T,
    ) -> Option<T> {
        let entered = catch_unwind(AssertUnwindSafe(|| {
            let mut worker = lock();
            let result = act(&mut worker);
            // Before somebody else is at work, who may say something else.
            (result, self.note_tick())
        }));
        match entered {
            Ok((result, None)) => Some(result),
            Ok((result, Some(timing))) => {
                timing.tell();
                Some(result)
            }
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
        host::take_tick();
        let mut guard = self.worker();
        *guard = worker(&self.config, &self.stats);
        if self.is_left.load(Ordering::SeqCst) {
            guard.ending = Ending::Ended;
        }
        guard.set_tick(FIRST_AFTER_PANIC);
        let timing = self.note_tick();
        drop(guard);
        self.worker.clear_poison();
        if let Some(timing) = timing {
            timing.tell();
        }
        // The new one does not know who waits.
        self.paused().values().for_each(StreamCaller::call);
    }

    /// To be called while the worker is held.
    #[inline]
    fn note_tick(&self) -> Option<Timing> {
        let period = host::take_tick()?;
        let period_ns = period.as_nanos() as u64;
        let at_once = period <= AT_ONCE;
        let due_ns = now_ns() + if at_once { 0 } else { period_ns };
        self.period_ns.store(period_ns, Ordering::SeqCst);
        self.due_ns.store(due_ns, Ordering::SeqCst);
        Some(Timing { due_ns, at_once })
    }

    /// When its time comes, as the timer should think: one whose time has come will have another time.
    pub(super) fn next_ns(&self, now_ns: u64) -> u64 {
        let due_ns = self.due_ns.load(Ordering::SeqCst);
        if due_ns > now_ns {
            return due_ns;
        }
        now_ns + self.period_ns.load(Ordering::SeqCst).clamp(BUSY_NS, LATE_NS)
    }

    pub(super) fn is_due(&self, now_ns: u64) -> bool {
        self.due_ns.load(Ordering::SeqCst) <= now_ns
    }

    /// Whether the main thread should have come long ago.
    pub(super) fn is_overdue(&self, now_ns: u64) -> bool {
        self.due_ns.load(Ordering::SeqCst).saturating_add(LATE_NS) <= now_ns
    }

    /// Has requests that wait be looked after on their own thread.
    pub(super) fn call_a_stream(&self) {
        if let Some(stream) = self.paused().values().next() {
            stream.call();
        }
    }

    /// On the main thread: does what its worker does on a tick, for the gateway too if it `refreshes`. Nobody
    /// else waits where the worker is being used.
    pub(super) fn tick(self: &Arc<Self>, by: (ConfigPtr, u32), refreshes: bool) {
        let guard = match self.worker.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.due_ns.store(now_ns() + BUSY_NS, Ordering::SeqCst);
                return;
            }
        };
        calls::of(by, self, || {
            self.tell_streams(
                || guard,
                |worker| {
                    let next_ns = now_ns() + self.period_ns.load(Ordering::SeqCst);
                    self.due_ns.store(next_ns, Ordering::SeqCst);
                    worker.may_refresh(refreshes);
                    worker.on_tick();
                },
            );
        });
    }

    /// On the main thread: the answer to a call of this worker's.
    pub(super) fn on_answer(&self, call: u32, answer: &Answer) {
        self.tell_streams(|| self.worker(), |worker| worker.on_answer(call, answer));
    }

    /// What comes of it may concern any stream that is paused.
    fn tell_streams<'s>(
        &'s self,
        lock: impl FnOnce() -> MutexGuard<'s, Worker>,
        act: impl FnOnce(&mut Worker),
    ) {
        let contexts = self.enter_by(lock, |worker| {
            let before = worker.verdicts.len();
            act(worker);
            let new = worker.verdicts.get(before..).unwrap_or_default();
            new.iter().map(|(context, _)| *context).collect::<Vec<_>>()
        });
        let contexts = contexts.unwrap_or_default();
        if !contexts.is_empty() {
            let paused = self.paused();
            contexts.iter().filter_map(|context| paused.get(context)).for_each(StreamCaller::call);
        }
    }

    /// The configuration ends. `false` where the worker has something left to do.
    pub(super) fn end(&self) -> bool {
        self.is_left.store(true, Ordering::SeqCst);
        self.enter(|worker| worker.on_done(now_ns())).unwrap_or(true)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.is_left.load(Ordering::SeqCst) && self.worker().ending == Ending::Ended
    }

    fn paused(&self) -> MutexGuard<'_, HashMap<u32, StreamCaller>> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream is paused until it is called.
    pub(super) fn pause(&self, context: u32, stream: StreamPtr) {
        host::note_paused(context, stream);
        // SAFETY: the stream exists, on this thread.
        let caller = unsafe { StreamCaller::new(stream) };
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
        let delivered = self.enter(|worker| {
            let mut verdicts = take(&mut worker.verdicts);
            let looks = |(_, verdict): &(u32, Verdict)| matches!(verdict, Verdict::Look);
            let now_ns = now_ns();
            if verdicts.iter().any(looks) || self.is_overdue(now_ns) {
                worker.serve_all_waiters(now_ns);
                verdicts.append(&mut worker.verdicts);
            }
            let is_decided = verdicts.iter().any(|(decided, _)| *decided == context);
            (verdicts, is_decided || worker.paused.contains_key(&context))
        });
        let (verdicts, is_known) = delivered.unwrap_or_default();
        for (context, verdict) in verdicts {
            match verdict {
                Verdict::Pass => self.go_on(context, Next::Pass),
                Verdict::Refuse(refused) => self.go_on(context, Next::Refuse(refused)),
                Verdict::Look => {}
            }
        }
        if !is_known && host::is_paused(context) {
            let failed = self.enter(fail).unwrap_or(Next::Refuse(Refused::WorkerFailed));
            self.go_on(context, failed);
        }
    }

    fn go_on(&self, context: u32, next: Next) {
        let Some(stream) = self.unpause(context) else {
            return;
        };
        host::on_stream(stream, || match next {
            Next::Refuse(refused) => refused.send(),
            _ => host::resume(),
        });
    }
}

impl Timing {
    /// Not while a worker is held.
    fn tell(&self) {
        if self.at_once {
            registry::call_newest();
        }
        timer::look_by(self.due_ns);
    }
}

/// What becomes of a request whose worker has panicked.
pub(super) fn fail(worker: &mut Worker) -> Next {
    let refused = Refused::WorkerFailed;
    if worker.note_refusal(&refused) { Next::Refuse(refused) } else { Next::Pass }
}

fn worker(config: &Config, stats: &Stats) -> Worker {
    let mut worker = Worker::new(config.clone(), 0);
    worker.stats = stats.clone();
    worker
}
