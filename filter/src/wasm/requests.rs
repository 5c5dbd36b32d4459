//! Requests, by the number that Envoy gives them in this VM.

use std::{cell::RefCell, rc::Rc};

use proxy_wasm::types::Action;

use super::contexts::Shared;
use crate::{refusal::Refused, streams::Next, worker::Worker};

thread_local! {
    /// The workers of this VM: one per plugin configuration, so mostly one.
    static WORKERS: RefCell<Vec<(u32, Shared)>> = const { RefCell::new(Vec::new()) };
    /// Requests that have begun and not shown their headers yet, with the root context whose worker
    /// decides over them. Envoy shows them at once; but where one filter of this VM stands behind
    /// another, what it does in between may begin a second one.
    static BEGUN: RefCell<Vec<(u32, u32)>> = const { RefCell::new(Vec::new()) };
}

/// Requests under the root context `root` are decided over by `worker`.
pub fn serve(root: u32, worker: &Shared) {
    WORKERS.with_borrow_mut(|workers| workers.push((root, Rc::clone(worker))));
}

/// No more requests come under the root context `root`.
pub fn leave(root: u32) {
    WORKERS.with_borrow_mut(|workers| workers.retain(|(other, _)| *other != root));
}

/// Whether `context` is a root context, and no request.
pub fn is_root(context: u32) -> bool {
    WORKERS.with_borrow(|workers| workers.iter().any(|(root, _)| *root == context))
}

/// The request `context` came in under the root context `root`.
pub fn begin(context: u32, root: u32) {
    BEGUN.with_borrow_mut(|begun| begun.push((context, root)));
}

/// Takes out under which root context the request began.
#[inline]
fn root_of(context: u32) -> Option<u32> {
    BEGUN.with_borrow_mut(|begun| {
        let place = begun.iter().position(|(newest, _)| *newest == context)?;
        Some(begun.swap_remove(place).1)
    })
}

pub fn on_request_headers(context: u32, is_last: bool) -> Action {
    let root = root_of(context);
    let next = WORKERS.with_borrow(|workers| {
        let worker = workers.iter().find(|(id, _)| Some(*id) == root);
        let mut worker = worker.and_then(|(_, worker)| worker.try_borrow_mut().ok());
        match worker.as_mut().and_then(|worker| worker.as_mut()) {
            Some(worker) => worker.on_request_headers(context, is_last),
            None => Next::Refuse(Refused::ControlPlaneUnreachable),
        }
    });
    action(next)
}

pub fn on_request_body(context: u32, size: usize, is_last: bool) -> Action {
    action(find(|worker| match worker.on_request_body(context, size, is_last) {
        Next::Pass => None,
        next => Some(next),
    }))
}

pub fn on_request_trailers(context: u32) -> Action {
    action(find(|worker| match worker.on_request_trailers(context) {
        Next::Pass => None,
        next => Some(next),
    }))
}

pub fn on_response_headers(context: u32) {
    each(|worker| worker.on_response_headers(context));
}

pub fn on_response_body(context: u32, size: usize, is_last: bool) {
    each(|worker| worker.on_answer_body(context, size, is_last));
}

/// The request `context` is gone: answered, or its client left.
pub fn end(context: u32) {
    // It may have had no headers.
    root_of(context);
    each(|worker| worker.forget_request(context));
}

#[inline]
fn action(next: Next) -> Action {
    match next {
        Next::Pass => Action::Continue,
        Next::AwaitBody | Next::Wait => Action::Pause,
        Next::Refuse(refused) => {
            refused.send();
            Action::Pause
        }
    }
}

/// What the worker says that knows the request; the others let it pass.
fn find(mut ask: impl FnMut(&mut Worker) -> Option<Next>) -> Next {
    let mut said = Next::Pass;
    each(|worker| {
        if let Some(next) = ask(worker) {
            said = next;
        }
    });
    said
}

/// Numbers of contexts are those of the VM, so at most one worker knows the request.
fn each(mut act: impl FnMut(&mut Worker)) {
    WORKERS.with_borrow(|workers| {
        for (_, worker) in workers {
            if let Ok(mut worker) = worker.try_borrow_mut()
                && let Some(worker) = worker.as_mut()
            {
                act(worker);
            }
        }
    });
}
