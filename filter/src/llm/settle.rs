//! How a call of a language model is settled: by what its answer says, when that has come or can't come
//! any more.

use weir_domain::{llm::response::BodyKind, quantity::Amount};

use super::{
    call::{Answer, Reservation, Settlement},
    config::UpstreamErrors,
};
use crate::{host, slot::Slot, stats::Counter, tenant::Settled, worker::Worker};

impl Worker {
    /// The head of the answer to the request `context` has come.
    pub fn on_answer_head(&mut self, context: u32) {
        let Some(llm) = &self.config.llm else {
            return;
        };
        let Some(call) = self.model_calls.get_mut(&context) else {
            return;
        };
        if call.reservation.is_none() {
            return;
        }
        let header =
            |name| host::response_header(name).and_then(|value| String::from_utf8(value).ok());
        let status = header(":status").and_then(|status| status.parse().ok()).unwrap_or(0);
        let kind = header("content-type").and_then(|value| BodyKind::of_content_type(&value));
        let is_encoded = header("content-encoding")
            .is_some_and(|value| !value.is_empty() && !value.eq_ignore_ascii_case("identity"));
        let is_free = llm.upstream_errors == UpstreamErrors::Free;
        call.answer = Answer::of_head(status, kind, is_encoded, is_free);
    }

    /// A piece of that answer's body is here, `size` bytes; the last one, or not.
    pub fn on_answer_body(&mut self, context: u32, size: usize, is_last: bool) {
        let Some(call) = self.model_calls.get_mut(&context) else {
            return;
        };
        if size > 0 && call.answer.reads() {
            call.answer.feed(&host::response_body(size));
        }
        if is_last {
            self.settle_call(context);
        }
    }

    /// The request `context` is over, or all of its answer has come: what it took is counted, and what
    /// was reserved beyond that is free again.
    pub fn settle_call(&mut self, context: u32) {
        let Some(llm) = &self.config.llm else {
            return;
        };
        let Some(call) = self.model_calls.remove(&context) else {
            return;
        };
        let settlement = call.settlement(llm);
        let Some(reservation) = call.reservation else {
            return;
        };
        match settlement {
            Settlement::Reported(_) => {}
            Settlement::Estimated(_) => self.stats.count(Counter::SettledEstimated),
            Settlement::Free => self.stats.count(Counter::SettledFree),
        }
        let amount = settlement.amount();
        self.stats.add(Counter::AdmittedTokens, amount.tokens.get());
        let Reservation { tenant, minute, policy_version, .. } = &reservation;
        let (model, used) = (&call.asks.model, settlement.usage());
        self.usage.add_call(tenant, *minute, model, *policy_version, used);
        self.settle_reservation(&reservation, amount);
    }

    fn settle_reservation(&mut self, reservation: &Reservation, amount: Amount) {
        let now_ns = host::now_ns();
        let index = reservation.index;
        let Some(tenant) =
            self.tenants.get_mut(index).filter(|tenant| tenant.id == reservation.tenant)
        else {
            return;
        };
        let Settled { void, owes } =
            tenant.settle(reservation.amount, reservation.lease, amount, now_ns);
        let unleased = reservation.lease == 0;
        if !owes.is_zero() || (unleased && !void.is_zero()) {
            host::update(&tenant.slot_key(), |bytes| {
                if bytes.is_none() {
                    return (None, ());
                }
                let mut slot = Slot::decode(bytes);
                slot.owed = slot.owed.saturating_add(owes);
                if unleased {
                    // All of it was owed; what was said by now stays so.
                    slot.owed = slot.owed.saturating_sub(void);
                }
                (slot.encode(), ())
            });
            self.ask_for(index);
        }
        self.list(index);
    }

    /// Settles all calls as they stand: this worker ends.
    pub fn settle_all(&mut self) {
        let open: Vec<u32> = self.model_calls.keys().copied().collect();
        for context in open {
            self.settle_call(context);
        }
    }
}
