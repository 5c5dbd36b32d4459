//! What the two providers' answers look like when they are whole; `streams` has the others.

use serde_json::{Value, json};
use weir_domain::{llm::usage::TokenUsage, quantity::Quantity};

use super::{
    ask::{Api, Ask},
    script::Script,
};

/// A part of an answer that says something once it is whole: a body, or an event of a stream.
#[derive(Debug, Clone, Default)]
pub(super) struct Part {
    pub(super) bytes: Vec<u8>,
    /// Bytes of text that the model wrote.
    pub(super) text_bytes: u64,
    /// What it says of the prompt: input, and cached.
    pub(super) input: Option<(u64, u64)>,
    /// What it says that all was used, in the end.
    pub(super) usage: Option<TokenUsage>,
}

/// An answer before it has a shape.
pub(super) struct Reply<'a> {
    pub(super) ask: &'a Ask,
    pub(super) script: &'a Script,
    /// Tokens of the prompt, with those of the cache; and of those, the ones of the cache.
    pub(super) prompt: u64,
    pub(super) cached: u64,
    pub(super) output: u64,
}

/// Each token has three bytes, so that an estimate by bytes is never above what they are. Text has
/// what is special in JSON, and characters of several bytes.
pub(super) fn token(index: u64) -> &'static str {
    ["ab ", "é ", "界", "\n\"x", "c\\d"][(index % 5) as usize]
}

impl<'a> Reply<'a> {
    pub(super) fn new(ask: &'a Ask, script: &'a Script) -> Self {
        let prompt = script.prompt.unwrap_or_else(|| ask.prompt_tokens());
        let most = if script.beyond { u64::MAX } else { ask.most_output(u64::MAX / 1_000) };
        let (cached, output) = match ask.api {
            Api::Embeddings => (0, 0),
            _ => (script.cached.min(prompt), script.output.max(1).min(most)),
        };
        Self { ask, script, prompt, cached, output }
    }

    pub(super) fn input(&self) -> (u64, u64) {
        (self.prompt - self.cached, self.cached)
    }

    pub(super) fn usage(&self) -> TokenUsage {
        let (input, cached) = self.input();
        let [input, cached, output] = [input, cached, self.output].map(Quantity::clamped);
        TokenUsage { input, cached, output }
    }

    pub(super) fn text(&self) -> String {
        (0..self.output).map(token).collect()
    }

    /// As `usage` has it; null if it says nothing.
    pub(super) fn usage_json(&self) -> Value {
        if self.script.silent {
            return Value::Null;
        }
        let (prompt, cached, output) = (self.prompt, self.cached, self.output);
        match self.ask.api {
            Api::Chat | Api::Completions => json!({
                "prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output,
                "prompt_tokens_details": { "cached_tokens": cached, "audio_tokens": 0 },
                "completion_tokens_details": { "reasoning_tokens": 0, "audio_tokens": 0,
                    "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0 } }),
            Api::Responses => json!({
                "input_tokens": prompt, "input_tokens_details": { "cached_tokens": cached },
                "output_tokens": output, "output_tokens_details": { "reasoning_tokens": 0 },
                "total_tokens": prompt + output }),
            Api::Embeddings => json!({ "prompt_tokens": prompt, "total_tokens": prompt }),
            Api::Messages => self.anthropic_usage(output),
        }
    }

    pub(super) fn anthropic_usage(&self, output: u64) -> Value {
        let fresh = self.prompt - self.cached;
        let written = self.script.written.min(fresh);
        json!({ "input_tokens": fresh - written, "cache_creation_input_tokens": written,
            "cache_read_input_tokens": self.cached, "output_tokens": output,
            "cache_creation": { "ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0 },
            "service_tier": "standard" })
    }

    /// The whole body.
    pub(super) fn body(&self) -> Part {
        let (model, usage) = (&self.ask.model, self.usage_json());
        let said = (!self.script.silent).then(|| self.usage());
        let body = match self.ask.api {
            Api::Chat | Api::Completions => {
                json!({ "id": "call-1", "object": self.object(false), "created": 1_760_000_000,
                    "model": model, "choices": self.choices(), "usage": usage,
                    "service_tier": "default", "system_fingerprint": "fp_1" })
            }
            Api::Responses => self.response("completed", &usage),
            Api::Embeddings => json!({ "object": "list", "model": model, "usage": usage,
                "data": [{ "object": "embedding", "index": 0, "embedding": [0.25, -1.5e-3, 1.0] }] }),
            Api::Messages => json!({ "id": "msg_1", "type": "message", "role": "assistant",
                "model": model, "content": [{ "type": "text", "text": self.text() }],
                "stop_reason": "end_turn", "stop_sequence": null, "usage": usage }),
        };
        let mut body = body;
        if self.script.silent
            && let Some(fields) = body.as_object_mut()
        {
            fields.remove("usage");
        }
        Part {
            bytes: body.to_string().into_bytes(),
            text_bytes: 3 * self.output,
            input: said.is_some().then(|| self.input()),
            usage: said,
        }
    }

    pub(super) fn object(&self, is_chunk: bool) -> &'static str {
        match (self.ask.api, is_chunk) {
            (Api::Completions, _) => "text_completion",
            (_, true) => "chat.completion.chunk",
            (_, false) => "chat.completion",
        }
    }

    /// Each choice has its share of the tokens.
    fn choices(&self) -> Value {
        let choices = self.ask.choices * self.ask.prompts;
        let choice = |index: u64| {
            let text: String =
                (0..self.output).filter(|n| n % choices == index).map(token).collect();
            match self.ask.api {
                Api::Completions => {
                    json!({ "index": index, "text": text, "logprobs": null, "finish_reason": "stop" })
                }
                _ => json!({ "index": index, "logprobs": null, "finish_reason": "stop",
                    "message": { "role": "assistant", "content": text, "refusal": null,
                        "annotations": [] } }),
            }
        };
        (0..choices).map(choice).collect()
    }

    pub(super) fn response(&self, status: &str, usage: &Value) -> Value {
        let done = status == "completed";
        let text = json!([{ "type": "output_text", "text": self.text(), "annotations": [],
            "logprobs": [] }]);
        let message = json!({ "type": "message", "id": "msg_1", "status": status,
            "role": "assistant", "content": text });
        let output = if done { json!([message]) } else { json!([]) };
        json!({ "id": "resp_1", "object": "response", "created_at": 1_760_000_000, "status": status,
            "error": null, "incomplete_details": null, "instructions": null, "metadata": {},
            "max_output_tokens": self.ask.bound, "model": self.ask.model, "output": output,
            "parallel_tool_calls": true, "previous_response_id": null, "store": true,
            "reasoning": { "effort": null, "summary": null }, "temperature": 1.0, "top_p": 1.0,
            "text": { "format": { "type": "text" } }, "tool_choice": "auto", "tools": [],
            "truncation": "disabled", "user": null,
            "usage": if done { usage.clone() } else { Value::Null } })
    }
}
