//! One JSON document of an answer: a whole body, or the data of one server-sent event.

use super::{
    MAX_MODEL_BYTES,
    json::{Event, Sink, Span},
    short::Short,
    usage::Counts,
};
use crate::quantity::Quantity;

/// What a document says, as far as it was read. Of fixed size: nothing else of the document is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Document {
    pub counts: Counts,
    pub model: Short<MAX_MODEL_BYTES>,
    /// `type`, of an event.
    pub kind: Short<32>,
    /// Bytes of text that the model wrote, also arguments for tools and what it shows of its
    /// reasoning.
    pub text_bytes: u64,
    /// An `error` that is an object or a text.
    pub error: bool,
    /// No numbers follow those in `counts`: a chunk without choices, or a message with the reason
    /// why it stopped.
    pub last_counts: bool,

    depth: u32,
    /// The key at the top of the document that this is under.
    root: Name,
    /// The last key, until something that was opened after it is closed.
    name: Name,
    /// How deep the fields of `usage` are, while it is open.
    usage_depth: Option<u32>,
    /// In the details of the prompt's tokens.
    in_details: bool,
    /// How deep a tool's arguments are that come as an object, while it is open.
    arguments_depth: Option<u32>,
}

/// The keys that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Other,
    Type,
    Model,
    Error,
    Usage,
    /// Where `usage` is, in events: of a response, or of a message that begins.
    Response,
    Message,
    /// Where the model's text is.
    Choices,
    Output,
    Content,
    Delta,
    /// Text, if it is a string.
    Text,
    /// A tool's arguments, in Anthropic's content.
    Input,
    StopReason,
    PromptTokens,
    CompletionTokens,
    TotalTokens,
    InputTokens,
    OutputTokens,
    CacheRead,
    CacheCreation,
    CachedTokens,
    PromptDetails,
    InputDetails,
}

impl Name {
    fn of(key: &[u8]) -> Self {
        match key {
            b"type" => Self::Type,
            b"model" => Self::Model,
            b"error" => Self::Error,
            b"usage" => Self::Usage,
            b"response" => Self::Response,
            b"message" => Self::Message,
            b"choices" => Self::Choices,
            b"output" => Self::Output,
            b"content" => Self::Content,
            b"delta" => Self::Delta,
            b"text" | b"refusal" | b"arguments" | b"partial_json" | b"thinking" | b"reasoning"
            | b"reasoning_content" => Self::Text,
            b"input" => Self::Input,
            b"stop_reason" => Self::StopReason,
            b"prompt_tokens" => Self::PromptTokens,
            b"completion_tokens" => Self::CompletionTokens,
            b"total_tokens" => Self::TotalTokens,
            b"input_tokens" => Self::InputTokens,
            b"output_tokens" => Self::OutputTokens,
            b"cache_read_input_tokens" => Self::CacheRead,
            b"cache_creation_input_tokens" => Self::CacheCreation,
            b"cached_tokens" => Self::CachedTokens,
            b"prompt_tokens_details" => Self::PromptDetails,
            b"input_tokens_details" => Self::InputDetails,
            _ => Self::Other,
        }
    }
}

impl Document {
    pub(super) const NEW: Self = Self {
        counts: Counts::NONE,
        model: Short::EMPTY,
        kind: Short::EMPTY,
        text_bytes: 0,
        error: false,
        last_counts: false,
        depth: 0,
        root: Name::Other,
        name: Name::Other,
        usage_depth: None,
        in_details: false,
        arguments_depth: None,
    };

    fn key(&mut self, key: Option<&[u8]>) {
        self.name = key.map_or(Name::Other, Name::of);
        if self.depth == 1 {
            self.root = self.name;
        }
    }

    fn open(&mut self, array: bool) {
        match (self.depth, self.name) {
            (1, Name::Error) if !array => self.error = true,
            (1, Name::Choices) if array => self.last_counts = true,
            (2, _) if self.root == Name::Choices => self.last_counts = false,
            _ => {}
        }
        let inner = self.depth.saturating_add(1);
        if !array && self.name == Name::Usage && self.is_field_of_answer() {
            self.usage_depth = Some(inner);
        } else if !array && Some(self.depth) == self.usage_depth {
            self.in_details = matches!(self.name, Name::PromptDetails | Name::InputDetails);
            self.counts.input_details |= self.name == Name::InputDetails;
        } else if self.name == Name::Input && self.root == Name::Content {
            self.arguments_depth.get_or_insert(inner);
        }
        self.depth = inner;
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.name = Name::Other;
        self.arguments_depth = self.arguments_depth.filter(|depth| self.depth >= *depth);
        if let Some(usage_depth) = self.usage_depth {
            self.in_details &= self.depth > usage_depth;
            if self.depth < usage_depth {
                self.usage_depth = None;
            }
        }
    }

    /// At a field of the answer itself, or of the one that an event is about.
    fn is_field_of_answer(&self) -> bool {
        self.depth == 1 || self.depth == 2 && matches!(self.root, Name::Response | Name::Message)
    }

    fn number(&mut self, number: Option<Quantity>) {
        let Some(usage_depth) = self.usage_depth else { return };
        let counts = &mut self.counts;
        let count = match self.name {
            Name::CachedTokens
                if self.in_details && self.depth == usage_depth.saturating_add(1) =>
            {
                &mut counts.cached_tokens
            }
            _ if self.depth != usage_depth => return,
            Name::PromptTokens => &mut counts.prompt_tokens,
            Name::CompletionTokens => &mut counts.completion_tokens,
            Name::TotalTokens => &mut counts.total_tokens,
            Name::InputTokens => &mut counts.input_tokens,
            Name::OutputTokens => &mut counts.output_tokens,
            Name::CacheRead => &mut counts.cache_read_input_tokens,
            Name::CacheCreation => &mut counts.cache_creation_input_tokens,
            _ => return,
        };
        *count = (*count).max(number);
    }

    fn text(&mut self, text: &[u8]) {
        match self.name {
            Name::Type if self.depth == 1 => self.kind.push(text),
            Name::Error if self.depth == 1 => self.error = true,
            Name::Model if self.is_field_of_answer() => self.model.push(text),
            Name::StopReason if self.depth == 2 && self.root == Name::Delta => {
                self.last_counts = true;
            }
            _ if self.arguments_depth.is_some() => self.add_text(text),
            Name::Text | Name::Content if self.is_written() => self.add_text(text),
            // Events of the responses API have their text right there.
            Name::Delta if self.depth == 1 => self.add_text(text),
            _ => {}
        }
    }

    fn is_written(&self) -> bool {
        matches!(self.root, Name::Choices | Name::Output | Name::Content | Name::Delta)
    }

    fn add_text(&mut self, text: &[u8]) {
        self.add_text_bytes(text.len() as u64);
    }

    /// Counts `bytes` bytes as text.
    pub(super) fn add_text_bytes(&mut self, bytes: u64) {
        self.text_bytes = self.text_bytes.saturating_add(bytes);
    }
}

impl Sink for Document {
    fn event(&mut self, event: Event<'_>, _: Span) {
        match event {
            Event::Key(key) => self.key(key),
            Event::ObjectStart => self.open(false),
            Event::ArrayStart => self.open(true),
            Event::ObjectEnd | Event::ArrayEnd => self.close(),
            Event::Text(text) => self.text(text),
            Event::Number(number) => self.number(number),
            Event::TextEnd | Event::Bool(_) | Event::Null => {}
        }
    }
}
