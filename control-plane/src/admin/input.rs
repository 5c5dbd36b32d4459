//! Texts that operators send, checked while they are parsed so that the error names the field.

use jiff::tz::TimeZone;
use serde::Deserialize;
use utoipa::ToSchema;

/// The longest name, in characters.
const MAX_NAME: usize = 200;
/// The most lines of a text.
const MAX_LINES: usize = 20;

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

/// Text in lines, such as an address: at most 20 lines of 200 characters. May be empty.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(try_from = "String")]
pub struct Lines(String);

impl Lines {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Lines {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let lines: Vec<_> = text.trim().lines().map(str::trim).collect();
        if lines.len() > MAX_LINES {
            return Err(format!("it has {} lines; use {MAX_LINES} at most", lines.len()));
        }
        if lines.iter().any(|line| line.chars().count() > MAX_NAME) {
            return Err(format!("a line has {MAX_NAME} characters at most"));
        }
        if lines.iter().any(|line| line.contains(char::is_control)) {
            return Err("it must not contain control characters other than line ends".to_owned());
        }
        Ok(Self(lines.join("\n")))
    }
}

/// The longest email address, in characters (RFC 5321).
const MAX_EMAIL: usize = 254;

/// An email address, as far as it can be checked without writing to it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(try_from = "String")]
pub struct Email(String);

impl Email {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Email {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parts = text.split_once('@');
        let whole = parts.is_some_and(|(local, host)| {
            !local.is_empty() && !host.is_empty() && !host.contains('@')
        });
        let odd = |one: char| one.is_whitespace() || one.is_control();
        if !whole || text.contains(odd) || text.chars().count() > MAX_EMAIL {
            return Err(format!("{text:?} is not an email address"));
        }
        Ok(Self(text))
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
    fn lines_are_trimmed_and_bounded() {
        let lines = |text: &str| Lines::try_from(text.to_owned()).map(|lines| lines.0);
        assert_eq!(lines(" a \r\n b\n\nc\n").as_deref(), Ok("a\nb\n\nc"));
        assert_eq!(lines("").as_deref(), Ok(""));
        for text in [&"x\n".repeat(MAX_LINES + 1), &"x".repeat(MAX_NAME + 1), "a\tb", "a\0b"] {
            assert!(lines(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn email_addresses_have_two_parts() {
        let email = |text: &str| Email::try_from(text.to_owned()).map(|email| email.0);
        assert_eq!(email("billing@acme.example").as_deref(), Ok("billing@acme.example"));
        for text in ["", "acme", "@acme", "acme@", "a@b@c", "a b@c", "a@b\n", &"x@".repeat(200)] {
            assert!(email(text).is_err(), "{text}");
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
