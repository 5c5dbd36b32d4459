//! Lists in pages: `?limit=50&after=<cursor>` → `{"items":[…],"next":"<cursor>"|null}`.
//!
//! A handler asks the database for [`PageQuery::fetch`] rows behind [`PageQuery::after`], and hands
//! them to [`Page::new`] with the key by which they are ordered.

use std::{fmt::Display, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::problem::ApiError;

/// Which part of a list is asked for.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// The most items in the answer.
    #[serde(default)]
    #[param(value_type = Option<u16>, minimum = 1, maximum = 500, default = 50)]
    pub limit: PageLimit,
    /// The `next` of the page before; the first page without it.
    #[param(value_type = Option<String>)]
    pub after: Option<Cursor>,
}

impl PageQuery {
    /// How many rows to fetch: one more than the page holds tells whether there is another.
    pub fn fetch(&self) -> i64 {
        i64::from(self.limit.0) + 1
    }

    /// The key behind which the page starts.
    pub fn after<K: FromStr>(&self) -> Result<Option<K>, ApiError> {
        self.after.as_ref().map(Cursor::key).transpose()
    }
}

/// The most items in a page: 1 to 500.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub struct PageLimit(u16);

impl PageLimit {
    pub fn get(self) -> i64 {
        self.0.into()
    }
}

impl Default for PageLimit {
    fn default() -> Self {
        Self(50)
    }
}

impl TryFrom<String> for PageLimit {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.parse() {
            Ok(limit @ 1..=500) => Ok(Self(limit)),
            _ => Err(format!("{text:?} is not a page length; use 1 to 500")),
        }
    }
}

/// Where a page ends. Opaque to callers; in fact the key of its last item, in hex.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct Cursor(String);

impl Cursor {
    fn encode(key: &str) -> String {
        key.bytes().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The key that it was made from.
    pub fn key<K: FromStr>(&self) -> Result<K, ApiError> {
        self.decode().ok_or_else(|| {
            ApiError::field("after", "this is not a cursor; use the `next` of the page before")
        })
    }

    fn decode<K: FromStr>(&self) -> Option<K> {
        let bytes: Option<Vec<u8>> = self
            .0
            .as_bytes()
            .chunks(2)
            .map(|pair| {
                let digits = std::str::from_utf8(pair).ok()?;
                // The parser would also take a sign.
                if digits.len() != 2 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return None;
                }
                u8::from_str_radix(digits, 16).ok()
            })
            .collect();
        String::from_utf8(bytes?).ok()?.parse().ok()
    }
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// To be sent as `after` for the next page; null on the last one.
    #[schema(required)]
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// The page made of `rows`, of which there is one too many where another page follows.
    /// `key` is what the rows are ordered by, unique in the list.
    pub fn new<K: Display>(mut rows: Vec<T>, query: &PageQuery, key: impl Fn(&T) -> K) -> Self {
        let limit = usize::from(query.limit.0);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|row| Cursor::encode(&key(row).to_string()));
        Self { items: rows, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_the_last_key_and_nothing_else_is_one() {
        let query = PageQuery { limit: PageLimit(2), after: None };
        let page = Page::new(vec!["a", "b.ü", "c"], &query, |key| *key);
        assert_eq!(page.items, ["a", "b.ü"]);
        let cursor = Cursor(page.next.unwrap());
        assert_eq!(cursor.key::<String>().unwrap(), "b.ü");
        assert!(Page::new(vec!["a", "b"], &query, |key| *key).next.is_none());
        for text in ["6", "6g", "ÿ", "ff", "+1"] {
            assert!(Cursor(text.to_owned()).key::<String>().is_err(), "{text}");
        }
        assert!(Cursor::key::<i64>(&cursor).is_err());
    }
}
