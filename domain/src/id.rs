//! Ids that people choose: 1–64 characters of `A-Z a-z 0-9 . _ -`.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest id, in characters.
pub const MAX_LEN: usize = 64;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdError {
    #[error("an id must not be empty; use 1 to {MAX_LEN} characters of A-Z a-z 0-9 . _ -")]
    Empty,
    #[error("the id has {0} characters, at most {MAX_LEN} are allowed")]
    TooLong(usize),
    #[error("the character {0:?} is not allowed in an id; use A-Z a-z 0-9 . _ -")]
    Character(char),
}

/// Whether `text` is a well-formed id, without allocating.
pub fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if let Some(character) =
        text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
    {
        return Err(IdError::Character(character));
    }
    if text.len() > MAX_LEN {
        return Err(IdError::TooLong(text.len()));
    }
    Ok(())
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks `text`; the error says what is wrong with it.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                check(&text)?;
                Ok(Self(text.into_boxed_str()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.into_string()
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id_type! {
    /// Who is limited and billed.
    TenantId
}
id_type! {
    /// A versioned set of limits and prices.
    PlanId
}
id_type! {
    /// A rating policy.
    PolicyId
}
id_type! {
    /// The name of a limit, unique in its plan; it shows in `RateLimit` fields.
    LimitName
}
id_type! {
    /// The name of a credit, unique among the tenant's.
    CreditName
}
id_type! {
    /// What usage is counted on; `default` without a rating policy.
    Meter
}

impl Meter {
    /// Whether it is the one that usage is counted on where no policy names another.
    pub fn is_default(&self) -> bool {
        &*self.0 == DEFAULT_METER
    }
}

const DEFAULT_METER: &str = "default";

impl Default for Meter {
    fn default() -> Self {
        Self(DEFAULT_METER.into())
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn the_alphabet_and_the_length_are_enforced() {
        assert!(TenantId::new("acme.eu_1-a").is_ok());
        assert!(TenantId::new("a".repeat(64)).is_ok());
        assert_eq!(TenantId::new(""), Err(IdError::Empty));
        assert_eq!(TenantId::new("a".repeat(65)), Err(IdError::TooLong(65)));
        assert_eq!(TenantId::new("a/b"), Err(IdError::Character('/')));
        assert_eq!(TenantId::new("zoë"), Err(IdError::Character('ë')));
    }
}
