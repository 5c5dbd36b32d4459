//! Calls to the control plane, and answers in a form that tests compare.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::Value;

/// One API with a bearer token.
pub(crate) struct Api {
    client: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Api {
    pub(crate) fn new(client: &reqwest::Client, base: String, token: &str) -> Self {
        Self { client: client.clone(), base, token: Some(token.to_owned()) }
    }

    /// The same API with another token, or without one.
    pub(crate) fn with_token(&self, token: Option<&str>) -> Self {
        Self {
            client: self.client.clone(),
            base: self.base.clone(),
            token: token.map(str::to_owned),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer> {
        Answer::of(self.request(Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<Answer> {
        Answer::of(self.request(Method::DELETE, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        Answer::of(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<Answer> {
        Answer::of(self.request(Method::PUT, path).json(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Result<Answer> {
        Answer::of(self.request(Method::PATCH, path).json(body)).await
    }

    /// For bodies that are not JSON; send it with [`Answer::of`].
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// By lower-case name; the last one of a name.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) async fn of(request: reqwest::RequestBuilder) -> Result<Self> {
        let answer = request.send().await?;
        let headers = answer.headers().iter().map(|(name, value)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        let headers = headers.collect();
        Ok(Self { status: answer.status().as_u16(), headers, body: answer.text().await? })
    }

    /// The body of a 2xx answer, null without one; of any other, an error that shows it.
    pub(crate) fn ok(&self) -> Result<Value> {
        ensure!((200..300).contains(&self.status), "answered {}: {}", self.status, self.body);
        if self.body.is_empty() { Ok(Value::Null) } else { self.json() }
    }

    /// The body, whatever the status.
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not JSON: {}", self.body))
    }

    /// Empty without such a header.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}
