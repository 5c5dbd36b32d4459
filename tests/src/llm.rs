//! Calls of language models: what a call may take is reserved before it passes, and settled by what the
//! upstream says that it took.
//!
//! [`Models`] is a Weir in front of [`upstream::LlmUpstream`], a stand-in for the providers, which does
//! what its caller says. [`books`] holds the ledger and the buckets against what it said; [`clients`]
//! calls with the clients that the providers publish, [`raw`] with bytes that no client sends.

mod aborts;
mod answers;
mod bodies;
mod books;
mod changes;
mod clients;
mod conservation;
mod headers;
mod limits;
mod pieces;
mod raw;
mod routes;
pub(crate) mod upstream;

use anyhow::{Context, Result, ensure};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use xtask::stack::Builder;

use self::upstream::LlmUpstream;
use crate::harness::{Fleet, monthly};

/// More than any test takes.
const CAPACITY: u64 = 50_000_000;
pub(crate) const CHAT: &str = "/v1/chat/completions";
pub(crate) const MESSAGES: &str = "/v1/messages";

/// A Weir that meters language models, and a stand-in for them behind it.
pub(crate) struct Models {
    pub(crate) fleet: Fleet,
    pub(crate) upstream: LlmUpstream,
}

impl Models {
    /// All that is below `/v1/` are calls; the fields of `llm` say what differs.
    pub(crate) async fn start(llm: Value) -> Result<Self> {
        Self::with(llm, |stack| stack).await
    }

    pub(crate) async fn with(
        llm: Value,
        change: impl FnOnce(Builder<'_>) -> Builder<'_>,
    ) -> Result<Self> {
        let upstream = LlmUpstream::start().await?;
        let port = upstream.port();
        let fleet = Fleet::with(|stack| {
            change(stack.upstream_port(port).models(configuration(llm)).concurrency(2))
        })
        .await?;
        Ok(Self { fleet, upstream })
    }

    /// Tenants with the limit `monthly` of [`CAPACITY`] tokens.
    pub(crate) async fn tenants(&self, ids: &[&str]) -> Result<()> {
        for id in ids {
            self.fleet.tenant(id, &[monthly(CAPACITY)], &[]).await?;
        }
        Ok(())
    }

    /// A call that is not sent yet; the upstream does what `script` says.
    pub(crate) fn call(
        &self,
        tenant: &str,
        path: &str,
        body: &Value,
        script: &Value,
    ) -> RequestBuilder {
        let call = self.fleet.request(Method::POST, path).header("x-tenant-id", tenant);
        call.header("x-llm-script", script.to_string()).json(body)
    }

    /// A stream that is held by the upstream after its first event, which has come.
    async fn hold(&self, tenant: &str, body: &Value, script: &Value) -> Result<Response> {
        let path = if body["model"] == CLAUDE { MESSAGES } else { CHAT };
        let mut script = script.clone();
        script["hold_after"] = json!(3);
        let mut response = self.call(tenant, path, body, &script).send().await?;
        ensure!(response.status() == 200, "{response:?}");
        response.chunk().await?.context("no first event")?;
        Ok(response)
    }
}

/// What `llm` is in tests, but for these fields.
fn configuration(fields: Value) -> Value {
    let mut llm = json!({ "routes": [{ "path_prefix": "/v1/" }] });
    if let (Some(llm), Value::Object(fields)) = (llm.as_object_mut(), fields) {
        llm.extend(fields);
    }
    llm
}

pub(crate) const GPT: &str = "gpt-5";
const CLAUDE: &str = "claude-opus-5";

/// A chat completion with so many output tokens at most.
pub(crate) fn chat(most: u64) -> Value {
    json!({ "model": GPT, "max_completion_tokens": most,
        "messages": [{ "role": "user", "content": "What does a weir do? Höchstens 10 Wörter." }] })
}

/// The same as a stream.
fn chat_stream(most: u64, include_usage: bool) -> Value {
    let mut body = chat(most);
    body["stream"] = json!(true);
    if include_usage {
        body["stream_options"] = json!({ "include_usage": true });
    }
    body
}

/// A message of Anthropic's, as a stream or not.
pub(crate) fn message(most: u64, stream: bool) -> Value {
    let mut body = chat(most);
    body["model"] = json!(CLAUDE);
    body["max_tokens"] = json!(most);
    body["stream"] = json!(stream);
    if let Some(fields) = body.as_object_mut() {
        fields.remove("max_completion_tokens");
    }
    body
}

/// What [`chat`] and [`message`] reserve for their prompt, as README.md says: 330 tokens in 1,000 bytes,
/// and 4 for the message.
pub(crate) const PROMPT: u64 = 19;
