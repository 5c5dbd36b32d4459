//! Which models a price is for.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest pattern, in characters; usage keeps no longer name of a model.
const MAX_LEN: usize = 128;

/// A model's name, or the beginning of names: `gpt-4o`, or `gpt-4*`.
///
/// Usage without a model's name matches no pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelPattern(String);

/// Why a text is not a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ModelPatternError {
    #[error("a model pattern has 1 to {MAX_LEN} characters, this one has {0}")]
    Length(usize),
    #[error("a model pattern must not contain control characters")]
    Control,
    #[error("a model pattern may have one * at its end, and none elsewhere")]
    Star,
    #[error("* alone would be every model; leave `model` out for that")]
    Everything,
}

impl ModelPattern {
    /// Checks `text`; the error says what is wrong with it.
    pub fn new(text: impl Into<String>) -> Result<Self, ModelPatternError> {
        let text = text.into();
        let characters = text.chars().count();
        if !(1..=MAX_LEN).contains(&characters) {
            return Err(ModelPatternError::Length(characters));
        }
        if text.contains(char::is_control) {
            return Err(ModelPatternError::Control);
        }
        match text.find('*') {
            Some(0) if text.len() == 1 => Err(ModelPatternError::Everything),
            Some(place) if place + 1 < text.len() => Err(ModelPatternError::Star),
            _ => Ok(Self(text)),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it names `model`. Upper and lower case differ.
    pub fn matches(&self, model: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => model.starts_with(prefix),
            None => model == self.0,
        }
    }

    /// Of two patterns that match the same model, the greater one is more specific: an exact name
    /// before a beginning, a longer beginning before a shorter one. Only equal patterns are equal.
    pub fn specificity(&self) -> impl Ord + use<> {
        (!self.0.ends_with('*'), self.0.len())
    }
}

impl TryFrom<String> for ModelPattern {
    type Error = ModelPatternError;

    fn try_from(text: String) -> Result<Self, ModelPatternError> {
        Self::new(text)
    }
}

impl From<ModelPattern> for String {
    fn from(pattern: ModelPattern) -> String {
        pattern.0
    }
}

impl fmt::Display for ModelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn one_star_at_the_end_at_most() {
        for text in ["gpt-4o", "gpt-4*", "meta/llama 3:70b", "ü*", &"x".repeat(128)] {
            assert!(ModelPattern::new(text).is_ok(), "{text}");
        }
        for (text, error) in [
            ("", ModelPatternError::Length(0)),
            (&"x".repeat(129), ModelPatternError::Length(129)),
            ("a\nb", ModelPatternError::Control),
            ("*", ModelPatternError::Everything),
            ("*gpt", ModelPatternError::Star),
            ("g*t*", ModelPatternError::Star),
            ("gpt**", ModelPatternError::Star),
        ] {
            assert_eq!(ModelPattern::new(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_pattern_is_a_name_or_its_beginning() {
        let matches = |pattern: &str, model| ModelPattern::new(pattern).unwrap().matches(model);
        assert!(matches("gpt-4*", "gpt-4") && matches("gpt-4*", "gpt-4o-mini"));
        assert!(matches("gpt-4", "gpt-4") && !matches("gpt-4", "gpt-4o"));
        assert!(!matches("gpt-4*", "gpt-3") && !matches("gpt-4*", "") && !matches("gpt*", "GPT-4"));
    }

    #[test]
    fn exact_before_longer_before_shorter() {
        let rank = |pattern: &str| ModelPattern::new(pattern).unwrap().specificity();
        assert!(rank("gpt-4o") > rank("gpt-4o*"));
        assert!(rank("a") > rank("gpt-4o-mini*"));
        assert!(rank("gpt-4*") > rank("gpt-*"));
    }
}
