//! Tokens of a text that nobody has counted. Each model cuts text in its own way; the estimate is
//! meant to be on the high side, since what was reserved too much comes back.

use serde::{Deserialize, Serialize};

use crate::quantity::Quantity;

/// How many tokens a text is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenEstimate {
    /// Tokens in 1,000 bytes of UTF-8, rounded up over the whole text. English prose has about 250,
    /// code and most other languages 300 to 400. Bytes count, not characters, because scripts with
    /// longer characters also have more tokens in each.
    pub tokens_per_1000_bytes: u32,
    /// What a message costs beside its text.
    pub tokens_per_message: u32,
    /// What an image, a recording or a file costs that is part of the prompt, whatever its size.
    pub tokens_per_media: u32,
}

impl Default for TokenEstimate {
    fn default() -> Self {
        Self { tokens_per_1000_bytes: 330, tokens_per_message: 4, tokens_per_media: 1_600 }
    }
}

impl TokenEstimate {
    /// Tokens of a text of `bytes` bytes.
    pub fn text(&self, bytes: u64) -> Quantity {
        let tokens = (u128::from(bytes) * u128::from(self.tokens_per_1000_bytes)).div_ceil(1_000);
        Quantity::clamped(u64::try_from(tokens).unwrap_or(u64::MAX))
    }

    /// Tokens of `messages` messages without their text.
    pub fn messages(&self, messages: u64) -> Quantity {
        Quantity::clamped(messages.saturating_mul(self.tokens_per_message.into()))
    }

    /// Tokens of `media` images, recordings and files.
    pub fn media(&self, media: u64) -> Quantity {
        Quantity::clamped(media.saturating_mul(self.tokens_per_media.into()))
    }
}
