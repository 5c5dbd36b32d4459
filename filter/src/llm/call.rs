//! One call of a language model, from its body to its settlement. Pure.

use weir_domain::{
    id::TenantId,
    llm::{
        MAX_MODEL_BYTES,
        estimate::TokenEstimate,
        request::RequestFacts,
        response::{BodyKind, Ending, Reported, ResponseReader},
        usage::TokenUsage,
    },
    quantity::{Amount, Quantity},
};

use super::config::{LlmConfig, UpstreamErrors};
use crate::tenants::Index;

/// The most tokens that one call can count on one meter, about four billion: no model takes that much.
/// A batch of usage whose sum is no quantity any more would be put aside with all that is in it.
const MOST_TOKENS: u64 = 1 << 32;

/// A call under way. Kept by its worker under its request's number.
#[derive(Debug)]
pub struct ModelCall {
    /// Empty once the call was decided over.
    pub credential: Vec<u8>,
    /// How much of its body is held back.
    pub body_bytes: usize,
    pub asks: Asks,
    pub reservation: Option<Reservation>,
    pub answer: Answer,
}

/// What a call asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asks {
    /// Empty where it is not known.
    pub model: String,
    pub prompt_tokens: Quantity,
    pub output_tokens: Quantity,
}

/// What was taken for a call beforehand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    pub index: Index,
    pub tenant: TenantId,
    pub amount: Amount,
    /// The lease that it was taken from; 0 where there was none.
    pub lease: u64,
    /// When the call was admitted, by the control plane's clock.
    pub minute: i64,
    /// Of the policy that rated it.
    pub policy_version: u32,
}

/// What is known of a call's answer.
#[derive(Debug, Default)]
pub enum Answer {
    #[default]
    NotYet,
    /// An error of the upstream, which costs nothing unless it says otherwise.
    Free(Option<Box<ResponseReader>>),
    Read(Box<ResponseReader>),
    /// It cannot be read.
    Opaque,
}

/// What a call took, and how that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// The upstream says so.
    Reported(TokenUsage),
    /// From what came of the answer.
    Estimated(TokenUsage),
    Free,
}

impl Asks {
    /// All that a call can take at most, if it keeps to its bound.
    pub fn most(&self) -> Amount {
        let tokens = self.prompt_tokens.saturating_add(self.output_tokens);
        Amount { tokens, requests: Quantity::ONE }
    }

    /// By a body that was understood.
    pub fn of(facts: RequestFacts, config: &LlmConfig) -> Self {
        Self {
            prompt_tokens: facts.prompt_tokens(&config.estimate),
            output_tokens: facts.output_tokens(config.default_max_output_tokens),
            model: facts.model.unwrap_or_default(),
        }
    }

    /// By the length of a body that was not.
    pub fn of_length(bytes: u64, config: &LlmConfig) -> Self {
        Self {
            model: String::new(),
            prompt_tokens: config.estimate.text(bytes),
            output_tokens: config.default_max_output_tokens,
        }
    }

    /// With what a caller that is trusted says beside the body.
    pub fn told(mut self, told: Told) -> Self {
        if let Some(model) = told.model {
            self.model = model;
        }
        self.prompt_tokens = told.prompt_tokens.unwrap_or(self.prompt_tokens);
        self.output_tokens = told.max_output_tokens.unwrap_or(self.output_tokens);
        self
    }
}

/// What request headers say of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    pub model: Option<String>,
    pub prompt_tokens: Option<Quantity>,
    pub max_output_tokens: Option<Quantity>,
}

impl Told {
    /// The values of the headers; one that is not what it should be says nothing.
    pub fn by(model: Option<Vec<u8>>, prompt: Option<Vec<u8>>, output: Option<Vec<u8>>) -> Self {
        let text = |bytes: Option<Vec<u8>>| {
            bytes.and_then(|bytes| String::from_utf8(bytes).ok()).filter(|text| !text.is_empty())
        };
        let number = |bytes| Quantity::new(text(bytes)?.parse().ok()?).ok();
        Self {
            model: text(model).filter(|model| model.len() <= MAX_MODEL_BYTES),
            prompt_tokens: number(prompt),
            max_output_tokens: number(output),
        }
    }

    /// Whether the body has nothing to add.
    pub fn is_all(&self) -> bool {
        self.model.is_some() && self.prompt_tokens.is_some() && self.max_output_tokens.is_some()
    }
}

impl Answer {
    /// By an answer's head.
    pub fn of_head(status: u32, kind: Option<BodyKind>, is_encoded: bool, free: bool) -> Self {
        let reader = kind.filter(|_| !is_encoded).map(|kind| Box::new(ResponseReader::new(kind)));
        match (status >= 400, reader) {
            (true, reader) if free => Self::Free(reader),
            (_, Some(reader)) => Self::Read(reader),
            // What an error says, in whatever form, no model wrote.
            (true, None) => Self::NotYet,
            (false, None) => Self::Opaque,
        }
    }

    /// Reads the next piece.
    pub fn feed(&mut self, bytes: &[u8]) {
        if let Self::Read(reader) | Self::Free(Some(reader)) = self {
            reader.feed(bytes);
        }
    }

    /// Whether it is of use to feed it.
    pub fn reads(&self) -> bool {
        matches!(self, Self::Read(_) | Self::Free(Some(_)))
    }
}

impl ModelCall {
    /// What it took, as far as is known by now.
    pub fn settlement(&self, config: &LlmConfig) -> Settlement {
        let estimate = &config.estimate;
        match &self.answer {
            // Nobody answered. The upstream may have read the prompt.
            Answer::NotYet => Settlement::Estimated(self.estimated(&Reported::default(), estimate)),
            Answer::Free(reader) => {
                let said = reader.as_ref().and_then(|reader| credible(reader.report()).usage());
                said.map_or(Settlement::Free, Settlement::Reported)
            }
            Answer::Opaque => Settlement::Estimated(bounded(TokenUsage {
                input: self.asks.prompt_tokens,
                cached: Quantity::ZERO,
                output: self.asks.output_tokens,
            })),
            Answer::Read(reader) => {
                let report = credible(reader.report());
                let is_free = config.upstream_errors == UpstreamErrors::Free;
                match report.usage() {
                    Some(usage) => Settlement::Reported(usage),
                    None if report.ending == Ending::Failed && is_free => Settlement::Free,
                    None => Settlement::Estimated(self.estimated(&report, estimate)),
                }
            }
        }
    }

    fn estimated(&self, report: &Reported, estimate: &TokenEstimate) -> TokenUsage {
        bounded(report.usage_or_estimate(self.asks.prompt_tokens, estimate))
    }
}

/// An answer that says more than [`MOST_TOKENS`] says nothing of its usage.
fn credible(report: Reported) -> Reported {
    let said = [report.input, Some(report.cached), report.output];
    if said.into_iter().flatten().all(|tokens| tokens.get() <= MOST_TOKENS) {
        return report;
    }
    Reported { input: None, cached: Quantity::ZERO, output: None, complete: false, ..report }
}

fn bounded(usage: TokenUsage) -> TokenUsage {
    let most = Quantity::clamped(MOST_TOKENS);
    let TokenUsage { input, cached, output } = usage;
    TokenUsage { input: input.min(most), cached: cached.min(most), output: output.min(most) }
}

impl Settlement {
    pub fn usage(self) -> TokenUsage {
        match self {
            Self::Reported(usage) | Self::Estimated(usage) => usage,
            Self::Free => TokenUsage::default(),
        }
    }

    /// What the buckets are debited with. A call that costs no tokens is a request all the same.
    pub fn amount(self) -> Amount {
        let TokenUsage { input, cached, output } = self.usage();
        let tokens = input.saturating_add(cached).saturating_add(output);
        Amount { tokens, requests: Quantity::ONE }
    }
}
