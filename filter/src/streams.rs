//! Requests, as Envoy tells of them: [`begin`], [`on_request_headers`], [`on_response_headers`],
//! [`end`]. A request has no object of its own: what must be known of one that waits, or whose answer
//! is to say something, is kept by its worker under its number.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use proxy_wasm::{
    hostcalls,
    types::{Action, MapType},
};
use weir_domain::{
    quantity::Amount,
    rate_limit_fields::{POLICY_FIELD, REMAINING_FIELD},
};

use crate::{
    config::{ExemptRule, Identity},
    contexts::Shared,
    refusal::{REASON_FIELD, Refused},
    stats::Counter,
    worker::{AnswerFields, Decision, Worker},
};

thread_local! {
    /// The workers of this VM: one per plugin configuration, so mostly one.
    static WORKERS: RefCell<Vec<(u32, Shared)>> = const { RefCell::new(Vec::new()) };
    /// The request that began last, and the root context whose worker decides over it.
    static NEWEST: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
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

/// The request `context` came in under the root context `root`. Envoy says so right before its headers.
pub fn begin(context: u32, root: u32) {
    NEWEST.set((context, root));
}

pub fn on_request_headers(context: u32) -> Action {
    let (newest, root) = NEWEST.get();
    WORKERS.with_borrow(|workers| {
        let worker = workers.iter().find(|(id, _)| *id == root && newest == context);
        let mut worker = worker.and_then(|(_, worker)| worker.try_borrow_mut().ok());
        match worker.as_mut().and_then(|worker| worker.as_mut()) {
            Some(worker) => decide(worker, context),
            None => {
                Refused::ControlPlaneUnreachable.send();
                Action::Pause
            }
        }
    })
}

fn decide(worker: &mut Worker, context: u32) -> Action {
    if is_exempt(worker) {
        worker.stats.count(Counter::Exempt);
        return Action::Continue;
    }
    let Identity::Header { name } = &worker.config.identity;
    let decision = match request_header(name) {
        Some(credential) if !credential.is_empty() => {
            let cost = Amount::request(worker.config.cost);
            worker.decide(context, &credential, cost)
        }
        _ => Decision::Refuse(Refused::MissingCredential),
    };
    #[cfg(feature = "trap")]
    crate::trap::on_request(worker);
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

pub fn on_response_headers(context: u32) {
    let set = |name, value: &str| {
        let _ = hostcalls::set_map_value(MapType::HttpResponseHeaders, name, Some(value));
    };
    each_worker(|worker| match worker.answers.remove(&context) {
        Some(AnswerFields::RateLimit { policy, remaining }) => {
            set(POLICY_FIELD, &policy);
            set(REMAINING_FIELD, &remaining);
        }
        Some(AnswerFields::Unleased(unleased)) => set(REASON_FIELD, unleased.reason()),
        None => {}
    });
}

/// The request `context` is gone: answered, or its client left.
pub fn end(context: u32) {
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

fn request_header(name: &str) -> Option<Vec<u8>> {
    hostcalls::get_map_value_bytes(MapType::HttpRequestHeaders, name).ok().flatten()
}
