//! Calls for leases: made on the tick for all tenants that need one, repeated until answered.

use weir_domain::{
    protocol::{
        self, LEASES_PATH, LeaseAnswer, LeaseAsk, LeaseRequest, LeaseResponse, MAX_LEASES_PER_CALL,
        TenantState,
    },
    quantity::{Amount, Quantity},
};

use crate::{
    ending::Ending,
    host,
    http_call::{self, Answer},
    refusal::Refused,
    slot::{CallBasis, Called, Slot, least_want},
    stats::Counter,
    tenant::{PendingCall, Tenant},
    tenants::Index,
    worker::{Call, Worker},
};

/// How long the state of a suspended tenant is believed without asking, in ns; a change is pushed.
const SUSPENDED_NS: u64 = 5_000_000_000;

/// What a request takes at least whose rate is not known yet.
const UNRATED: Amount = Amount { tokens: Quantity::ZERO, requests: Quantity::ONE };

/// Tenants whose call failed and is to be repeated.
#[derive(Debug, Default)]
pub struct LeaseCalls {
    retries: Vec<Index>,
    /// The number of the newest call, of whichever tenant: they rise, also where a tenant was forgotten since.
    last_number: u64,
}

impl LeaseCalls {
    /// How many calls the next tick makes for what is to be said again, or given back.
    pub fn queued(&self) -> usize {
        self.retries.len() / MAX_LEASES_PER_CALL
    }

    /// Whether none is to be repeated.
    pub fn is_idle(&self) -> bool {
        self.retries.is_empty()
    }
}

impl Worker {
    /// Calls for every tenant that was asked for, and repeats what failed.
    pub fn call_for_leases(&mut self, now_ns: u64) {
        let mut ready = Vec::new();
        for index in std::mem::take(&mut self.lease_calls.retries) {
            let Some(call) = self.tenants.get_mut(index).and_then(|tenant| tenant.call.as_ref())
            else {
                continue;
            };
            if now_ns >= call.retry_ns {
                ready.push(index);
            } else {
                self.lease_calls.retries.push(index);
            }
        }
        for index in std::mem::take(&mut self.to_ask) {
            if self.prepare_call(index, now_ns) {
                ready.push(index);
            } else {
                self.forget_unasked(index);
            }
        }
        for indexes in ready.chunks(MAX_LEASES_PER_CALL) {
            self.send_leases(indexes, now_ns);
        }
    }

    /// Puts a call together, unless one is under way or not needed.
    fn prepare_call(&mut self, index: Index, now_ns: u64) -> bool {
        let Some(tenant) = self.tenants.get_mut(index) else {
            return false;
        };
        tenant.ask_queued = false;
        if tenant.call.is_some() {
            return false;
        }
        let first = tenant.waiters.front();
        let need = first.map_or(Amount::ZERO, |waiter| match &waiter.rate {
            Some(rate) => rate.cost,
            None => UNRATED,
        });
        let (number, generation) = (self.number, self.generation);
        let basis = host::update(&tenant.slot_key(), |bytes| {
            if bytes.is_none() {
                let first = CallBasis {
                    stamp: String::new(),
                    want: least_want(need),
                    spent: Amount::ZERO,
                    refund: Amount::ZERO,
                    owe: Amount::ZERO,
                    fresh: false,
                };
                return (None, (!need.is_zero()).then_some(first));
            }
            let mut slot = Slot::decode(bytes);
            let basis = slot.start_call(number, need, generation, now_ns);
            (basis.as_ref().and_then(|_| slot.encode()), basis)
        });
        let Some(basis) = basis.flatten() else {
            return false;
        };
        self.queue_call(index, need, basis);
        true
    }

    /// A tenant that nobody has confirmed, and that is not asked for because whose request it was has
    /// left, must not take the place of one that is.
    fn forget_unasked(&mut self, index: Index) {
        let unasked = |tenant: &mut Tenant| !tenant.proven && tenant.is_idle();
        if self.tenants.get_mut(index).is_some_and(unasked) {
            self.tenants.remove(index);
        }
    }

    /// Gives a tenant's lease back when this gateway has no use for it.
    pub fn give_back(&mut self, index: Index, now_ns: u64) {
        let number = self.number;
        let Some(tenant) = self.tenants.get_mut(index).filter(|tenant| tenant.call.is_none())
        else {
            return;
        };
        let basis = host::update(&tenant.slot_key(), |bytes| {
            if bytes.is_none() {
                return (None, None);
            }
            let mut slot = Slot::decode(bytes);
            let basis = slot.start_refund(number, now_ns);
            (basis.as_ref().and_then(|_| slot.encode()), basis)
        });
        if let Some(basis) = basis.flatten() {
            self.queue_call(index, Amount::ZERO, basis);
            self.lease_calls.retries.push(index);
        }
    }

    fn queue_call(&mut self, index: Index, need: Amount, basis: CallBasis) {
        let Some(tenant) = self.tenants.get_mut(index) else {
            return;
        };
        self.lease_calls.last_number += 1;
        let ask = LeaseAsk {
            tenant: tenant.id.clone(),
            call: self.lease_calls.last_number,
            stamp: basis.stamp,
            need,
            want: basis.want.max(tenant.waiters.cost()),
            spent: basis.spent,
            refund: basis.refund,
            owe: basis.owe,
            fresh: basis.fresh,
        };
        let generation = self.generation;
        tenant.call =
            Some(Box::new(PendingCall { ask, generation, sent_ns: 0, retry_ns: 0, failures: 0 }));
    }

    fn send_leases(&mut self, indexes: &[Index], now_ns: u64) {
        let mut leases = Vec::with_capacity(indexes.len());
        let mut asked = Vec::with_capacity(indexes.len());
        for index in indexes {
            if let Some(call) = self.tenants.get_mut(*index).and_then(|tenant| tenant.call.as_mut())
            {
                call.sent_ns = now_ns;
                leases.push(call.ask.clone());
                asked.push(*index);
            }
        }
        let request = LeaseRequest {
            version: protocol::VERSION,
            gateway: self.gateway.clone(),
            worker: self.name.clone(),
            revision: self.refresher.revision(),
            leases,
        };
        self.stats.count(Counter::LeaseCalls);
        let body = serde_json::to_vec(&request).unwrap_or_default();
        match http_call::post(&self.config.control_plane, LEASES_PATH, &body) {
            Some(token) => {
                self.calls.insert(token, Call::Leases(asked));
            }
            None => self.lease_call_failed(asked, now_ns, "the call could not be made"),
        }
    }

    /// The answer to a call, or that there was none.
    pub fn on_leases(&mut self, asked: Vec<Index>, answer: &Answer, now_ns: u64) {
        let response = match answer.parse::<LeaseResponse>() {
            Ok(response) => response,
            Err(why) => return self.lease_call_failed(asked, now_ns, &why),
        };
        let mut answers = response.leases.into_iter();
        let mut unanswered = Vec::new();
        for index in asked {
            let answer = answers.next();
            match answer.filter(|answer| self.is_answer(index, answer)) {
                Some(answer) => self.on_lease(index, &answer, now_ns),
                None => unanswered.push(index),
            }
        }
        if !unanswered.is_empty() {
            self.lease_call_failed(
                unanswered,
                now_ns,
                "not every tenant that was asked for could be decided on",
            );
        }
    }

    fn is_answer(&mut self, index: Index, answer: &LeaseAnswer) -> bool {
        self.tenants
            .get_mut(index)
            .and_then(|tenant| tenant.call.as_ref())
            .is_some_and(|call| call.ask.tenant == answer.tenant && call.ask.call == answer.call)
    }

    fn lease_call_failed(&mut self, asked: Vec<Index>, now_ns: u64, why: &str) {
        self.stats.count(Counter::LeaseCallFailures);
        host::warn(&format!("weir: no leases from the control plane: {why}"));
        for index in asked {
            let Some(tenant) = self.tenants.get_mut(index) else {
                continue;
            };
            if let Some(call) = tenant.call.as_mut() {
                call.retry_ns = now_ns + http_call::backoff_ns(call.failures);
                call.failures += 1;
                self.lease_calls.retries.push(index);
                note_failure(&tenant.slot_key(), now_ns);
            }
        }
    }

    fn on_lease(&mut self, index: Index, answer: &LeaseAnswer, now_ns: u64) {
        let tells_limits = self.tells_limits();
        let Some(tenant) = self.tenants.get_mut(index) else {
            return;
        };
        let Some(call) = tenant.call.take() else {
            return;
        };
        if answer.state != TenantState::Active && call.sent_ns < tenant.changed_ns() {
            // Decided before a change that has been heard of since.
            return self.ask_for(index);
        }
        match answer.state {
            TenantState::Active => {
                tenant.activate();
                let changed_ns = tenant.changed_ns();
                let called = Called {
                    caller: self.number,
                    need: call.ask.need,
                    generation: call.generation,
                    sent_ns: call.sent_ns,
                    reads_plan: self.policy.reads_plan(),
                    tells_limits,
                };
                // What this worker left for others to say when it began to end has been heard.
                let heard =
                    if self.ending == Ending::Running { Amount::ZERO } else { call.ask.owe };
                let slot = host::update(&tenant.slot_key(), |bytes| {
                    let mut slot = Slot::decode(bytes);
                    slot.owed = slot.owed.saturating_sub(heard);
                    slot.apply(answer, &called, now_ns);
                    // The slot may have been made anew since that change was noted in it.
                    if call.sent_ns < changed_ns {
                        slot.invalidate(changed_ns.max(slot.changed_ns));
                    }
                    (slot.encode(), slot)
                });
                self.tenants.prove(index);
                self.list(index);
                if let Some(slot) = &slot {
                    self.see_renewal(index, slot);
                    self.watch_lease(index, slot, now_ns);
                }
                self.serve_waiters(index, now_ns);
                if slot.is_some_and(|slot| !slot.owed.is_zero()) {
                    self.ask_for(index);
                }
            }
            TenantState::Suspended => {
                tenant.suspend_until(now_ns + SUSPENDED_NS);
                tenant.surrender();
                let owes = clear_slot(&tenant.slot_key());
                self.tenants.prove(index);
                self.refuse_waiters(index, &Refused::Suspended);
                if owes {
                    self.ask_for(index);
                }
            }
            TenantState::Unknown => {
                let id = tenant.id.clone();
                if tenant.proven {
                    host::clear(&tenant.slot_key());
                }
                tenant.close_minute(&mut self.usage);
                self.refuse_waiters(index, &Refused::UnknownTenant);
                self.tenants.remove(index);
                self.tenants.add_stranger(&id, now_ns);
            }
        }
    }
}

/// Empties the slot, but for what is owed: whether that is anything, and so to be said first.
fn clear_slot(key: &str) -> bool {
    let owes = host::update(key, |bytes| {
        let owed = Slot::decode(bytes).owed;
        let left = Slot { owed, ..Slot::default() };
        if owed.is_zero() { (Some(Vec::new()), false) } else { (left.encode(), true) }
    });
    owes == Some(true)
}

/// Has all workers know that calls for this tenant fail.
fn note_failure(key: &str, now_ns: u64) {
    host::update(key, |bytes| {
        let mut slot = Slot::decode(bytes);
        if bytes.is_none() || slot.failing_ns != 0 {
            return (None, ());
        }
        slot.failing_ns = now_ns;
        (slot.encode(), ())
    });
}
