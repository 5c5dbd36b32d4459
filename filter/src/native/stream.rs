//! One request, on the thread that it came to.

use std::cell::Cell;

use super::{
    abi::{BodyStatus, HeadersStatus, StreamPtr, TrailersStatus},
    filter::Filter,
    host,
    seat::{self, Seat},
};
use crate::{refusal::Refused, streams::Next, worker::Worker};

thread_local! {
    /// Numbers the requests of this thread.
    static LAST: Cell<u32> = const { Cell::new(0) };
}

pub(super) struct Stream<'f> {
    envoy: StreamPtr,
    seat: &'f Seat,
    context: u32,
    /// The worker has noted something of it. Of almost no request it has, and then nothing more is
    /// asked of it.
    is_noted: Cell<bool>,
    /// That worker's number: another one, after a panic, knows nothing of it.
    worker: Cell<u64>,
}

impl<'f> Stream<'f> {
    pub(super) fn new(envoy: StreamPtr, filter: &'f Filter, thread: u32) -> Option<Self> {
        let context = LAST.get().wrapping_add(1);
        LAST.set(context);
        Some(Self {
            envoy,
            seat: filter.seat(thread)?,
            context,
            is_noted: Cell::new(false),
            worker: Cell::new(0),
        })
    }

    /// Has its worker say what becomes of it.
    #[inline]
    fn ask(&self, act: impl FnOnce(&mut Worker) -> Next) -> Next {
        let asked = host::on_stream(self.envoy, || {
            self.seat.enter(|worker| {
                let known_to = self.worker.replace(worker.number);
                let next = match known_to == worker.number || known_to == 0 {
                    true => act(worker),
                    false => seat::fail(worker),
                };
                if matches!(next, Next::Wait) {
                    // Before somebody else can decide over it.
                    self.seat.pause(self.context, self.envoy);
                }
                (next, worker.has_noted(self.context))
            })
        });
        let (next, is_noted) = asked.unwrap_or_else(|| {
            self.seat.unpause(self.context);
            let failed = self.seat.enter(seat::fail);
            (failed.unwrap_or(Next::Refuse(Refused::WorkerFailed)), true)
        });
        self.is_noted.set(is_noted);
        if let Next::Refuse(refused) = &next {
            host::on_stream(self.envoy, || refused.send());
        }
        next
    }

    pub(super) fn on_request_headers(&self, is_last: bool) -> HeadersStatus {
        match self.ask(|worker| worker.on_request_headers(self.context, is_last)) {
            Next::Pass => HeadersStatus::Continue,
            Next::AwaitBody | Next::Refuse(_) => HeadersStatus::StopIteration,
            Next::Wait => HeadersStatus::StopAllAndWatermark,
        }
    }

    pub(super) fn on_request_body(&self, is_last: bool) -> BodyStatus {
        if !self.is_noted.get() {
            return BodyStatus::Continue;
        }
        let size = host::request_body_size(self.envoy);
        match self.ask(|worker| worker.on_request_body(self.context, size, is_last)) {
            Next::Pass => BodyStatus::Continue,
            Next::AwaitBody | Next::Wait => BodyStatus::StopAndBuffer,
            Next::Refuse(_) => BodyStatus::StopWithoutBuffer,
        }
    }

    pub(super) fn on_request_trailers(&self) -> TrailersStatus {
        if !self.is_noted.get() {
            return TrailersStatus::Continue;
        }
        match self.ask(|worker| worker.on_request_trailers(self.context)) {
            Next::Pass => TrailersStatus::Continue,
            _ => TrailersStatus::Stop,
        }
    }

    pub(super) fn on_response_headers(&self) {
        self.tell(|worker| worker.on_response_headers(self.context));
    }

    pub(super) fn on_response_body(&self, is_last: bool) {
        self.tell(|worker| {
            let size = host::response_body_size(self.envoy);
            worker.on_answer_body(self.context, size, is_last);
        });
    }

    /// It is gone: answered, or its client left.
    pub(super) fn end(&self) {
        if self.is_noted.get() {
            self.seat.unpause(self.context);
            self.seat.enter(|worker| worker.forget_request(self.context));
        }
    }

    /// Envoy calls it, who was asked to.
    pub(super) fn on_call(&self) {
        self.seat.deliver(self.context);
    }

    fn tell(&self, act: impl FnOnce(&mut Worker)) {
        if self.is_noted.get() {
            host::on_stream(self.envoy, || self.seat.enter(act));
        }
    }
}
