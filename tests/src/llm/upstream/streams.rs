//! What the two providers' streams of server-sent events look like.

use serde_json::{Value, json};

use super::{
    ask::Api,
    shapes::{Part, Reply, token},
};

impl Reply<'_> {
    /// The events of a stream.
    pub(super) fn events(&self) -> Vec<Part> {
        let mut events = match self.ask.api {
            Api::Chat | Api::Completions | Api::Embeddings => self.chunks(),
            Api::Responses => self.response_events(),
            Api::Messages => self.message_events(),
        };
        if let Some(after) = self.script.fail_after {
            // In the text, and not behind the end.
            events.truncate(after.min(usize::try_from(self.output).unwrap_or(after)));
            events.push(self.event(&self.failure()));
        }
        events
    }

    fn event(&self, data: &Value) -> Part {
        self.event_with(data, 0)
    }

    fn event_with(&self, data: &Value, text_bytes: u64) -> Part {
        let end = if self.script.crlf { "\r\n" } else { "\n" };
        let name = data["type"].as_str().filter(|_| data["object"].is_null());
        let name = name.map_or(String::new(), |name| format!("event: {name}{end}"));
        let bytes = format!("{name}data: {data}{end}{end}").into_bytes();
        Part { bytes, text_bytes, ..Part::default() }
    }

    /// The last one that says what was used.
    fn last(&self, data: &Value) -> Part {
        let usage = (!self.script.silent).then(|| self.usage());
        Part { usage, input: usage.map(|_| self.input()), ..self.event(data) }
    }

    fn failure(&self) -> Value {
        let message = "The engine is overloaded; try again.";
        match self.ask.api {
            Api::Messages => json!({ "type": "error",
                "error": { "type": "overloaded_error", "message": message } }),
            Api::Responses => json!({ "type": "error", "code": "server_error", "message": message,
                "param": null, "sequence_number": 9 }),
            _ => json!({ "error": { "message": message, "type": "server_error", "param": null,
                "code": null } }),
        }
    }

    fn chunks(&self) -> Vec<Part> {
        let is_chat = self.ask.api == Api::Chat;
        let choices = self.ask.choices * self.ask.prompts;
        let says = self.ask.include_usage && !self.script.silent;
        let chunk = |choices: Value, usage: Value| {
            let mut chunk = json!({ "id": "call-1", "object": self.object(true),
                "created": 1_760_000_000, "model": self.ask.model, "choices": choices,
                "service_tier": "default", "system_fingerprint": "fp_1" });
            if self.ask.include_usage {
                chunk["usage"] = usage;
            }
            chunk
        };
        let choice = |index: u64, text: Option<&str>, finish: Option<&str>| match is_chat {
            true => json!([{ "index": index, "logprobs": null, "finish_reason": finish,
                "delta": text.map_or(json!({}), |text| json!({ "content": text })) }]),
            false => json!([{ "index": index, "logprobs": null, "finish_reason": finish,
                "text": text.unwrap_or_default() }]),
        };
        let mut events = Vec::new();
        if is_chat {
            let first = json!([{ "index": 0, "logprobs": null, "finish_reason": null,
                "delta": { "role": "assistant", "content": "", "refusal": null } }]);
            events.push(self.event(&chunk(first, Value::Null)));
        }
        for n in 0..self.output {
            let written = choice(n % choices, Some(token(n)), None);
            events.push(self.event_with(&chunk(written, Value::Null), 3));
        }
        for index in 0..choices {
            events.push(self.event(&chunk(choice(index, None, Some("stop")), Value::Null)));
        }
        if says {
            events.push(self.last(&chunk(json!([]), self.usage_json())));
        }
        let end = if self.script.crlf { "\r\n\r\n" } else { "\n\n" };
        let bytes = format!("data: [DONE]{end}").into_bytes();
        events.push(Part { bytes, ..Part::default() });
        events
    }

    fn response_events(&self) -> Vec<Part> {
        let usage = self.usage_json();
        let item = |status: &str, content: Value| {
            json!({ "type": "message", "id": "msg_1", "status": status, "role": "assistant",
                "content": content })
        };
        let part = |text: &str| json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] });
        let text = self.text();
        let at = |kind: &str, more: Value| {
            let mut event = json!({ "type": kind, "sequence_number": 1 });
            if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
                event.extend(more);
            }
            event
        };
        let of_part = |kind: &str, name: &str, value: Value| {
            at(
                kind,
                json!({ "item_id": "msg_1", "output_index": 0, "content_index": 0,
                "logprobs": [], name: value }),
            )
        };
        let of_item =
            |kind: &str, item: Value| at(kind, json!({ "output_index": 0, "item": item }));
        let begun = self.response("in_progress", &usage);
        let mut events: Vec<Part> = [
            at("response.created", json!({ "response": begun })),
            at("response.in_progress", json!({ "response": begun })),
            of_item("response.output_item.added", item("in_progress", json!([]))),
            of_part("response.content_part.added", "part", part("")),
        ]
        .iter()
        .map(|data| self.event(data))
        .collect();
        events.extend((0..self.output).map(|n| {
            self.event_with(&of_part("response.output_text.delta", "delta", json!(token(n))), 3)
        }));
        events.extend(
            [
                of_part("response.output_text.done", "text", json!(text)),
                of_part("response.content_part.done", "part", part(&text)),
                of_item("response.output_item.done", item("completed", json!([part(&text)]))),
            ]
            .iter()
            .map(|data| self.event(data)),
        );
        let response = self.response("completed", &usage);
        events.push(self.last(&at("response.completed", json!({ "response": response }))));
        events
    }

    fn message_events(&self) -> Vec<Part> {
        let mut start = json!({ "type": "message_start", "message": { "id": "msg_1",
            "type": "message", "role": "assistant", "model": self.ask.model, "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": self.anthropic_usage(1) } });
        let mut end = json!({ "type": "message_delta", "usage": { "output_tokens": self.output },
            "delta": { "stop_reason": "end_turn", "stop_sequence": null } });
        if self.script.silent {
            start["message"]["usage"] = json!({});
            end["usage"] = json!({});
        }
        let input = (!self.script.silent).then(|| self.input());
        let mut events = vec![
            Part { input, ..self.event(&start) },
            self.event(&json!({ "type": "content_block_start", "index": 0,
                "content_block": { "type": "text", "text": "" } })),
            self.event(&json!({ "type": "ping" })),
        ];
        events.extend((0..self.output).map(|n| {
            let delta = json!({ "type": "text_delta", "text": token(n) });
            let event = json!({ "type": "content_block_delta", "index": 0, "delta": delta });
            self.event_with(&event, 3)
        }));
        events.push(self.event(&json!({ "type": "content_block_stop", "index": 0 })));
        events.push(self.last(&end));
        events.push(self.event(&json!({ "type": "message_stop" })));
        events
    }
}
