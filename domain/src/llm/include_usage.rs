//! A request body that asks an OpenAI stream for its usage.

use std::borrow::Cow;

use super::{
    json::{Event, Sink, Span},
    request::{RequestError, RequestFacts, scan},
};

/// `body` with `stream_options.include_usage` set to `true`, and everything else byte for byte as
/// it was; `body` itself when it asks for no stream, or for the usage already.
///
/// It is for chat completions and completions only: other calls refuse the option. The client then
/// gets a last chunk without choices, which it has not asked for.
///
/// Errors: those of [`RequestFacts::read`].
pub fn including_usage(body: &[u8]) -> Result<Cow<'_, [u8]>, RequestError> {
    let facts = RequestFacts::read(body)?;
    if !facts.stream || facts.include_usage {
        return Ok(Cow::Borrowed(body));
    }
    let mut finder = Finder::default();
    scan(body, &mut finder)?;
    let (text, at) = match finder {
        Finder { value: Some(span), .. } => ("true", span),
        Finder { options: Some(Options::Null(span)), .. } => (r#"{"include_usage":true}"#, span),
        Finder { options: Some(Options::Object { start, empty }), .. } => {
            let text = if empty { r#""include_usage":true"# } else { r#""include_usage":true,"# };
            (text, Span { start, end: start })
        }
        // Not empty: it says `stream`.
        Finder { start, .. } => {
            (r#""stream_options":{"include_usage":true},"#, Span { start, end: start })
        }
    };
    Ok(Cow::Owned(replaced(body, at, text)))
}

/// `body` with `text` in place of what stands at `at`.
fn replaced(body: &[u8], at: Span, text: &str) -> Vec<u8> {
    let place = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
    let before = body.get(..place(at.start)).unwrap_or_default();
    let after = body.get(place(at.end)..).unwrap_or_default();
    [before, text.as_bytes(), after].concat()
}

/// Where `stream_options` stands.
#[derive(Debug)]
enum Options {
    Null(Span),
    /// From after its brace.
    Object {
        start: u64,
        empty: bool,
    },
}

#[derive(Debug, Default)]
struct Finder {
    depth: u32,
    /// After the body's first brace.
    start: u64,
    in_options: bool,
    at_value: bool,
    options: Option<Options>,
    /// The value of `include_usage`.
    value: Option<Span>,
}

impl Sink for Finder {
    fn event(&mut self, event: Event<'_>, span: Span) {
        match (self.depth, event) {
            (0, Event::ObjectStart) => self.start = span.end,
            (1, Event::Key(key)) => self.in_options = key == Some(b"stream_options"),
            (1, Event::Null) if self.in_options => self.options = Some(Options::Null(span)),
            (1, Event::ObjectStart) if self.in_options => {
                self.options = Some(Options::Object { start: span.end, empty: true });
            }
            (2, Event::Key(key)) if self.in_options => {
                self.at_value = key == Some(b"include_usage");
                if let Some(Options::Object { empty, .. }) = &mut self.options {
                    *empty = false;
                }
            }
            (2, Event::Bool(_) | Event::Null) if self.in_options && self.at_value => {
                self.value = Some(span);
            }
            _ => {}
        }
        match event {
            Event::ObjectStart | Event::ArrayStart => self.depth = self.depth.saturating_add(1),
            Event::ObjectEnd | Event::ArrayEnd => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}
