//! A scanner for JSON (RFC 8259) that is fed with pieces of any size and says what it passes.
//!
//! It is strict about the grammar, since what another parser would read differently must not be
//! rated. Two things it leaves to others: that the bytes are UTF-8, and that keys are unique. It
//! keeps one bit per level of nesting and the current key, so its size is fixed, and it is `Copy`.
//!
//! `serde_json` is not used here because it wants the whole text, and copies the strings in it.

mod number;
mod text;

use thiserror::Error;

use self::number::Number;
use super::short::Short;
use crate::quantity::Quantity;

/// How deep values may be nested: one bit each in [`Scanner::objects`].
pub(super) const MAX_DEPTH: u32 = u128::BITS;
/// The longest key that is told whole. All that anybody asks for are shorter.
pub(super) const MAX_KEY_BYTES: usize = 48;

/// Why a text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum ScanError {
    #[error("there is an unexpected byte at offset {0}")]
    Unexpected(u64),
    #[error("values are nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("it ends too early")]
    Ended,
}

/// What the scanner came by.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event<'a> {
    ObjectStart,
    ObjectEnd,
    ArrayStart,
    ArrayEnd,
    /// A key without its escapes; `None` when it is longer than [`MAX_KEY_BYTES`].
    Key(Option<&'a [u8]>),
    /// A piece of a string that is a value, without its escapes. Half a surrogate pair comes as
    /// U+FFFD.
    Text(&'a [u8]),
    /// The end of that string; it comes for an empty one too.
    TextEnd,
    /// A number; `None` unless it is a whole one from 0 to 2⁵³ − 1, written without an exponent
    /// (`12.0` is whole).
    Number(Option<Quantity>),
    Bool(bool),
    Null,
}

/// Where an event's text stands in all that was fed, in bytes; the end is exclusive. A
/// [`Event::Text`] has the start of its string.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub start: u64,
    pub end: u64,
}

/// Who is told what the scanner comes by.
pub(super) trait Sink {
    fn event(&mut self, event: Event<'_>, span: Span);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A value must follow.
    Value,
    /// After `[`: a value or `]`.
    FirstValue,
    /// After `{`: a key or `}`.
    FirstKey,
    /// After a comma in an object.
    Key,
    Colon,
    AfterValue,
    /// Inside a string, also a key.
    Text,
    Escape,
    /// In `\uXXXX`: how many digits are missing, and the value of those before.
    Hex(u8, u16),
    Number(Number),
    /// The rest of `true`, `false` or `null`.
    Literal(&'static [u8], Literal),
    /// The outermost value is over.
    Done,
    Failed(ScanError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Literal {
    True,
    False,
    Null,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Scanner {
    state: State,
    /// One bit per level, the innermost lowest: an object, or else an array.
    objects: u128,
    depth: u32,
    /// The current string is a key.
    in_key: bool,
    key: Short<MAX_KEY_BYTES>,
    /// The first half of a surrogate pair, when the second may follow.
    high: Option<u16>,
    offset: u64,
    /// Where the current key, string, number or word began.
    start: u64,
}

impl Scanner {
    pub(super) const NEW: Self = Self {
        state: State::Value,
        objects: 0,
        depth: 0,
        in_key: false,
        key: Short::EMPTY,
        high: None,
        offset: 0,
        start: 0,
    };

    /// Reads the next piece. After an error nothing more is read, and the error is repeated.
    pub(super) fn feed(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<(), ScanError> {
        let mut rest = bytes;
        while let Some((&byte, tail)) = rest.split_first() {
            // What bodies mostly consist of is not taken byte by byte.
            let run = match self.state {
                State::Text => {
                    let end = rest.iter().position(|&b| b < b' ' || b == b'"' || b == b'\\');
                    end.unwrap_or(rest.len())
                }
                State::Number(number) => {
                    let (longer, run) = number.with_run(rest);
                    self.state = State::Number(longer);
                    run
                }
                _ => 0,
            };
            if run > 0 {
                let (these, after) = rest.split_at(run);
                self.offset = self.offset.saturating_add(run as u64);
                if self.state == State::Text {
                    self.text(these, sink);
                }
                rest = after;
                continue;
            }
            self.step(byte, sink)?;
            self.offset = self.offset.saturating_add(1);
            rest = tail;
        }
        Ok(())
    }

    /// How many bytes were read; after an error, up to the one that is wrong.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Says that nothing follows.
    pub(super) fn finish(&self) -> Result<(), ScanError> {
        match self.state {
            State::Done => Ok(()),
            State::Failed(error) => Err(error),
            // A lone number is over when the text is.
            State::Number(number) if self.depth == 0 && number.may_end() => Ok(()),
            _ => Err(ScanError::Ended),
        }
    }

    fn step(&mut self, byte: u8, sink: &mut impl Sink) -> Result<(), ScanError> {
        if let State::Number(number) = self.state {
            // `byte` is not of it.
            if !number.may_end() {
                return self.unexpected();
            }
            let span = Span { start: self.start, end: self.offset };
            self.value_over();
            sink.event(Event::Number(number.quantity()), span);
        }
        match (self.state, byte) {
            (State::Failed(error), _) => return Err(error),
            (State::Text, _) => return self.text_byte(byte, sink),
            (State::Escape, _) => return self.escape(byte, sink),
            (State::Hex(left, code), _) => return self.hex((left, code), byte, sink),
            (State::Literal(expected, literal), _) => match expected.split_first() {
                Some((&first, rest)) if first == byte => self.literal(rest, literal, sink),
                _ => return self.unexpected(),
            },
            (_, b' ' | b'\t' | b'\n' | b'\r') => {}
            (State::FirstValue, b']') => self.close(Event::ArrayEnd, sink),
            (State::Value | State::FirstValue, _) => return self.value(byte, sink),
            (State::FirstKey, b'}') => self.close(Event::ObjectEnd, sink),
            (State::FirstKey | State::Key, b'"') => {
                self.key = Short::EMPTY;
                self.begin(State::Text);
                self.in_key = true;
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::AfterValue, b',') if self.in_object() => self.state = State::Key,
            (State::AfterValue, b',') => self.state = State::Value,
            (State::AfterValue, b'}') if self.in_object() => self.close(Event::ObjectEnd, sink),
            (State::AfterValue, b']') if !self.in_object() => self.close(Event::ArrayEnd, sink),
            _ => return self.unexpected(),
        }
        Ok(())
    }

    fn value(&mut self, byte: u8, sink: &mut impl Sink) -> Result<(), ScanError> {
        match byte {
            b'{' => return self.open(Event::ObjectStart, State::FirstKey, sink),
            b'[' => return self.open(Event::ArrayStart, State::FirstValue, sink),
            b'"' => {
                self.begin(State::Text);
                self.in_key = false;
            }
            b't' => self.begin(State::Literal(b"rue", Literal::True)),
            b'f' => self.begin(State::Literal(b"alse", Literal::False)),
            b'n' => self.begin(State::Literal(b"ull", Literal::Null)),
            _ => match Number::begin(byte) {
                Some(number) => self.begin(State::Number(number)),
                None => return self.unexpected(),
            },
        }
        Ok(())
    }

    fn begin(&mut self, state: State) {
        self.start = self.offset;
        self.state = state;
    }

    fn open(
        &mut self,
        event: Event<'_>,
        inside: State,
        sink: &mut impl Sink,
    ) -> Result<(), ScanError> {
        if self.depth == MAX_DEPTH {
            return self.fail(ScanError::TooDeep);
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(inside == State::FirstKey);
        self.state = inside;
        sink.event(event, Span { start: self.offset, end: self.offset.saturating_add(1) });
        Ok(())
    }

    fn close(&mut self, event: Event<'_>, sink: &mut impl Sink) {
        self.depth = self.depth.saturating_sub(1);
        self.objects >>= 1;
        self.value_over();
        sink.event(event, Span { start: self.offset, end: self.offset.saturating_add(1) });
    }

    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }

    fn value_over(&mut self) {
        self.state = if self.depth == 0 { State::Done } else { State::AfterValue };
    }

    fn literal(&mut self, rest: &'static [u8], literal: Literal, sink: &mut impl Sink) {
        if !rest.is_empty() {
            self.state = State::Literal(rest, literal);
            return;
        }
        let event = match literal {
            Literal::True => Event::Bool(true),
            Literal::False => Event::Bool(false),
            Literal::Null => Event::Null,
        };
        self.value_over();
        sink.event(event, self.span_with_this());
    }

    /// From where the current string or word began up to the byte that is being read.
    fn span_with_this(&self) -> Span {
        Span { start: self.start, end: self.offset.saturating_add(1) }
    }

    fn unexpected(&mut self) -> Result<(), ScanError> {
        self.fail(ScanError::Unexpected(self.offset))
    }

    fn fail(&mut self, error: ScanError) -> Result<(), ScanError> {
        self.state = State::Failed(error);
        Err(error)
    }
}
