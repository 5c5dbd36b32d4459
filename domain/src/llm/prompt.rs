//! How much a model has to read: walks through the part of a request body that is its prompt.

use super::{
    json::{Event, Span},
    short::Short,
};

/// How long a prompt is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PromptLength {
    /// Characters (Unicode scalar values) of all text: messages, instructions, inputs, results of
    /// tools, and the definitions of tools and output schemas. Where a model reads JSON, keys,
    /// numbers and words count as they are written.
    pub characters: u64,
    /// The same text in bytes of UTF-8.
    pub bytes: u64,
    /// Objects in `messages` and `input`.
    pub messages: u64,
    /// Tokens that came as numbers (`prompt` and `input` may be lists of them).
    pub token_ids: u64,
    /// Images, recordings and files: inline, by address or by id. Their bytes are not text.
    pub media: u64,
    /// Texts in `prompt`, each of which is completed by itself.
    pub prompts: u64,
}

/// What a field at the top of the body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// `messages`: a list of objects.
    Messages,
    /// `input`: a text, a list of texts, of token ids, or of objects.
    Input,
    /// `prompt`: a text, a list of texts, of token ids, or of lists of token ids.
    Prompt,
    /// `system`, `instructions`, `suffix`: a text, or a list of parts with text.
    Text,
    /// `tools`, `functions` and schemas: the model reads them as JSON.
    Json,
}

/// What strings are that stand in an object or array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    /// Text, but for what their keys say.
    Text,
    /// An object that holds or names an image, a recording or a file.
    Media,
    /// Text, also keys and numbers.
    Json,
    /// Nothing that a model reads.
    Nothing,
}

/// What a string is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    /// Of an object: it says whether `data` is text.
    Type,
    /// The text of a document, or else the bytes of a file.
    Data,
    Media,
    Nothing,
}

/// An object or array that is open.
#[derive(Debug)]
struct Level {
    within: Within,
    array: bool,
    /// What strings in an array are: what its own key says.
    kind: Kind,
    kind_of_type: Short<8>,
    /// Bytes and characters of `data`, until the object's end says what it is.
    data: Option<(u64, u64)>,
}

/// Counts while it is told what stands in the body's parts. It holds one [`Level`] for each open
/// object or array, which the scanner bounds.
#[derive(Debug, Default)]
pub(super) struct PromptCounter {
    length: PromptLength,
    levels: Vec<Level>,
    /// What the current key of an object says of its value.
    key: Option<(Kind, Within)>,
}

impl PromptCounter {
    pub(super) fn length(&self) -> PromptLength {
        self.length
    }

    /// Told of everything in the value of a field of `part`.
    pub(super) fn event(&mut self, part: Part, event: Event<'_>, span: Span) {
        match event {
            Event::Key(key) => self.key(key, span),
            Event::ObjectStart => self.open(part, false),
            Event::ArrayStart => self.open(part, true),
            Event::ObjectEnd | Event::ArrayEnd => self.close(),
            Event::Text(text) => self.text(text),
            Event::TextEnd => self.text_end(part),
            Event::Number(_) | Event::Bool(_) | Event::Null => self.scalar(part, event, span),
        }
    }

    fn key(&mut self, key: Option<&[u8]>, span: Span) {
        let Some(level) = self.levels.last() else { return };
        if level.within == Within::Json {
            self.as_written(span, 2);
            return;
        }
        let key = key.unwrap_or_default();
        self.key = Some((kind_of(key, level.within), within_of(key, level.within)));
    }

    fn open(&mut self, part: Part, array: bool) {
        let (kind, within) = match self.levels.last() {
            None if part == Part::Json => (Kind::Text, Within::Json),
            None => (Kind::Text, Within::Text),
            Some(Level { within: within @ (Within::Json | Within::Nothing), kind, .. }) => {
                (*kind, *within)
            }
            Some(level) if level.array => (level.kind, level.within),
            Some(_) => self.key.unwrap_or((Kind::Text, Within::Text)),
        };
        if self.in_list() && !array && matches!(part, Part::Messages | Part::Input) {
            self.length.messages = self.length.messages.saturating_add(1);
        }
        if self.in_list() && array && part == Part::Prompt {
            self.length.prompts = self.length.prompts.saturating_add(1);
        }
        let kind = if array { kind } else { Kind::Text };
        self.levels.push(Level { within, array, kind, kind_of_type: Short::EMPTY, data: None });
    }

    fn close(&mut self) {
        let Some(level) = self.levels.pop() else { return };
        let Some((bytes, characters)) = level.data else { return };
        if level.kind_of_type.whole() == Some(b"text") {
            self.add(bytes, characters);
        } else {
            self.length.media = self.length.media.saturating_add(1);
        }
    }

    /// Directly in the array that the field is.
    fn in_list(&self) -> bool {
        matches!(self.levels.as_slice(), [Level { array: true, .. }])
    }

    fn kind(&self) -> Kind {
        match self.levels.last() {
            Some(Level { within: Within::Json, .. }) | None => Kind::Text,
            Some(Level { within: Within::Nothing, .. }) => Kind::Nothing,
            Some(level) if level.array => level.kind,
            Some(_) => self.key.map_or(Kind::Text, |(kind, _)| kind),
        }
    }

    fn text(&mut self, text: &[u8]) {
        let bytes = text.len() as u64;
        // Every character has one byte that does not continue another.
        let characters = text.iter().filter(|&&byte| byte & 0xc0 != 0x80).count() as u64;
        match self.kind() {
            Kind::Text => self.add(bytes, characters),
            Kind::Type => {
                if let Some(level) = self.levels.last_mut() {
                    level.kind_of_type.push(text);
                }
            }
            Kind::Data => {
                if let Some(level) = self.levels.last_mut() {
                    let data = level.data.get_or_insert_default();
                    data.0 = data.0.saturating_add(bytes);
                    data.1 = data.1.saturating_add(characters);
                }
            }
            Kind::Media | Kind::Nothing => {}
        }
    }

    fn text_end(&mut self, part: Part) {
        if self.kind() == Kind::Media {
            self.length.media = self.length.media.saturating_add(1);
        }
        if part == Part::Prompt && (self.levels.is_empty() || self.in_list()) {
            self.length.prompts = self.length.prompts.saturating_add(1);
        }
    }

    fn scalar(&mut self, part: Part, event: Event<'_>, span: Span) {
        let Some(level) = self.levels.last() else { return };
        let ids = level.array && matches!(part, Part::Input | Part::Prompt);
        if level.within == Within::Json {
            self.as_written(span, 0);
        } else if ids && matches!(event, Event::Number(_)) {
            self.length.token_ids = self.length.token_ids.saturating_add(1);
        }
    }

    /// Counts what stands in the body from `span.start` to `span.end`, but for its quotes.
    fn as_written(&mut self, span: Span, quotes: u64) {
        let bytes = span.end.saturating_sub(span.start).saturating_sub(quotes);
        self.add(bytes, bytes);
    }

    fn add(&mut self, bytes: u64, characters: u64) {
        self.length.bytes = self.length.bytes.saturating_add(bytes);
        self.length.characters = self.length.characters.saturating_add(characters);
    }
}

/// What a string under `key` is.
fn kind_of(key: &[u8], within: Within) -> Kind {
    match (key, within) {
        (b"type", _) => Kind::Type,
        (b"data", Within::Media) => Kind::Data,
        (b"url", Within::Media) | (b"image_url" | b"file_data" | b"file_url" | b"file_id", _) => {
            Kind::Media
        }
        (
            b"role" | b"id" | b"tool_call_id" | b"tool_use_id" | b"call_id" | b"url" | b"status"
            | b"media_type" | b"format" | b"detail" | b"signature" | b"encrypted_content",
            _,
        ) => Kind::Nothing,
        _ => Kind::Text,
    }
}

/// What strings in an object or array under `key` are.
fn within_of(key: &[u8], within: Within) -> Within {
    match key {
        b"source" | b"image_url" | b"video_url" | b"audio_url" | b"input_audio" | b"file" => {
            Within::Media
        }
        // Arguments of calls of tools, which the model reads again.
        b"input" | b"arguments" | b"parameters" => Within::Json,
        b"cache_control" | b"annotations" | b"citations" | b"logprobs" => Within::Nothing,
        _ if within == Within::Media => Within::Text,
        _ => within,
    }
}
