//! What a call asks for, as a provider reads it. On purpose not by the code that is tested.

use anyhow::{Context, Result};
use serde_json::Value;

/// Which call it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    Chat,
    Completions,
    Responses,
    Embeddings,
    /// Anthropic's.
    Messages,
}

#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) api: Api,
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    /// The most tokens of one answer.
    pub(crate) bound: Option<u64>,
    /// Answers for each prompt, and prompts.
    pub(crate) choices: u64,
    pub(crate) prompts: u64,
    /// Bytes of the prompt's text, and messages.
    pub(crate) prompt_bytes: u64,
    pub(crate) messages: u64,
}

impl Api {
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        [
            ("/chat/completions", Self::Chat),
            ("/completions", Self::Completions),
            ("/responses", Self::Responses),
            ("/embeddings", Self::Embeddings),
            ("/messages", Self::Messages),
        ]
        .into_iter()
        .find(|(end, _)| path.ends_with(end))
        .map(|(_, api)| api)
    }
}

impl Ask {
    pub(crate) fn read(api: Api, body: &[u8]) -> Result<Self> {
        let body: Value = serde_json::from_slice(body)?;
        let fields = body.as_object().context("it is no object")?;
        let text = |name: &str| fields.get(name).map_or(0, text_bytes);
        let list = |name: &str| fields.get(name).and_then(Value::as_array);
        let objects = |name: &str| {
            list(name).map_or(0, |items| items.iter().filter(|item| item.is_object()).count())
        };
        let number = |name: &str| fields.get(name).and_then(Value::as_u64);
        let bounds = ["max_tokens", "max_completion_tokens", "max_output_tokens"].map(number);
        Ok(Self {
            api,
            model: fields.get("model").and_then(Value::as_str).unwrap_or_default().to_owned(),
            stream: fields.get("stream").and_then(Value::as_bool).unwrap_or(false),
            include_usage: body["stream_options"]["include_usage"].as_bool().unwrap_or(false),
            bound: bounds.into_iter().flatten().max(),
            choices: number("n").unwrap_or(1),
            prompts: list("prompt").map_or(1, |prompts| prompts.len() as u64),
            prompt_bytes: ["messages", "system", "input", "instructions", "prompt"]
                .map(text)
                .iter()
                .sum(),
            messages: (objects("messages") + objects("input")) as u64,
        })
    }

    /// Tokens of the prompt as this stand-in counts them: a few less than are estimated.
    pub(crate) fn prompt_tokens(&self) -> u64 {
        self.prompt_bytes.div_ceil(4) + 3 * self.messages
    }

    /// Tokens of the prompt as README.md says that they are estimated.
    pub(crate) fn estimated_prompt(&self) -> u64 {
        estimated(self.prompt_bytes) + 4 * self.messages
    }

    /// The most tokens that its answers may have.
    pub(crate) fn most_output(&self, default: u64) -> u64 {
        match self.api {
            Api::Embeddings => 0,
            _ => self.bound.unwrap_or(default) * self.choices * self.prompts,
        }
    }
}

/// Tokens of a text of so many bytes, as README.md says that they are estimated: 330 in 1,000 bytes.
pub(crate) fn estimated(bytes: u64) -> u64 {
    (bytes * 330).div_ceil(1_000)
}

/// Of what a model reads in the value of a field.
fn text_bytes(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.len() as u64,
        Value::Array(items) => items.iter().map(text_bytes).sum(),
        Value::Object(fields) => {
            let read = ["content", "text"].into_iter().filter_map(|name| fields.get(name));
            read.map(text_bytes).sum()
        }
        _ => 0,
    }
}
