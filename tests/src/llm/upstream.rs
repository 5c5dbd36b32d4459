//! A stand-in for those who serve language models: OpenAI's chat completions, completions, responses
//! and embeddings, and Anthropic's messages, whole and as streams. It answers as its caller says
//! ([`Script`]), and keeps books of what it said that each call used.

pub(super) mod ask;
mod script;
mod sending;
mod shapes;
mod streams;

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Result;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    serve::ListenerExt,
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use weir_domain::llm::usage::TokenUsage;

use self::{
    ask::{Api, Ask},
    script::Script,
    sending::{Pieces, send},
    shapes::{Part, Reply},
};

/// How far an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Open,
    Whole,
    /// It says that it failed.
    Failed,
    /// This stand-in cut the connection.
    Broken,
    /// Whoever called is gone.
    Left,
}

/// One call, as it arrived here.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) tenant: String,
    /// By lower-case name.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Bytes,
    /// `None` where it is no call of a model.
    pub(crate) ask: Option<Ask>,
    pub(crate) status: u16,
    /// Its answer can't be read on the way.
    pub(crate) opaque: bool,
    /// What its answer said of the prompt up to now, input and cached; and of all, in the end.
    pub(crate) said_input: Option<(u64, u64)>,
    pub(crate) said: Option<TokenUsage>,
    /// Bytes of the model's text in events that are whole, up to now.
    pub(crate) text_bytes: u64,
    pub(crate) ending: Ending,
}

/// A running stand-in; it ends when it is dropped.
pub(crate) struct LlmUpstream {
    port: u16,
    books: Arc<Books>,
    server: JoinHandle<()>,
}

struct Books {
    calls: Mutex<Vec<Call>>,
    /// How many calls that are held may go on: all that began before.
    released: watch::Sender<usize>,
}

impl LlmUpstream {
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        // Pieces are to arrive as they are sent.
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        let books = Arc::new(Books { calls: Mutex::default(), released: watch::Sender::new(0) });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&books));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the stand-in for language models ended: {error}");
            }
        });
        Ok(Self { port, books, server })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// All calls that have arrived whole, in their order.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.books.lock().clone()
    }

    /// The calls of one tenant.
    pub(crate) fn calls_of(&self, tenant: &str) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.tenant == tenant).collect()
    }

    /// Lets all calls go on that are held by `hold_after` now.
    pub(crate) fn release(&self) {
        let calls = self.books.lock().len();
        self.books.released.send_replace(calls);
    }
}

impl Drop for LlmUpstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Books {
    fn lock(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, call: usize, change: impl FnOnce(&mut Call)) {
        if let Some(call) = self.lock().get_mut(call) {
            change(call);
        }
    }
}

async fn answer(State(books): State<Arc<Books>>, request: Request) -> Response {
    let (head, mut body) = request.into_parts();
    let headers: BTreeMap<String, String> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    let api = Api::of_path(head.uri.path());
    // What is no call of a model is written down when the first of it is here.
    let content = match api {
        Some(_) => (&mut body).collect().await.ok().map(|body| body.to_bytes()),
        None => Some(match body.frame().await {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            _ => Bytes::new(),
        }),
    };
    let Some(content) = content else { return StatusCode::BAD_REQUEST.into_response() };
    let script = Script::of(&head.headers);
    let ask = api.map(|api| Ask::read(api, &content)).transpose();
    let (number, script, ask) = match (script, ask) {
        (Ok(script), Ok(ask)) => {
            let mut calls = books.lock();
            calls.push(Call {
                id: script.id.clone(),
                tenant: headers.get("x-tenant-id").cloned().unwrap_or_default(),
                headers,
                body: content,
                ask: ask.clone(),
                status: script.status.unwrap_or(200),
                opaque: script.gzip || script.content_type.is_some(),
                said_input: None,
                said: None,
                text_bytes: 0,
                ending: Ending::Open,
            });
            (calls.len() - 1, script, ask)
        }
        (Err(error), _) => return (StatusCode::BAD_REQUEST, error).into_response(),
        (_, Err(error)) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    tokio::time::sleep(Duration::from_millis(script.wait_ms)).await;
    match ask {
        None => {
            while body.frame().await.is_some() {}
            "ok\n".into_response()
        }
        Some(ask) => reply(&books, number, &ask, script),
    }
}

fn reply(books: &Arc<Books>, number: usize, ask: &Ask, script: Script) -> Response {
    // As both providers do: an option of other calls is refused.
    let refused = ask.include_usage && !matches!(ask.api, Api::Chat | Api::Completions);
    let status = script.status.or(refused.then_some(400)).unwrap_or(200);
    books.write(number, |call| call.status = status);
    let reply = Reply::new(ask, &script);
    let is_stream = ask.stream && ask.api != Api::Embeddings && status < 400;
    let mut parts = match () {
        () if status >= 400 => vec![error(ask, &script, status)],
        () if is_stream => reply.events(),
        () => vec![reply.body()],
    };
    if !is_stream {
        // Of a body, also a part has text in it.
        let text_bytes = parts.iter_mut().map(|part| std::mem::take(&mut part.text_bytes)).sum();
        books.write(number, |call| call.text_bytes = text_bytes);
    }
    let content_type = match &script.content_type {
        Some(content_type) => content_type.as_str(),
        None if is_stream => "text/event-stream; charset=utf-8",
        None => "application/json",
    };
    let mut response = Response::builder().status(status).header("content-type", content_type);
    if script.gzip {
        response = response.header("content-encoding", "gzip");
        parts = vec![zipped(&parts)];
    }
    if status == 429 || status >= 500 {
        response = response.header("retry-after", "1");
    }
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(send(Arc::clone(books), number, parts, script, sender));
    response
        .body(Body::new(Pieces(receiver)))
        .unwrap_or_else(|error| (StatusCode::BAD_REQUEST, error.to_string()).into_response())
}

fn error(ask: &Ask, script: &Script, status: u16) -> Part {
    let message = format!("It is told to answer {status}.");
    let body = match ask.api {
        _ if script.content_type.is_some() => json!(message),
        Api::Messages => json!({ "type": "error", "request_id": "req_1",
            "error": { "type": "api_error", "message": message } }),
        _ => json!({ "error": { "message": message, "type": "server_error", "param": null,
            "code": null } }),
    };
    Part { bytes: body.to_string().into_bytes(), ..Part::default() }
}

fn zipped(parts: &[Part]) -> Part {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for part in parts {
        // Into memory, which does not fail.
        let _ = encoder.write_all(&part.bytes);
    }
    let usage = parts.iter().find_map(|part| part.usage);
    let text_bytes = parts.iter().map(|part| part.text_bytes).sum();
    Part { bytes: encoder.finish().unwrap_or_default(), text_bytes, usage, input: None }
}
