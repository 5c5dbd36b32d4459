//! Tokens that a call used, in three meters that don't overlap, and how each API's numbers become
//! them.

use serde::{Deserialize, Serialize};

use crate::quantity::Quantity;

/// Tokens that one call used. Each token is in one of the three.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenUsage {
    /// Of the prompt, without `cached`; what was written to a cache is in here.
    pub input: Quantity,
    /// Of the prompt, read from a cache.
    pub cached: Quantity,
    /// Of the answer, with reasoning that the caller does not see.
    pub output: Quantity,
}

/// The numbers of `usage` objects, under the names that the APIs have for them. Those that are
/// absent, `null`, negative, past 2⁵³ − 1 or no whole numbers are `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub prompt_tokens: Option<Quantity>,
    pub completion_tokens: Option<Quantity>,
    pub total_tokens: Option<Quantity>,
    pub input_tokens: Option<Quantity>,
    pub output_tokens: Option<Quantity>,
    pub cache_read_input_tokens: Option<Quantity>,
    pub cache_creation_input_tokens: Option<Quantity>,
    /// `cached_tokens` in `prompt_tokens_details` or `input_tokens_details`.
    pub cached_tokens: Option<Quantity>,
    /// There is `input_tokens_details`, which OpenAI has and Anthropic has not.
    pub input_details: bool,
}

impl Counts {
    pub(super) const NONE: Self = Self {
        prompt_tokens: None,
        completion_tokens: None,
        total_tokens: None,
        input_tokens: None,
        output_tokens: None,
        cache_read_input_tokens: None,
        cache_creation_input_tokens: None,
        cached_tokens: None,
        input_details: false,
    };

    pub(super) fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// These and later ones of the same answer. All are totals up to then, so the larger counts:
    /// some upstreams say 0 at first, others in the end.
    pub(super) fn and_then(self, later: Self) -> Self {
        Self {
            prompt_tokens: self.prompt_tokens.max(later.prompt_tokens),
            completion_tokens: self.completion_tokens.max(later.completion_tokens),
            total_tokens: self.total_tokens.max(later.total_tokens),
            input_tokens: self.input_tokens.max(later.input_tokens),
            output_tokens: self.output_tokens.max(later.output_tokens),
            cache_read_input_tokens: self
                .cache_read_input_tokens
                .max(later.cache_read_input_tokens),
            cache_creation_input_tokens: self
                .cache_creation_input_tokens
                .max(later.cache_creation_input_tokens),
            cached_tokens: self.cached_tokens.max(later.cached_tokens),
            input_details: self.input_details | later.input_details,
        }
    }

    /// Tokens of the prompt: not from a cache, and from a cache.
    ///
    /// OpenAI's `prompt_tokens`, and its `input_tokens`, include the cached ones; Anthropic's
    /// `input_tokens` are those besides the cache. Gateways between the two send both kinds of
    /// names, and then `prompt_tokens` is OpenAI's sum.
    pub(super) fn input(&self) -> Option<(Quantity, Quantity)> {
        let of_openai = if self.input_details { self.input_tokens } else { None };
        if let Some(all) = self.prompt_tokens.or(of_openai) {
            // More cached tokens than tokens is a mistake; the sum stays the sum.
            let cached = self.cached_tokens.unwrap_or_default().min(all);
            return Some((all.saturating_sub(cached), cached));
        }
        let written = self.cache_creation_input_tokens.unwrap_or_default();
        let cached = self.cache_read_input_tokens.unwrap_or_default();
        Some((self.input_tokens?.saturating_add(written), cached))
    }

    /// Tokens of the answer. Embeddings have none, and say so by a total that is the prompt's.
    pub(super) fn output(&self) -> Option<Quantity> {
        let rest = || Some(self.total_tokens?.saturating_sub(self.prompt_tokens?));
        self.completion_tokens.or(self.output_tokens).or_else(rest)
    }
}
