//! Texts that operators send, checked while they are parsed so that the error names the field.

use jiff::tz::TimeZone;
use serde::Deserialize;
use utoipa::ToSchema;

/// The longest name, in characters.
const MAX_NAME: usize = 200;

/// A name for people: 1 to 200 characters, no control characters.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(try_from = "String")]
pub struct Name(String);

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let text = text.trim();
        let characters = text.chars().count();
        if !(1..=MAX_NAME).contains(&characters) {
            return Err(format!(
                "a name has 1 to {MAX_NAME} characters, this one has {characters}"
            ));
        }
        if text.contains(char::is_control) {
            return Err("a name must not contain control characters".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

/// A time zone of the IANA database, as it is spelled there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(examples("Europe/Zurich"))]
pub struct ZoneName(String);

impl ZoneName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn utc() -> Self {
        Self("UTC".to_owned())
    }
}

impl TryFrom<String> for ZoneName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        TimeZone::get(&text)
            .ok()
            .filter(|zone| !zone.is_unknown())
            .and_then(|zone| zone.iana_name().map(|name| Self(name.to_owned())))
            .ok_or_else(|| {
                format!(
                    "{text:?} is not a time zone; use an IANA name such as UTC or Europe/Zurich"
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_iana_names_in_their_own_spelling() {
        let zone = |text: &str| ZoneName::try_from(text.to_owned()).map(|zone| zone.0);
        assert_eq!(zone("europe/zurich").as_deref(), Ok("Europe/Zurich"));
        assert_eq!(zone("UTC").as_deref(), Ok("UTC"));
        for text in ["", "Mars/Olympus", "Etc/Unknown", "+02:00", "CET-1CEST", "UTC\0", "../UTC"] {
            assert!(zone(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_trimmed_and_bounded() {
        let name = |text: &str| Name::try_from(text.to_owned()).map(|name| name.0);
        assert_eq!(name(" Acme ").as_deref(), Ok("Acme"));
        for text in ["", " ", "a\0b", &"x".repeat(201)] {
            assert!(name(text).is_err(), "{text}");
        }
    }
}
