//! Requests that are paused until their tenant has a lease: resumed or refused oldest first, each
//! by its deadline.

use std::time::Duration;

use crate::{
    host,
    rating::Rating,
    refusal::Refused,
    streams::Verdict,
    tenant::Waiter,
    tenants::Index,
    worker::{Decision, Draw, IDLE_TICK, Worker},
};

/// How often it comes while requests wait; for each tenant it reads a slot, so the more of them wait,
/// the rarer, or a silent control plane would keep workers busy with waiting.
const WAITING_TICK: Duration = Duration::from_millis(2);
const WAITING_TICK_PER_TENANT: Duration = Duration::from_micros(20);

impl Worker {
    pub fn list_waiting(&mut self, index: Index) {
        if let Some(tenant) = self.tenants.get_mut(index)
            && !tenant.waiting_listed
        {
            tenant.waiting_listed = true;
            self.waiting.push(index);
        }
    }

    /// Resumes or refuses those who wait, oldest first.
    pub fn serve_all_waiters(&mut self, now_ns: u64) {
        for index in std::mem::take(&mut self.waiting) {
            if let Some(tenant) = self.tenants.get_mut(index) {
                tenant.waiting_listed = false;
            }
            self.serve_waiters(index, now_ns);
        }
    }

    /// Resumes or refuses those who wait for one tenant; asks again if some still wait.
    pub fn serve_waiters(&mut self, index: Index, now_ns: u64) {
        loop {
            let waiter = self.tenants.get_mut(index).and_then(|tenant| tenant.waiters.front());
            let Some(waiter) = waiter.cloned() else {
                return;
            };
            let Some(verdict) = self.decide_waiter(index, &waiter, now_ns) else {
                self.list_waiting(index);
                return;
            };
            if let Some(tenant) = self.tenants.get_mut(index) {
                tenant.waiters.pop();
            }
            self.waiting_requests = self.waiting_requests.saturating_sub(1);
            match verdict {
                Decision::Admit(Some(fields)) => {
                    self.answers.insert(waiter.context, fields);
                    self.resume(waiter.context);
                }
                Decision::Refuse(refused) => self.refuse(waiter.context, &refused),
                Decision::Admit(None) | Decision::Wait(_) => self.resume(waiter.context),
            }
        }
    }

    /// What becomes of the first who waits for a tenant; `None` while it waits on.
    fn decide_waiter(&mut self, index: Index, waiter: &Waiter, now_ns: u64) -> Option<Decision> {
        let context = waiter.context;
        let rate = match &waiter.rate {
            Some(rate) => rate.clone(),
            None if !host::reaches_streams() => {
                let looks = |(other, verdict): &(u32, Verdict)| {
                    *other == context && matches!(verdict, Verdict::Look)
                };
                if !self.verdicts.iter().any(looks) {
                    self.verdicts.push((context, Verdict::Look));
                }
                return None;
            }
            None => {
                let root = self.root;
                match host::with_stream(context, root, || self.rate(context, index, now_ns)) {
                    Some(Rating::Rated(rate)) => rate,
                    Some(Rating::Refused(refused)) => return Some(Decision::Refuse(refused)),
                    Some(Rating::NotYet) => return self.wait_unrated(index, waiter, now_ns),
                    None => return Some(Decision::Refuse(Refused::ControlPlaneUnreachable)),
                }
            }
        };
        if let Some(first) =
            self.tenants.get_mut(index).and_then(|tenant| tenant.waiters.front_mut())
        {
            first.rate = Some(rate.clone());
        }
        match self.draw(index, &rate, now_ns) {
            Draw::Took => Some(self.admitted(context, index, &rate, now_ns)),
            Draw::Refused(refused) => Some(Decision::Refuse(refused)),
            Draw::Empty if now_ns >= waiter.deadline_ns || self.is_cut_off(index, now_ns) => {
                Some(self.decide_in_outage(context, index, &rate, now_ns))
            }
            Draw::Empty => {
                self.ask_for(index);
                None
            }
        }
    }

    /// What its rate follows from is not known yet. Whoever has waited long enough for that is decided
    /// over as if there were no lease either.
    fn wait_unrated(&mut self, index: Index, waiter: &Waiter, now_ns: u64) -> Option<Decision> {
        if now_ns >= waiter.deadline_ns || self.is_cut_off(index, now_ns) {
            let rate = self.plain_rate(waiter.context);
            return Some(self.decide_in_outage(waiter.context, index, &rate, now_ns));
        }
        if self.must_ask_to_rate(index, now_ns) {
            self.ask_for(index);
        }
        None
    }

    /// Refuses all who wait for a tenant.
    pub fn refuse_waiters(&mut self, index: Index, refused: &Refused) {
        let waiters = self.tenants.get_mut(index).map(|tenant| tenant.waiters.take());
        for waiter in waiters.into_iter().flatten() {
            self.waiting_requests = self.waiting_requests.saturating_sub(1);
            self.refuse(waiter.context, refused);
        }
    }

    fn resume(&mut self, context: u32) {
        // What else comes of it passes.
        self.paused.remove(&context);
        self.verdicts.push((context, Verdict::Pass));
    }

    fn refuse(&mut self, context: u32, refused: &Refused) {
        if self.note_refusal(refused) {
            self.verdicts.push((context, Verdict::Refuse(refused.clone())));
        } else {
            self.resume(context);
        }
    }

    /// Whether something has been noted of the request `context`.
    #[inline]
    pub fn has_noted(&self, context: u32) -> bool {
        !(self.answers.is_empty() && self.model_calls.is_empty() && self.paused.is_empty())
            && (self.answers.contains_key(&context)
                || self.model_calls.contains_key(&context)
                || self.paused.contains_key(&context))
    }

    /// The request `context` is gone: nobody waits for it, and it gets no answer.
    #[inline]
    pub fn forget_request(&mut self, context: u32) {
        if !(self.answers.is_empty() && self.model_calls.is_empty() && self.paused.is_empty()) {
            self.forget_noted_request(context);
        }
    }

    #[inline(never)]
    fn forget_noted_request(&mut self, context: u32) {
        self.answers.remove(&context);
        self.settle_call(context);
        if let Some(index) = self.paused.remove(&context)
            && let Some(tenant) = self.tenants.get_mut(index)
            && tenant.waiters.forget(context)
        {
            self.waiting_requests = self.waiting_requests.saturating_sub(1);
        }
    }
}

/// How often those who wait are looked after: so many tenants at most in [`IDLE_TICK`].
pub fn waiting_pace(tenants: usize) -> Duration {
    let tenants = u32::try_from(tenants).unwrap_or(u32::MAX);
    WAITING_TICK_PER_TENANT.saturating_mul(tenants).clamp(WAITING_TICK, IDLE_TICK)
}
