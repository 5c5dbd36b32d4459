//! Requests, as Envoy tells of them: [`begin`], [`on_request_headers`], [`on_response_headers`],
//! [`end`]; in the module that reads bodies also [`on_request_body`], [`on_request_trailers`] and
//! [`on_response_body`]. A request has no object of its own: what must be known of one that waits, or whose answer
//! is to say something, is kept by its worker under its number.

use std::{cell::RefCell, rc::Rc};

use proxy_wasm::{
    hostcalls,
    types::{Action, MapType},
};
use weir_domain::rate_limit_fields::{POLICY_FIELD, REMAINING_FIELD};

use crate::{
    config::{ExemptRule, Identity},
    contexts::Shared,
    llm::reserve::Head,
    refusal::{REASON_FIELD, Refused},
    stats::Counter,
    worker::{AnswerFields, Decision, Worker},
};

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
    WORKERS.with_borrow(|workers| {
        let worker = workers.iter().find(|(id, _)| Some(*id) == root);
        let mut worker = worker.and_then(|(_, worker)| worker.try_borrow_mut().ok());
        match worker.as_mut().and_then(|worker| worker.as_mut()) {
            Some(worker) => decide(worker, context, is_last),
            None => {
                Refused::ControlPlaneUnreachable.send();
                Action::Pause
            }
        }
    })
}

#[inline]
fn decide(worker: &mut Worker, context: u32, is_last: bool) -> Action {
    if !worker.config.exempt.is_empty() && is_exempt(worker) {
        worker.stats.count(Counter::Exempt);
        return Action::Continue;
    }
    let Identity::Header { name } = &worker.config.identity;
    #[cfg(target_arch = "wasm32")]
    let credential = crate::exports::request_header(name);
    #[cfg(not(target_arch = "wasm32"))]
    let credential = request_header(name);
    let decision = match credential.filter(|credential| !credential.is_empty()) {
        None => Decision::Refuse(Refused::MissingCredential),
        Some(credential) => {
            let head = if is_last { Head::Other } else { worker.begin_call(context, &credential) };
            match head {
                Head::Held => return Action::Pause,
                Head::Refused(refused) => Decision::Refuse(refused),
                Head::Other => worker.decide(context, &credential),
            }
        }
    };
    carry_out(worker, context, decision)
}

#[inline]
fn carry_out(worker: &mut Worker, context: u32, decision: Decision) -> Action {
    #[cfg(feature = "trap")]
    crate::trap::on_request(worker);
    match decision {
        Decision::Admit(None) => Action::Continue,
        other => carry_out_slowly(worker, context, other),
    }
}

/// Not inlined, like all that few requests come to: the fewer lines of code almost all of them touch,
/// the less they wait for memory.
#[inline(never)]
fn carry_out_slowly(worker: &mut Worker, context: u32, decision: Decision) -> Action {
    match decision {
        Decision::Admit(None) => Action::Continue,
        Decision::Admit(Some(fields)) => {
            worker.answers.insert(context, fields);
            Action::Continue
        }
        Decision::Wait(index) => {
            worker.paused.insert(context, index);
            Action::Pause
        }
        Decision::Refuse(refused) if worker.note_refusal(&refused) => {
            refused.send();
            Action::Pause
        }
        Decision::Refuse(_) => Action::Continue,
    }
}

/// A piece of the body is here: with what was held back of it, `size` bytes.
pub fn on_request_body(context: u32, size: usize, is_last: bool) -> Action {
    let mut action = Action::Continue;
    each_worker(|worker| {
        if worker.awaits_body(context) {
            action = match worker.decide_call(context, size, is_last) {
                Some(decision) => carry_out(worker, context, decision),
                None => Action::Pause,
            };
        } else if worker.paused.contains_key(&context) {
            action = Action::Pause;
        }
    });
    action
}

/// All of the body is here, and what comes after it.
pub fn on_request_trailers(context: u32) -> Action {
    let mut size = 0;
    each_worker(|worker| size = worker.size_of_body(context).unwrap_or(size));
    on_request_body(context, size, true)
}

pub fn on_response_body(context: u32, size: usize, is_last: bool) {
    each_worker(|worker| worker.on_answer_body(context, size, is_last));
}

pub fn on_response_headers(context: u32) {
    let set = |name, value: &str| {
        let _ = hostcalls::set_map_value(MapType::HttpResponseHeaders, name, Some(value));
    };
    each_worker(|worker| {
        worker.on_answer_head(context);
        match worker.answers.remove(&context) {
            Some(AnswerFields::RateLimit { policy, remaining }) => {
                set(POLICY_FIELD, &policy);
                set(REMAINING_FIELD, &remaining);
            }
            Some(AnswerFields::Unleased(unleased)) => set(REASON_FIELD, unleased.reason()),
            None => {}
        }
    });
}

/// The request `context` is gone: answered, or its client left.
pub fn end(context: u32) {
    // It may have had no headers.
    root_of(context);
    each_worker(|worker| worker.forget_request(context));
}

/// Numbers of contexts are those of the VM, so at most one worker knows the request.
fn each_worker(mut act: impl FnMut(&mut Worker)) {
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

#[inline(never)]
fn is_exempt(worker: &Worker) -> bool {
    let rules = &worker.config.exempt;
    // Each header costs; mostly rules name a path alone.
    let value = |is_named: bool, name| {
        if is_named { request_header(name).unwrap_or_default() } else { Vec::new() }
    };
    let method = value(rules.iter().any(|rule| rule.method.is_some()), ":method");
    let path = value(rules.iter().any(ExemptRule::names_path), ":path");
    rules.iter().any(|rule| rule.matches(&method, &path))
}

pub fn request_header(name: &str) -> Option<Vec<u8>> {
    hostcalls::get_map_value_bytes(MapType::HttpRequestHeaders, name).ok().flatten()
}

pub fn remove_request_header(name: &str) {
    let _ = hostcalls::set_map_value(MapType::HttpRequestHeaders, name, None);
}
