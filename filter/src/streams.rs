//! Requests, as Envoy tells a worker of them: [`Worker::on_request_headers`],
//! [`Worker::on_response_headers`], [`Worker::forget_request`], and where bodies are read also
//! [`Worker::on_request_body`], [`Worker::on_request_trailers`] and [`Worker::on_answer_body`]. A request
//! has no object of its own: what must be known of one that waits, or whose answer is to say something,
//! is kept by its worker under its number.

use weir_domain::rate_limit_fields::{POLICY_FIELD, REMAINING_FIELD};

use crate::{
    config::{ExemptRule, Identity},
    host,
    llm::reserve::Head,
    refusal::{REASON_FIELD, Refused},
    stats::Counter,
    worker::{AnswerFields, Decision, Worker},
};

/// What becomes of a request for now.
pub enum Next {
    Pass,
    /// It is held back until its body has come.
    AwaitBody,
    /// It is held back until its worker has a [`Verdict`].
    Wait,
    Refuse(Refused),
}

/// What becomes of a request that waited.
pub enum Verdict {
    Pass,
    Refuse(Refused),
    /// It is to be looked at on the thread of its stream: what it costs follows from what it says.
    Look,
}

impl Worker {
    #[inline]
    pub fn on_request_headers(&mut self, context: u32, is_last: bool) -> Next {
        if !self.config.exempt.is_empty() && is_exempt(self) {
            self.stats.count(Counter::Exempt);
            return Next::Pass;
        }
        let Identity::Header { name } = &self.config.identity;
        let credential = host::request_header(name).filter(|credential| !credential.is_empty());
        let decision = match credential {
            None => Decision::Refuse(Refused::MissingCredential),
            Some(credential) => {
                let head =
                    if is_last { Head::Other } else { self.begin_call(context, &credential) };
                match head {
                    Head::Held => return Next::AwaitBody,
                    Head::Refused(refused) => Decision::Refuse(refused),
                    Head::Other => self.decide(context, &credential),
                }
            }
        };
        self.carry_out(context, decision)
    }

    #[inline]
    fn carry_out(&mut self, context: u32, decision: Decision) -> Next {
        #[cfg(feature = "trap")]
        crate::trap::on_request(self);
        match decision {
            Decision::Admit(None) => Next::Pass,
            other => self.carry_out_slowly(context, other),
        }
    }

    /// Not inlined, like all that few requests come to: the fewer lines of code almost all of them
    /// touch, the less they wait for memory.
    #[inline(never)]
    fn carry_out_slowly(&mut self, context: u32, decision: Decision) -> Next {
        match decision {
            Decision::Admit(None) => Next::Pass,
            Decision::Admit(Some(fields)) => {
                self.answers.insert(context, fields);
                Next::Pass
            }
            Decision::Wait(index) => {
                self.paused.insert(context, index);
                Next::Wait
            }
            Decision::Refuse(refused) if self.note_refusal(&refused) => Next::Refuse(refused),
            Decision::Refuse(_) => Next::Pass,
        }
    }

    /// A piece of the body is here: with what was held back of it, `size` bytes.
    pub fn on_request_body(&mut self, context: u32, size: usize, is_last: bool) -> Next {
        if self.awaits_body(context) {
            return match self.decide_call(context, size, is_last) {
                Some(decision) => self.carry_out(context, decision),
                None => Next::AwaitBody,
            };
        }
        if self.paused.contains_key(&context) { Next::Wait } else { Next::Pass }
    }

    /// All of the body is here, and what comes after it.
    pub fn on_request_trailers(&mut self, context: u32) -> Next {
        let size = self.size_of_body(context).unwrap_or_default();
        self.on_request_body(context, size, true)
    }

    pub fn on_response_headers(&mut self, context: u32) {
        self.on_answer_head(context);
        match self.answers.remove(&context) {
            Some(AnswerFields::RateLimit { policy, remaining }) => {
                host::set_response_header(POLICY_FIELD, &policy);
                host::set_response_header(REMAINING_FIELD, &remaining);
            }
            Some(AnswerFields::Unleased(unleased)) => {
                host::set_response_header(REASON_FIELD, unleased.reason());
            }
            None => {}
        }
    }
}

#[inline(never)]
fn is_exempt(worker: &Worker) -> bool {
    let rules = &worker.config.exempt;
    // Each header costs; mostly rules name a path alone.
    let value = |is_named: bool, name| is_named.then(|| host::request_header(name)).flatten();
    let method = value(rules.iter().any(|rule| rule.method.is_some()), ":method");
    let path = value(rules.iter().any(ExemptRule::names_path), ":path");
    let (method, path) =
        (method.as_deref().unwrap_or_default(), path.as_deref().unwrap_or_default());
    rules.iter().any(|rule| rule.matches(method, path))
}
