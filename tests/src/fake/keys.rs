//! Idempotency keys: what was answered first is answered again, as long as it is remembered.

use std::sync::Mutex;

use super::{Provider, Reply, Request, Shared, lock};

/// What was answered under a key.
pub(super) struct Kept {
    endpoint: String,
    params: Vec<(String, String)>,
    at_s: u64,
    /// None while the call is under way.
    reply: Option<Reply>,
}

/// Carries a call out once per key: what was answered first is answered again.
pub(super) fn execute<P: Provider>(shared: &Mutex<Shared<P>>, request: &Request) -> Reply {
    if let Some(reply) = replay(shared, request) {
        return reply;
    }
    finish(shared, request)
}

/// What the key says without carrying anything out.
fn replay<P: Provider>(shared: &Mutex<Shared<P>>, request: &Request) -> Option<Reply> {
    let key = request.key.as_ref()?;
    let mut state = lock(shared);
    let now_s = state.now_s;
    let kept = state.keys.get(key)?;
    if kept.at_s + P::KEY_WINDOW_S < now_s {
        state.keys.remove(key);
        return None;
    }
    if (&kept.endpoint, &kept.params) != (&request.endpoint, &request.params) {
        let message = "Keys can only be used with the parameters they were first used with";
        return Some(P::error(400, "idempotency_error", message));
    }
    let in_use = || P::error(409, "idempotency_key_in_use", "A call with this key is under way");
    Some(kept.reply.clone().unwrap_or_else(in_use))
}

pub(super) fn begin<P: Provider>(shared: &Mutex<Shared<P>>, request: &Request) {
    let mut state = lock(shared);
    let at_s = state.now_s;
    if let Some(key) = request.key.clone() {
        let Request { endpoint, params, .. } = request.clone();
        state.keys.entry(key).or_insert(Kept { endpoint, params, at_s, reply: None });
    }
}

pub(super) fn finish<P: Provider>(shared: &Mutex<Shared<P>>, request: &Request) -> Reply {
    if let Err(error) = lock(shared).provider.check(request) {
        return error;
    }
    let mut state = lock(shared);
    let now_s = state.now_s;
    let reply = match state.provider.execute(request, now_s) {
        Ok(body) => Reply::new(200, body),
        Err(error) => error,
    };
    drop(state);
    keep(shared, request, reply.clone());
    reply
}

pub(super) fn keep<P: Provider>(shared: &Mutex<Shared<P>>, request: &Request, reply: Reply) {
    begin(shared, request);
    if let Some(key) = &request.key
        && let Some(kept) = lock(shared).keys.get_mut(key)
    {
        kept.reply = Some(reply);
    }
}
