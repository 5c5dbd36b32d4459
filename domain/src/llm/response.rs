//! What the answer of a language model reports: OpenAI's and Anthropic's JSON bodies and streams of
//! server-sent events, read in the pieces in which they come.
//!
//! A `content-encoding` is not undone here: the caller looks at that field, and takes an encoded
//! answer for one that reports nothing.

use super::{
    MAX_MODEL_BYTES,
    document::Document,
    estimate::TokenEstimate,
    json::{ScanError, Scanner},
    short::Short,
    sse::{Piece, Splitter},
    usage::{Counts, TokenUsage},
};
use crate::quantity::Quantity;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    Json,
    /// Server-sent events whose data is JSON.
    Events,
}

impl BodyKind {
    /// What a `content-type` says; `None` for all that is not read here.
    pub fn of_content_type(content_type: &str) -> Option<Self> {
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("application/json") {
            Some(Self::Json)
        } else if media_type.eq_ignore_ascii_case("text/event-stream") {
            Some(Self::Events)
        } else {
            None
        }
    }
}

/// How an answer ended, as far as it was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ending {
    /// It is still coming, or was broken off.
    #[default]
    Open,
    /// It came to its end, which may be the bound on its output.
    Finished,
    /// The upstream says that it failed: an `error`, or `response.failed`.
    Failed,
}

/// What an answer has reported so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reported {
    /// The model that answered. At most [`MAX_MODEL_BYTES`] bytes; `None` for a longer name.
    pub model: Option<String>,
    /// Tokens of the prompt that did not come from a cache.
    pub input: Option<Quantity>,
    /// Tokens of the prompt that came from a cache; known when `input` is, and 0 if nothing was
    /// said.
    pub cached: Quantity,
    /// Tokens of the answer up to now.
    pub output: Option<Quantity>,
    /// `input` and `output` are known, and final.
    pub complete: bool,
    pub ending: Ending,
    /// Bytes of text that the model wrote up to now, of whole events.
    pub text_bytes: u64,
}

impl Reported {
    /// What the upstream says was used, once that is final.
    pub fn usage(&self) -> Option<TokenUsage> {
        let (input, output) = self.complete.then_some((self.input?, self.output?))?;
        Some(TokenUsage { input, cached: self.cached, output })
    }

    /// What was used: [`Self::usage`], or else the best that is known. For an answer that was
    /// broken off or says nothing, the prompt is what was reported, or `prompt_tokens`; the output
    /// is an estimate of the text that came, and what was reported if that is more.
    pub fn usage_or_estimate(
        &self,
        prompt_tokens: Quantity,
        estimate: &TokenEstimate,
    ) -> TokenUsage {
        self.usage().unwrap_or_else(|| TokenUsage {
            input: self.input.unwrap_or(prompt_tokens),
            cached: self.cached,
            output: self.output.unwrap_or_default().max(estimate.text(self.text_bytes)),
        })
    }
}

/// Reads an answer. Its size is fixed, below [`ResponseReader::MAX_BYTES`], and as a `Copy` type it
/// holds no other memory; so neither the answer's length nor that of a line or value matters.
#[derive(Debug, Clone, Copy)]
pub struct ResponseReader {
    kind: BodyKind,
    splitter: Splitter,
    /// Of the body, or of the current event's data.
    scanner: Scanner,
    document: Document,
    /// How much of [`DONE`] the current event's data is; `None` when it is something else.
    done: Option<usize>,
    /// Of the events before the current one.
    total: Total,
}

/// What whole documents have said.
#[derive(Debug, Clone, Copy)]
struct Total {
    counts: Counts,
    last_counts: bool,
    model: Short<MAX_MODEL_BYTES>,
    text_bytes: u64,
    ending: Ending,
}

/// The data of the last event of an OpenAI stream.
const DONE: &[u8] = b"[DONE]";

const _: () = assert!(size_of::<ResponseReader>() <= ResponseReader::MAX_BYTES);

impl ResponseReader {
    /// The most memory that a reader takes, in bytes.
    pub const MAX_BYTES: usize = 1_280;

    pub const fn new(kind: BodyKind) -> Self {
        Self {
            kind,
            splitter: Splitter::NEW,
            scanner: Scanner::NEW,
            document: Document::NEW,
            done: Some(0),
            total: Total {
                counts: Counts::NONE,
                last_counts: false,
                model: Short::EMPTY,
                text_bytes: 0,
                ending: Ending::Open,
            },
        }
    }

    /// Reads the next piece of the body.
    ///
    /// Data of an event that is not JSON is skipped. A JSON body is read up to its first error; what
    /// comes after that counts as text.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.kind == BodyKind::Json {
            let before = self.scanner.offset();
            if self.scan(bytes).is_err() {
                // Nobody knows what is in the rest, so it must not come for nothing.
                let read = self.scanner.offset().saturating_sub(before);
                self.document.add_text_bytes((bytes.len() as u64).saturating_sub(read));
            }
            return;
        }
        let mut splitter = self.splitter;
        splitter.feed(bytes, |piece| match piece {
            Piece::Data(data) => {
                self.done = self.done.and_then(|read| {
                    let rest = DONE.get(read..)?;
                    rest.starts_with(data).then_some(read.saturating_add(data.len()))
                });
                // The scanner keeps its error for the event's end.
                let _ = self.scan(data);
            }
            Piece::Dispatch => self.event_over(),
        });
        self.splitter = splitter;
    }

    /// What was reported up to now. Call it when the body has ended, or was broken off; it may be
    /// called before, too.
    pub fn report(&self) -> Reported {
        let mut reader = *self;
        match self.kind {
            BodyKind::Events if self.splitter.has_data() => reader.event_over(),
            BodyKind::Events => {}
            BodyKind::Json => reader.body_read(),
        }
        reader.total.report()
    }

    fn scan(&mut self, bytes: &[u8]) -> Result<(), ScanError> {
        self.scanner.feed(bytes, &mut self.document)
    }

    fn event_over(&mut self) {
        let mut document = std::mem::replace(&mut self.document, Document::NEW);
        let scanner = std::mem::replace(&mut self.scanner, Scanner::NEW);
        if self.done.replace(0) == Some(DONE.len()) {
            self.total.end(Ending::Finished);
        } else if scanner.finish().is_ok() {
            let ending = ending_of(&mut document);
            self.total.add(&document);
            self.total.end(ending);
        }
    }

    fn body_read(&mut self) {
        let whole = self.scanner.finish().is_ok();
        let ending = match whole {
            true if self.document.error => Ending::Failed,
            true => Ending::Finished,
            false => Ending::Open,
        };
        self.document.last_counts = whole;
        self.total.add(&self.document);
        self.total.end(ending);
    }
}

/// What an event says of the stream's end. It changes what its counts mean.
fn ending_of(event: &mut Document) -> Ending {
    match event.kind.whole() {
        // What was written before the first event, and no count of the answer.
        Some(b"message_start") => event.counts.output_tokens = None,
        Some(b"message_stop") => return Ending::Finished,
        Some(b"response.completed" | b"response.incomplete") => {
            event.last_counts = true;
            return Ending::Finished;
        }
        Some(b"response.failed") => {
            event.last_counts = true;
            return Ending::Failed;
        }
        Some(b"error") => return Ending::Failed,
        _ => {}
    }
    if event.error { Ending::Failed } else { Ending::Open }
}

impl Total {
    fn add(&mut self, document: &Document) {
        if !document.counts.is_none() {
            self.counts = self.counts.and_then(document.counts);
            self.last_counts = document.last_counts;
        }
        if self.model.is_empty() {
            self.model = document.model;
        }
        self.text_bytes = self.text_bytes.saturating_add(document.text_bytes);
    }

    /// A failure is the end, whatever follows.
    fn end(&mut self, ending: Ending) {
        if ending == Ending::Failed || self.ending == Ending::Open {
            self.ending = ending;
        }
    }

    fn report(&self) -> Reported {
        let input = self.counts.input();
        let output = self.counts.output();
        let known = input.is_some() && output.is_some();
        Reported {
            model: self.model.to_text(),
            input: input.map(|(input, _)| input),
            cached: input.map_or(Quantity::ZERO, |(_, cached)| cached),
            output,
            complete: known && (self.ending == Ending::Finished || self.last_counts),
            ending: self.ending,
            text_bytes: self.text_bytes,
        }
    }
}
