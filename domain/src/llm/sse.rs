//! Server-sent events (WHATWG HTML, section 9.2.6), of which only the data is read, as it comes: no
//! line and no event is kept.

/// What a stream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A piece of the data of the current event. Its lines come joined by line feeds.
    Data(&'a [u8]),
    /// The current event is over, and had data.
    Dispatch,
}

/// Cuts a stream into pieces. It is fed with parts of any size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Splitter {
    state: State,
    /// The last byte was a carriage return: a line feed belongs to it.
    after_return: bool,
    /// The current event has a line of data.
    has_data: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the start of the stream, after so many bytes of a byte order mark.
    Mark(usize),
    /// At the start of a line, after so many bytes of `data`.
    Name(usize),
    /// After `data:`, where one space may follow.
    Space,
    Data,
    /// In a comment, or a field that is not `data`.
    Skip,
}

const MARK: &[u8] = &[0xef, 0xbb, 0xbf];
const NAME: &[u8] = b"data";

impl Splitter {
    pub(super) const NEW: Self =
        Self { state: State::Mark(0), after_return: false, has_data: false };

    /// Reads the next part and hands on what it has.
    pub(super) fn feed(&mut self, bytes: &[u8], mut piece: impl FnMut(Piece<'_>)) {
        let mut rest = bytes;
        while let Some((&byte, tail)) = rest.split_first() {
            if matches!(self.state, State::Data | State::Skip) {
                let end = rest.iter().position(|&b| b == b'\n' || b == b'\r');
                let (line, after) = rest.split_at(end.unwrap_or(rest.len()));
                if !line.is_empty() {
                    if self.state == State::Data {
                        piece(Piece::Data(line));
                    }
                    rest = after;
                    continue;
                }
            }
            if self.take(byte, &mut piece) {
                rest = tail;
            }
        }
    }

    /// Whether an event is open that has data. A stream that ends here has left it without the
    /// empty line at its end.
    pub(super) fn has_data(&self) -> bool {
        self.has_data
    }

    /// Takes a byte that is not in the middle of a line; `false` when the new state is to look at
    /// it again.
    fn take(&mut self, byte: u8, piece: &mut impl FnMut(Piece<'_>)) -> bool {
        let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
        if after_return && byte == b'\n' {
            return true;
        }
        match self.state {
            State::Mark(read) if MARK.get(read) == Some(&byte) => {
                self.state =
                    if read + 1 == MARK.len() { State::Name(0) } else { State::Mark(read + 1) };
            }
            // A broken mark is the start of a line without meaning.
            State::Mark(read) => {
                self.state = if read == 0 { State::Name(0) } else { State::Skip };
                return false;
            }
            State::Name(0) if byte == b'\n' || byte == b'\r' => {
                if std::mem::take(&mut self.has_data) {
                    piece(Piece::Dispatch);
                }
            }
            // A name alone is a field without a value.
            State::Name(read) if byte == b'\n' || byte == b'\r' => {
                if read == NAME.len() {
                    self.data_line(piece);
                }
                self.state = State::Name(0);
            }
            State::Name(read) if NAME.get(read) == Some(&byte) => {
                self.state = State::Name(read + 1)
            }
            State::Name(read) if read == NAME.len() && byte == b':' => {
                self.data_line(piece);
                self.state = State::Space;
            }
            State::Name(_) => self.state = State::Skip,
            State::Space if byte == b' ' => self.state = State::Data,
            State::Space => {
                self.state = State::Data;
                return false;
            }
            // Line ends only: the rest of a line is not taken byte by byte.
            State::Data | State::Skip => self.state = State::Name(0),
        }
        true
    }

    fn data_line(&mut self, piece: &mut impl FnMut(Piece<'_>)) {
        if std::mem::replace(&mut self.has_data, true) {
            piece(Piece::Data(b"\n"));
        }
    }
}
