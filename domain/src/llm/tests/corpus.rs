//! Bodies in the shapes of the public API references.

use proptest::prelude::*;

pub(super) const CHAT_REQUEST: &str = r#"{
  "model": "gpt-4o-mini", "stream": true, "stream_options": {"include_usage": true},
  "max_completion_tokens": 256, "n": 2, "temperature": 0.7, "user": "u-1",
  "messages": [
    {"role": "system", "content": "You are terse."},
    {"role": "user", "content": [
      {"type": "text", "text": "What is in this image?"},
      {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}}
    ]},
    {"role": "assistant", "content": null, "tool_calls": [
      {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{\"at\":\"sky\"}"}}
    ]},
    {"role": "tool", "tool_call_id": "call_1", "content": "Blue."}
  ],
  "tools": [{"type":"function","function":{"name":"look","parameters":{"type":"object","required":["at"]}}}]
}"#;

pub(super) const COMPLETION_REQUEST: &str = r#"{"model":"gpt-3.5-turbo-instruct","prompt":["Say this is a test","Say it again"],"max_tokens":7,"n":1,"best_of":3,"suffix":"."}"#;

pub(super) const RESPONSES_REQUEST: &str = r#"{"model":"gpt-4.1","instructions":"Be kind.","input":[
  {"role":"user","content":[{"type":"input_text","text":"Sum up the file."},
    {"type":"input_file","filename":"a.pdf","file_data":"data:application/pdf;base64,JVBERi0="},
    {"type":"input_image","image_url":"https://example.com/cat.png","detail":"auto"}]},
  {"type":"function_call_output","call_id":"call_2","output":"42"}],
  "max_output_tokens":1000,"stream":false,"text":{"format":{"type":"text"}}}"#;

pub(super) const EMBEDDINGS_REQUEST: &str = r#"{"model":"text-embedding-3-small","input":["The food was delicious","Ça va"],"encoding_format":"float"}"#;

pub(super) const MESSAGES_REQUEST: &str = r#"{"model":"claude-sonnet-4-5","max_tokens":1024,"stream":true,
  "system":[{"type":"text","text":"Answer in verse.","cache_control":{"type":"ephemeral"}}],
  "messages":[
    {"role":"user","content":[
      {"type":"image","source":{"type":"base64","media_type":"image/jpeg","data":"/9j/4AAQSkZJRg=="}},
      {"type":"document","source":{"data":"Plain words.","media_type":"text/plain","type":"text"},"title":"T"},
      {"type":"text","text":"Hello, Claude"}]},
    {"role":"assistant","content":[{"type":"thinking","thinking":"Hm.","signature":"EqQBCg=="},
      {"type":"tool_use","id":"toolu_1","name":"get_weather","input":{"city":"Bern","days":3}}]},
    {"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_1","content":"15 degrees"}]}]}"#;

pub(super) const CHAT_ANSWER: &str = r#"{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion",
"created":1741569952,"model":"gpt-4.1-2025-04-14","choices":[{"index":0,"message":{"role":"assistant",
"content":"Hello! How can I assist you today?","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],
"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,
"prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0},
"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},
"service_tier":"default"}"#;

pub(super) const RESPONSES_ANSWER: &str = r#"{"id":"resp_67cc","object":"response","created_at":1741476542,"status":"completed",
"error":null,"incomplete_details":null,"instructions":null,"model":"gpt-4.1-2025-04-14","output":[{"type":"message","id":"msg_67",
"status":"completed","role":"assistant","content":[{"type":"output_text","text":"In a peaceful grove","annotations":[]}]}],
"text":{"format":{"type":"text"}},"usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":30},"output_tokens":87,
"output_tokens_details":{"reasoning_tokens":0},"total_tokens":123},"user":null,"metadata":{"usage":{"input_tokens":9}}}"#;

pub(super) const EMBEDDINGS_ANSWER: &str = r#"{"object":"list","data":[{"object":"embedding","embedding":[0.0023064255,-0.009327292,-1.5e-3],"index":0}],
"model":"text-embedding-ada-002","usage":{"prompt_tokens":8,"total_tokens":8}}"#;

pub(super) const MESSAGES_ANSWER: &str = r#"{"id":"msg_013Zva2CMHLNnXjNJJKqJ2EF","type":"message","role":"assistant","model":"claude-sonnet-4-5-20250929",
"content":[{"type":"text","text":"Hi! My name is Claude."},{"type":"tool_use","id":"toolu_1","name":"f","input":{"a":["bc"],"d":{"e":"f"}}}],
"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":2095,"cache_creation_input_tokens":200,"cache_read_input_tokens":1000,
"cache_creation":{"ephemeral_5m_input_tokens":200,"ephemeral_1h_input_tokens":0},"output_tokens":503,"service_tier":"standard"}}"#;

pub(super) const CHAT_STREAM: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n\
data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Héllo\"},\"finish_reason\":null}],\"usage\":null,\"obfuscation\":\"2c6\"}\n\n\
data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"a\\\":1}\"}}]},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n\
data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4o-mini\",\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15,\"prompt_tokens_details\":{\"cached_tokens\":6,\"audio_tokens\":0}}}\n\n\
data: [DONE]\n\n";

pub(super) const RESPONSES_STREAM: &str = "event: response.created\r\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"resp_1\",\"model\":\"gpt-4.1\",\"status\":\"in_progress\",\"output\":[],\"usage\":null}}\r\n\r\n\
event: response.output_text.delta\r\ndata: {\"type\":\"response.output_text.delta\",\"item_id\":\"msg_1\",\"output_index\":0,\"content_index\":0,\"delta\":\"Hi there\"}\r\n\r\n\
event: response.output_text.done\r\ndata: {\"type\":\"response.output_text.done\",\"item_id\":\"msg_1\",\"text\":\"Hi there\"}\r\n\r\n\
event: response.completed\r\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\",\"model\":\"gpt-4.1\",\"status\":\"completed\",\"error\":null,\"output\":[{\"type\":\"message\",\"content\":[{\"type\":\"output_text\",\"text\":\"Hi there\"}]}],\"usage\":{\"input_tokens\":140,\"input_tokens_details\":{\"cached_tokens\":90},\"output_tokens\":12,\"output_tokens_details\":{\"reasoning_tokens\":4},\"total_tokens\":152}}}\r\n\r\n";

pub(super) const MESSAGES_STREAM: &str = "event: message_start\ndata: {\"type\": \"message_start\", \"message\": {\"id\": \"msg_1nZd\", \"type\": \"message\", \"role\": \"assistant\", \"content\": [], \"model\": \"claude-sonnet-4-5\", \"stop_reason\": null, \"usage\": {\"input_tokens\": 25, \"cache_creation_input_tokens\": 20, \"cache_read_input_tokens\": 70, \"output_tokens\": 1}}}\n\n\
event: content_block_start\ndata: {\"type\": \"content_block_start\", \"index\": 0, \"content_block\": {\"type\": \"text\", \"text\": \"\"}}\n\n\
event: ping\ndata: {\"type\": \"ping\"}\n\n\
event: content_block_delta\ndata: {\"type\": \"content_block_delta\", \"index\": 0, \"delta\": {\"type\": \"text_delta\", \"text\": \"Hello\"}}\n\n\
event: content_block_delta\ndata: {\"type\": \"content_block_delta\", \"index\": 1, \"delta\": {\"type\": \"input_json_delta\", \"partial_json\": \"{\\\"a\\\": 1\"}}\n\n\
event: content_block_delta\ndata: {\"type\": \"content_block_delta\", \"index\": 2, \"delta\": {\"type\": \"signature_delta\", \"signature\": \"EqQBCgIYAhIM\"}}\n\n\
event: content_block_stop\ndata: {\"type\": \"content_block_stop\", \"index\": 0}\n\n\
event: message_delta\ndata: {\"type\": \"message_delta\", \"delta\": {\"stop_reason\": \"end_turn\", \"stop_sequence\":null}, \"usage\": {\"output_tokens\": 15}}\n\n\
event: message_stop\ndata: {\"type\": \"message_stop\"}\n\n";

pub(super) const REQUESTS: [&str; 5] =
    [CHAT_REQUEST, COMPLETION_REQUEST, RESPONSES_REQUEST, EMBEDDINGS_REQUEST, MESSAGES_REQUEST];
pub(super) const ANSWERS: [&str; 4] =
    [CHAT_ANSWER, RESPONSES_ANSWER, EMBEDDINGS_ANSWER, MESSAGES_ANSWER];
pub(super) const STREAMS: [&str; 3] = [CHAT_STREAM, RESPONSES_STREAM, MESSAGES_STREAM];

/// Pieces that hurt: of JSON's grammar, of the names that are read, of event streams.
const HURTFUL: [&[u8]; 34] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b",",
    b":",
    b"\\u",
    b"\\ud83d",
    b"\\ude00",
    b"-",
    b"0",
    b"9007199254740992",
    b"-1",
    b"1e9",
    b"1.5",
    b"null",
    b"true",
    b"\0",
    b"\xff",
    b"\xf0\x9f",
    b"\xef\xbb\xbf",
    b"\n\n",
    b"\r",
    b"\r\n\r\n",
    b"\ndata:",
    b"\ndata: [DONE]\n\n",
    b": x\n",
    b"\"usage\":{\"prompt_tokens\":3}",
    b"\"usage\":null,",
    b"\"model\":\"x\",",
    b"\"type\":\"error\"",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

/// A body of `seeds` with a few changes: pieces put in, cut out and doubled, bytes changed.
pub(super) fn mutated(seeds: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let change = (0..4u8, any::<usize>(), any::<usize>(), any::<u8>());
    (prop::sample::select(seeds), prop::collection::vec(change, 0..6)).prop_map(
        |(seed, changes)| {
            let mut body = seed.as_bytes().to_vec();
            for (kind, at, what, byte) in changes {
                let at = at % (body.len() + 1);
                let end = (at + what % 24).min(body.len());
                match kind {
                    0 => drop(body.splice(at..at, HURTFUL[what % HURTFUL.len()].iter().copied())),
                    1 => drop(body.drain(at..end)),
                    2 => {
                        let twice = body[at..end].to_vec();
                        body.splice(at..at, twice);
                    }
                    _ if at < body.len() => body[at] = byte,
                    _ => body.push(byte),
                }
            }
            body
        },
    )
}
