//! What the body of a request to a language model says: OpenAI's chat completions, completions,
//! responses and embeddings, and Anthropic's messages. Fields that none of these reads are ignored,
//! and so is what kind of call it is; a body without any of them has no facts, which is no error.
//!
//! Whoever rates a request must read it as the upstream will. So what parsers read differently is
//! an error: text that is not strict JSON in UTF-8, a field twice, or in other letter case.

use thiserror::Error;

use super::{
    MAX_MODEL_BYTES,
    estimate::TokenEstimate,
    json::{Event, ScanError, Scanner, Sink, Span},
    prompt::{Part, PromptCounter},
    short::Short,
};
use crate::quantity::Quantity;

pub use super::prompt::PromptLength;

/// What a request asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// `None` when it is absent, `null` or empty. At most [`MAX_MODEL_BYTES`] bytes.
    pub model: Option<String>,
    /// The answer is to come as server-sent events.
    pub stream: bool,
    /// `stream_options.include_usage`: an OpenAI stream will end with its usage.
    pub include_usage: bool,
    /// The most tokens that one answer may have: the largest of `max_tokens`,
    /// `max_completion_tokens` and `max_output_tokens`; `None` without any.
    pub max_output_tokens: Option<Quantity>,
    /// How many answers the model makes for each prompt: the larger of `n` and `best_of`, at least 1.
    pub choices: Quantity,
    pub prompt: PromptLength,
}

/// Why a request body has no facts. Nothing of the body is in the text but names of fields.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestError {
    #[error("the body is not UTF-8: the byte at offset {0} is wrong; send JSON in UTF-8")]
    NotUtf8(usize),
    #[error("the body is not JSON: there is an unexpected byte at offset {0}")]
    NotJson(u64),
    #[error("the body ends before its JSON does; send it whole")]
    Truncated,
    #[error("the body is nested deeper than 128 levels; send a flatter one")]
    TooDeep,
    #[error("the body is not a JSON object")]
    NotAnObject,
    #[error("{field} must be {expected}")]
    WrongType { field: &'static str, expected: &'static str },
    #[error("{0} is there twice; send it once")]
    Twice(&'static str),
    #[error("{0} is there in other letter case, which some servers read; write it in lower case")]
    OtherCase(&'static str),
    #[error("the name of the model has more than {MAX_MODEL_BYTES} bytes")]
    ModelTooLong,
}

impl From<ScanError> for RequestError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Unexpected(offset) => Self::NotJson(offset),
            ScanError::TooDeep => Self::TooDeep,
            ScanError::Ended => Self::Truncated,
        }
    }
}

impl RequestFacts {
    /// Reads a whole body. The caller bounds its size; what is held beside it is a few KiB.
    /// A `content-encoding` must have been undone.
    pub fn read(body: &[u8]) -> Result<Self, RequestError> {
        let mut reader = Reader::default();
        scan(body, &mut reader)?;
        reader.facts()
    }

    /// Tokens of the prompt: those that came as numbers, and an estimate of the rest.
    pub fn prompt_tokens(&self, estimate: &TokenEstimate) -> Quantity {
        Quantity::clamped(self.prompt.token_ids)
            .saturating_add(estimate.text(self.prompt.bytes))
            .saturating_add(estimate.messages(self.prompt.messages))
            .saturating_add(estimate.media(self.prompt.media))
    }

    /// The most tokens that all answers together may have, with `default` for one of a request
    /// that has no bound.
    pub fn output_tokens(&self, default: Quantity) -> Quantity {
        let each = self.max_output_tokens.unwrap_or(default).get();
        let answers = self.choices.get().saturating_mul(self.prompt.prompts.max(1));
        Quantity::clamped(each.saturating_mul(answers))
    }
}

/// Reads a whole body, which must be a JSON object in UTF-8.
pub(super) fn scan(body: &[u8], sink: &mut impl Sink) -> Result<(), RequestError> {
    str::from_utf8(body).map_err(|error| RequestError::NotUtf8(error.valid_up_to()))?;
    let mut scanner = Scanner::NEW;
    scanner.feed(body, sink)?;
    scanner.finish()?;
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'{') { Ok(()) } else { Err(RequestError::NotAnObject) }
}

/// The fields that are read, at the top of the body.
const FIELDS: [(&str, Field); 20] = [
    ("model", Field::Model),
    ("stream", Field::Stream),
    ("stream_options", Field::StreamOptions),
    ("max_tokens", Field::MaxOutput("max_tokens")),
    ("max_completion_tokens", Field::MaxOutput("max_completion_tokens")),
    ("max_output_tokens", Field::MaxOutput("max_output_tokens")),
    ("n", Field::Choices("n")),
    ("best_of", Field::Choices("best_of")),
    ("messages", Field::Part(Part::Messages)),
    ("input", Field::Part(Part::Input)),
    ("prompt", Field::Part(Part::Prompt)),
    ("system", Field::Part(Part::Text)),
    ("instructions", Field::Part(Part::Text)),
    ("suffix", Field::Part(Part::Text)),
    ("tools", Field::Part(Part::Json)),
    ("functions", Field::Part(Part::Json)),
    ("response_format", Field::Part(Part::Json)),
    ("text", Field::Part(Part::Json)),
    ("output_format", Field::Part(Part::Json)),
    ("output_config", Field::Part(Part::Json)),
];

const INCLUDE_USAGE: &str = "include_usage";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Model,
    Stream,
    StreamOptions,
    MaxOutput(&'static str),
    Choices(&'static str),
    Part(Part),
}

/// Collects facts while the body is scanned. The first error is kept.
#[derive(Debug, Default)]
struct Reader {
    facts: RequestFacts,
    error: Option<RequestError>,
    depth: u32,
    /// The field whose value is being read.
    field: Option<Field>,
    /// One bit for each of [`FIELDS`].
    seen: u32,
    include_usage: Seen,
    model: Option<Short<MAX_MODEL_BYTES>>,
    prompt: PromptCounter,
}

/// `include_usage`, in `stream_options`.
#[derive(Debug, Default, PartialEq, Eq)]
enum Seen {
    #[default]
    Not,
    /// Its value is being read.
    Now,
    Over,
}

impl Sink for Reader {
    fn event(&mut self, event: Event<'_>, span: Span) {
        match event {
            Event::ObjectEnd | Event::ArrayEnd => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    return;
                }
            }
            Event::Key(key) if self.depth == 1 => return self.top_key(key),
            _ => {}
        }
        match self.field {
            None => {}
            Some(Field::Part(part)) => self.prompt.event(part, event, span),
            Some(Field::StreamOptions) => self.stream_options(event),
            Some(Field::Model) => self.model(event),
            Some(Field::Stream) => match event {
                Event::Bool(stream) => self.facts.stream = stream,
                _ => self.expect_null(event, "stream", "true or false"),
            },
            Some(Field::MaxOutput(name)) => {
                if let Some(bound) = self.quantity(event, name) {
                    self.facts.max_output_tokens = self.facts.max_output_tokens.max(Some(bound));
                }
            }
            Some(Field::Choices(name)) => {
                if let Some(choices) = self.quantity(event, name) {
                    self.facts.choices = self.facts.choices.max(choices);
                }
            }
        }
        if matches!(event, Event::ObjectStart | Event::ArrayStart) {
            self.depth = self.depth.saturating_add(1);
        }
    }
}

impl Reader {
    fn facts(self) -> Result<RequestFacts, RequestError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let model = match self.model {
            Some(model) if model.whole().is_none() => return Err(RequestError::ModelTooLong),
            model => model.and_then(Short::to_text),
        };
        let choices = self.facts.choices.max(Quantity::ONE);
        Ok(RequestFacts { model, choices, prompt: self.prompt.length(), ..self.facts })
    }

    fn top_key(&mut self, key: Option<&[u8]>) {
        let key = key.unwrap_or_default();
        let known = FIELDS.iter().zip(0..).find(|((name, _), _)| is_read_as(key, name));
        self.field = known.map(|((_, field), _)| *field);
        let Some(((name, _), index)) = known else { return };
        let bit = 1 << index;
        if key != name.as_bytes() {
            self.fail(RequestError::OtherCase(name));
        } else if self.seen & bit != 0 {
            self.fail(RequestError::Twice(name));
        }
        self.seen |= bit;
    }

    fn model(&mut self, event: Event<'_>) {
        match event {
            Event::Text(text) => self.model.get_or_insert(Short::EMPTY).push(text),
            Event::TextEnd => {}
            _ => self.expect_null(event, "model", "a string"),
        }
    }

    fn quantity(&mut self, event: Event<'_>, field: &'static str) -> Option<Quantity> {
        if let Event::Number(Some(quantity)) = event {
            return Some(quantity);
        }
        self.expect_null(event, field, "a whole number from 0 to 9007199254740991");
        None
    }

    fn stream_options(&mut self, event: Event<'_>) {
        match (self.depth, event) {
            (1, Event::ObjectStart | Event::ObjectEnd) => {}
            (1, _) => self.expect_null(event, "stream_options", "an object"),
            (2, Event::Key(key)) => self.options_key(key.unwrap_or_default()),
            (2, Event::Bool(on)) if self.include_usage == Seen::Now => {
                self.facts.include_usage = on;
            }
            _ if self.include_usage == Seen::Now => {
                self.expect_null(event, "stream_options.include_usage", "true or false");
            }
            _ => {}
        }
    }

    fn options_key(&mut self, key: &[u8]) {
        let name = "stream_options.include_usage";
        if !is_read_as(key, INCLUDE_USAGE) {
            if self.include_usage == Seen::Now {
                self.include_usage = Seen::Over;
            }
        } else if key != INCLUDE_USAGE.as_bytes() {
            self.fail(RequestError::OtherCase(name));
        } else if self.include_usage != Seen::Not {
            self.fail(RequestError::Twice(name));
        } else {
            self.include_usage = Seen::Now;
        }
    }

    fn expect_null(&mut self, event: Event<'_>, field: &'static str, expected: &'static str) {
        if !matches!(event, Event::Null) {
            self.fail(RequestError::WrongType { field, expected });
        }
    }

    fn fail(&mut self, error: RequestError) {
        self.error.get_or_insert(error);
    }
}

/// Whether some server reads `key` as `name`, which is in lower case: Go's JSON library takes
/// letters in any case, and the two letters outside ASCII that become `s` and `k`.
fn is_read_as(key: &[u8], name: &str) -> bool {
    if key.is_ascii() {
        return key.eq_ignore_ascii_case(name.as_bytes());
    }
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        _ => c.to_ascii_lowercase(),
    };
    str::from_utf8(key).is_ok_and(|key| key.chars().map(fold).eq(name.chars()))
}
