//! The words of a policy's text.

use std::{iter::Peekable, str::Chars};

use crate::compile::CompileError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Word(String),
    Text(String),
    Number(String),
    Sign(char),
}

#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) line: u32,
    pub(super) column: u32,
}

impl Token {
    pub(super) fn error(&self, message: impl Into<String>) -> CompileError {
        CompileError { line: self.line, column: self.column, message: message.into() }
    }

    pub(super) fn is(&self, sign: char) -> bool {
        self.kind == Kind::Sign(sign)
    }

    pub(super) fn is_operand(&self) -> bool {
        !matches!(self.kind, Kind::Sign(_))
    }
}

/// All words of `source`.
pub(super) fn tokens(source: &str) -> Vec<Token> {
    Lexer::new(source).tokens()
}

struct Lexer<'t> {
    rest: Peekable<Chars<'t>>,
    line: u32,
    column: u32,
}

impl<'t> Lexer<'t> {
    fn new(source: &'t str) -> Self {
        Self { rest: source.chars().peekable(), line: 1, column: 1 }
    }

    fn tokens(mut self) -> Vec<Token> {
        let mut tokens = Vec::new();
        while let Some(&next) = self.rest.peek() {
            let (line, column) = (self.line, self.column);
            let kind = match next {
                '#' => {
                    self.take_while(|one| one != '\n');
                    continue;
                }
                one if one.is_whitespace() => {
                    self.next();
                    continue;
                }
                '"' | '`' => Kind::Text(self.text(next)),
                one if one.is_ascii_digit() => Kind::Number(self.number()),
                one if one.is_alphabetic() || one == '_' => {
                    Kind::Word(self.take_while(|one| one.is_alphanumeric() || one == '_'))
                }
                one => {
                    self.next();
                    Kind::Sign(one)
                }
            };
            tokens.push(Token { kind, line, column });
        }
        tokens
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.next()?;
        if next == '\n' {
            (self.line, self.column) = (self.line + 1, 1);
        } else {
            self.column += 1;
        }
        Some(next)
    }

    fn take_while(&mut self, more: impl Fn(char) -> bool) -> String {
        let mut taken = String::new();
        while self.rest.peek().is_some_and(|&one| more(one)) {
            taken.extend(self.next());
        }
        taken
    }

    /// The inside of a string. Escapes stay as they are written: no name has one.
    fn text(&mut self, quote: char) -> String {
        self.next();
        let mut inside = String::new();
        while let Some(one) = self.next() {
            if one == quote {
                break;
            }
            inside.push(one);
            if one == '\\' && quote == '"' {
                inside.extend(self.next());
            }
        }
        inside
    }

    fn number(&mut self) -> String {
        let mut number =
            self.take_while(|one| one.is_ascii_alphanumeric() || one == '.' || one == '_');
        if number.ends_with(['e', 'E']) {
            number.push_str(&self.take_while(|one| matches!(one, '+' | '-' | '0'..='9')));
        }
        number
    }
}
