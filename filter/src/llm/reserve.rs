//! How a call of a language model is decided over: its body is read, and what it may take at most is
//! reserved before it passes.

use std::borrow::Cow;

use weir_domain::{
    llm::{include_usage::including_usage, request::RequestFacts},
    quantity::Quantity,
};

use super::{
    call::{Answer, Asks, ModelCall, Reservation, Told},
    config::{LlmConfig, Unreadable},
};
use crate::{
    host::{self, remove_request_header, request_header},
    rating::Rate,
    refusal::Refused,
    stats::Counter,
    tenants::Index,
    worker::{Decision, Worker},
};

/// The most calls under way in one worker: each takes a few KB.
const MAX_CALLS: usize = 10_000;

const MODEL_FIELD: &str = "x-weir-model";
const PROMPT_FIELD: &str = "x-weir-prompt-tokens";
const OUTPUT_FIELD: &str = "x-weir-max-output-tokens";

/// What becomes of the headers of a request.
pub enum Head {
    /// It is no call of a model.
    Other,
    /// It is held back until its body has come.
    Held,
    Refused(Refused),
}

impl Worker {
    /// Whether the request `context`, of which a body will come, is a call; then its body is awaited.
    pub fn begin_call(&mut self, context: u32, credential: &[u8]) -> Head {
        let Some(llm) = &self.config.llm else {
            return Head::Other;
        };
        // The body of an upgraded connection never ends.
        let is_post = || request_header(":method").is_some_and(|method| *method == *b"POST");
        if !(request_header(":path").is_some_and(|path| llm.covers(&path)) && is_post()) {
            return Head::Other;
        }
        if self.model_calls.len() >= MAX_CALLS {
            return Head::Refused(Refused::Overloaded);
        }
        if said_length().is_some_and(|length| length > llm.max_body_bytes)
            && llm.unreadable == Unreadable::Refuse
            && !(llm.trust_headers && told().is_all())
        {
            return Head::Refused(Refused::BodyTooLarge);
        }
        // Or the answer may come in a coding that is not read here.
        remove_request_header("accept-encoding");
        if !llm.trust_headers {
            for name in [MODEL_FIELD, PROMPT_FIELD, OUTPUT_FIELD] {
                remove_request_header(name);
            }
        }
        self.stats.count(Counter::ModelCalls);
        let call = ModelCall {
            credential: credential.to_vec(),
            body_bytes: 0,
            asks: Asks::default(),
            reservation: None,
            answer: Answer::NotYet,
        };
        self.model_calls.insert(context, call);
        Head::Held
    }

    /// Whether the body of the request `context` is awaited.
    pub fn awaits_body(&self, context: u32) -> bool {
        self.model_calls.get(&context).is_some_and(|call| !call.credential.is_empty())
    }

    /// How much of that body has come.
    pub fn size_of_body(&self, context: u32) -> Option<usize> {
        self.model_calls.get(&context).map(|call| call.body_bytes)
    }

    /// Decides over a call of whose body `size` bytes are here, `whole` or not; `None` while more of it
    /// is awaited.
    pub fn decide_call(&mut self, context: u32, size: usize, whole: bool) -> Option<Decision> {
        let llm = self.config.llm.as_ref()?;
        if !whole && size <= llm.max_body_bytes {
            self.model_calls.get_mut(&context)?.body_bytes = size;
            return None;
        }
        let asks = match read_body(llm, size, whole) {
            Ok(asks) => asks,
            Err(refused) => {
                self.model_calls.remove(&context);
                return Some(Decision::Refuse(refused));
            }
        };
        let call = self.model_calls.get_mut(&context)?;
        let credential = std::mem::take(&mut call.credential);
        call.asks = asks;
        Some(self.decide(context, &credential))
    }

    /// Turns what was just taken for the request `context` into a reservation, if it is a call.
    pub fn reserve(&mut self, context: u32, index: Index, rate: &Rate, is_leased: bool) -> bool {
        let Some(call) = self.model_calls.get_mut(&context) else {
            return false;
        };
        let Some(tenant) = self.tenants.get_mut(index) else {
            return false;
        };
        let amount = rate.cost;
        let minute = tenant.reserve(amount, is_leased);
        call.reservation = Some(Reservation {
            index,
            tenant: tenant.id.clone(),
            amount,
            lease: if is_leased { tenant.lease } else { 0 },
            minute,
            policy_version: rate.policy_version,
        });
        true
    }
}

/// What the call asks for whose body is at hand, or why it is refused.
fn read_body(llm: &LlmConfig, size: usize, whole: bool) -> Result<Asks, Refused> {
    let told = if llm.trust_headers { told() } else { Told::default() };
    let by_length = |refused| match llm.unreadable {
        Unreadable::Refuse => Err(refused),
        // The rest of it may still be to come.
        Unreadable::Pass => {
            Ok(Asks::of_length(said_length().unwrap_or_default().max(size) as u64, llm))
        }
    };
    let asks = if told.is_all() {
        Ok(Asks::default())
    } else if !whole || size > llm.max_body_bytes {
        by_length(Refused::BodyTooLarge)
    } else if !is_json() {
        by_length(Refused::BodyUnreadable("its content-type is not application/json".to_owned()))
    } else {
        let body = host::request_body(size);
        match RequestFacts::read(&body) {
            Ok(facts) => {
                if llm.include_usage && facts.stream && !facts.include_usage {
                    include_usage(&body);
                }
                let mut asks = Asks::of(facts, llm);
                if path_ends_with(b"/embeddings") {
                    // They have no bound on the output, and no output.
                    asks.output_tokens = Quantity::ZERO;
                }
                Ok(asks)
            }
            Err(error) => by_length(Refused::BodyUnreadable(error.to_string())),
        }
    };
    asks.map(|asks| asks.told(told))
}

/// What the caller says that the length of the body is, in bytes.
fn said_length() -> Option<usize> {
    let length = request_header("content-length")?;
    std::str::from_utf8(&length).ok()?.parse().ok()
}

fn told() -> Told {
    let [model, prompt, output] =
        [MODEL_FIELD, PROMPT_FIELD, OUTPUT_FIELD].map(|name| request_header(name).map(Vec::from));
    Told::by(model, prompt, output)
}

fn is_json() -> bool {
    request_header("content-type").is_some_and(|value| {
        let media_type = value.split(|byte| *byte == b';').next().unwrap_or_default();
        media_type.trim_ascii().eq_ignore_ascii_case(b"application/json")
    })
}

/// Whether the path, without its query, ends so.
fn path_ends_with(end: &[u8]) -> bool {
    request_header(":path").is_some_and(|path| {
        path.split(|byte| *byte == b'?').next().is_some_and(|bare| bare.ends_with(end))
    })
}

/// Asks an OpenAI stream for its usage; others refuse the option.
fn include_usage(body: &[u8]) {
    if !path_ends_with(b"/completions") {
        return;
    }
    if let Ok(Cow::Owned(including)) = including_usage(body) {
        let length = including.len().to_string();
        host::set_request_body(body.len(), &including);
        if request_header("content-length").is_some() {
            host::set_request_header("content-length", &length);
        }
    }
}
