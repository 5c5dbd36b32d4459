//! The inside of strings: plain text, escapes and halves of surrogate pairs.

use super::{Event, ScanError, Scanner, Sink, Span, State};

impl Scanner {
    /// A byte of a string that ends a run of plain text.
    pub(super) fn text_byte(&mut self, byte: u8, sink: &mut impl Sink) -> Result<(), ScanError> {
        match byte {
            b'\\' => self.state = State::Escape,
            b'"' => {
                self.lone_half(sink);
                let span = self.span_with_this();
                if self.in_key {
                    self.state = State::Colon;
                    sink.event(Event::Key(self.key.whole()), span);
                } else {
                    self.value_over();
                    sink.event(Event::TextEnd, span);
                }
            }
            // Control characters must be escaped.
            _ => return self.unexpected(),
        }
        Ok(())
    }

    /// The byte after a backslash.
    pub(super) fn escape(&mut self, byte: u8, sink: &mut impl Sink) -> Result<(), ScanError> {
        let plain = match byte {
            b'u' => {
                self.state = State::Hex(4, 0);
                return Ok(());
            }
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            _ => return self.unexpected(),
        };
        self.state = State::Text;
        self.text(&[plain], sink);
        Ok(())
    }

    /// A digit of `\uXXXX`, with `left` digits to come, this one included.
    pub(super) fn hex(
        &mut self,
        (left, code): (u8, u16),
        byte: u8,
        sink: &mut impl Sink,
    ) -> Result<(), ScanError> {
        let Some(digit) = char::from(byte).to_digit(16) else {
            return self.unexpected();
        };
        let code = code << 4 | digit as u16;
        if left > 1 {
            self.state = State::Hex(left - 1, code);
            return Ok(());
        }
        self.state = State::Text;
        let character = match (self.high, code) {
            (Some(high), 0xdc00..=0xdfff) => {
                self.high = None;
                char::decode_utf16([high, code]).next().and_then(Result::ok)
            }
            (_, 0xd800..=0xdbff) => {
                self.lone_half(sink);
                self.high = Some(code);
                return Ok(());
            }
            // The second half without the first is no character.
            _ => char::from_u32(code.into()),
        };
        let mut utf8 = [0; 4];
        let text = character.unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut utf8);
        self.text(text.as_bytes(), sink);
        Ok(())
    }

    /// Hands out a piece of a string.
    pub(super) fn text(&mut self, text: &[u8], sink: &mut impl Sink) {
        self.lone_half(sink);
        self.piece(text, sink);
    }

    /// The first half of a surrogate pair was not followed by the second.
    fn lone_half(&mut self, sink: &mut impl Sink) {
        if self.high.take().is_some() {
            self.piece("\u{fffd}".as_bytes(), sink);
        }
    }

    fn piece(&mut self, text: &[u8], sink: &mut impl Sink) {
        if self.in_key {
            self.key.push(text);
        } else {
            sink.event(Event::Text(text), Span { start: self.start, end: self.offset });
        }
    }
}
