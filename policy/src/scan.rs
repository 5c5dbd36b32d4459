//! What the text of a policy names: the parts of `input`, and `data`.
//!
//! The text says it all: Rego has no other way to get at these two documents than by their names. So a
//! policy that is accepted reads exactly what is listed, and where a name is misspelled, its author is
//! told. What only looks like a name, in a string or a comment, is passed over.

mod lexer;

use std::{collections::BTreeSet, mem};

use self::lexer::{Kind, Token, tokens};

use crate::{
    compile::CompileError,
    contract::{Field, PACKAGE},
};

/// The most headers that a policy may read; each costs the gateway a look-up per request.
const MAX_HEADERS: usize = 8;
/// The longest number in a policy, in characters: what is larger than any quantity is no use, and
/// what is much larger takes long to compute with.
const MAX_NUMBER: usize = 18;
/// How deep an expression may be: its operators and references one after the other, and [`BRACKET`] for
/// each bracket around them. Deeper ones would need a deep stack to compile.
const MAX_DEPTH: usize = 128;
/// For how many operators a bracket counts, as much more of the stack does it take.
const BRACKET: usize = 8;
/// How often the words and signs of a policy may be read, together. The parser reads what stands in a
/// list, set or object twice, as it may be a comprehension, and so what is nested twice as often with
/// each level.
const MAX_READINGS: u64 = 200_000;

/// What a policy names.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) reads: BTreeSet<Field>,
    /// Where `data.buckets` is read first: line and column.
    pub(crate) buckets: Option<(u32, u32)>,
    /// Words that stand at the beginning of a line: rules, with their lines.
    pub(crate) heads: Vec<(String, u32)>,
}

/// Reads `source`, or says what in it is not of the contract.
pub(crate) fn names(source: &str) -> Result<Names, CompileError> {
    let tokens = tokens(source);
    short_enough(&tokens)?;
    let mut names = Names::default();
    for (at, token) in tokens.iter().enumerate() {
        let follows_dot =
            at.checked_sub(1).and_then(|at| tokens.get(at)).is_some_and(|one| one.is('.'));
        let rest = tokens.get(at + 1..).unwrap_or_default();
        match &token.kind {
            Kind::Number(number) if number.len() > MAX_NUMBER || number.contains(['e', 'E']) => {
                let most = format!("numbers have at most {MAX_NUMBER} digits here and no exponent");
                return Err(token.error(most));
            }
            Kind::Word(word) if follows_dot || word.is_empty() => {}
            Kind::Word(word) if word == "input" => {
                names.reads.insert(field(token, rest)?);
            }
            Kind::Word(word) if word == "data" => {
                let place = is_bucket(token, rest)?.then_some((token.line, token.column));
                names.buckets = names.buckets.or(place);
            }
            Kind::Word(word) if token.column == 1 => names.heads.push((word.clone(), token.line)),
            _ => {}
        }
    }
    let headers = names.reads.iter().filter(|field| matches!(field, Field::Header(_))).count();
    if headers > MAX_HEADERS {
        let message = format!("{headers} headers are read, at most {MAX_HEADERS} may be");
        return Err(CompileError { line: 1, column: 1, message });
    }
    Ok(names)
}

/// The field that `input`, followed by `rest`, names.
fn field(input: &Token, rest: &[Token]) -> Result<Field, CompileError> {
    const PARTS: &str = "tenant, plan, method, path, model, prompt_tokens, max_output_tokens, \
                         headers[\"…\"], time.hour, time.weekday";
    let Some((name, rest)) = part(rest) else {
        return Err(input.error(format!(
            "`input` is read part by part, each by its name, such as `input.path`; it has: {PARTS}"
        )));
    };
    match name {
        "headers" => {
            let Some((header, _)) = part(rest) else {
                return Err(input.error(
                    "a header is read by its name, such as `input.headers[\"x-tier\"]`; all headers \
                     at once, or one whose name is computed, can't be read",
                ));
            };
            if header.chars().any(|one| one.is_uppercase()) {
                return Err(input.error(format!(
                    "names of headers are in lower case: `input.headers[\"{}\"]`",
                    header.to_lowercase()
                )));
            }
            Ok(Field::Header(header.to_owned()))
        }
        "time" => part(rest).and_then(|(name, _)| Field::time(name)).ok_or_else(|| {
            input.error("of `input.time` there are `input.time.hour` and `input.time.weekday`")
        }),
        _ => Field::simple(name).ok_or_else(|| {
            input.error(format!("there is no `input.{name}`; `input` has: {PARTS}"))
        }),
    }
}

/// Whether `data`, followed by `rest`, is `data.buckets`; else it must be a rule of the policy's own.
fn is_bucket(data: &Token, rest: &[Token]) -> Result<bool, CompileError> {
    if let Some(("buckets", _)) = part(rest) {
        return Ok(true);
    }
    let mut rest = rest;
    for step in PACKAGE.split('.') {
        match part(rest) {
            Some((name, next)) if name == step => rest = next,
            _ => {
                return Err(data.error(format!(
                    "of `data` there are `data.buckets` and the rules of the policy itself, \
                     `data.{PACKAGE}.…`; nothing else is stored"
                )));
            }
        }
    }
    match part(rest) {
        Some(_) => Ok(false),
        None => {
            Err(data.error(format!("name a rule of `data.{PACKAGE}`; the whole can't be read")))
        }
    }
}

/// `.name` or `["name"]`, and what follows.
fn part(tokens: &[Token]) -> Option<(&str, &[Token])> {
    match tokens {
        [dot, Token { kind: Kind::Word(name), .. }, rest @ ..] if dot.is('.') => Some((name, rest)),
        [open, Token { kind: Kind::Text(name), .. }, close, rest @ ..]
            if open.is('[') && close.is(']') =>
        {
            Some((name, rest))
        }
        _ => None,
    }
}

/// What is known of what stands between two brackets.
#[derive(Debug, Default)]
struct Nest {
    /// How deep the expression at hand is by now: an operator is above all that stands before it.
    depth: usize,
    /// The same of the deepest before it.
    deepest: usize,
}

impl Nest {
    /// Another expression begins.
    fn next(&mut self) {
        self.deepest = self.deepest.max(mem::take(&mut self.depth));
    }
}

/// Refuses what needs a deep stack, or takes long to read.
fn short_enough(tokens: &[Token]) -> Result<(), CompileError> {
    // For each open bracket.
    let mut nests = vec![Nest::default()];
    let mut before: Option<&Token> = None;
    let (mut levels, mut readings) = (0_u32, 0_u64);
    for token in tokens {
        match token.kind {
            Kind::Sign('[' | '{') => levels += 1,
            Kind::Sign(']' | '}') => levels = levels.saturating_sub(1),
            _ => {}
        }
        readings = readings.saturating_add(1 << levels.min(32));
        if readings > MAX_READINGS {
            return Err(token
                .error("what is nested here takes too long to read; use a rule for a part of it"));
        }
        let after_operand =
            before.is_some_and(|one| one.is_operand() || one.is(')') || one.is(']') || one.is('}'));
        let starts_anew = after_operand && !is_keyword(before) && !is_keyword(Some(token));
        let open = nests.len();
        let mut inner = 0;
        if matches!(token.kind, Kind::Sign(')' | ']' | '}')) && open > 1 {
            inner = nests.pop().map_or(0, |nest| nest.depth.max(nest.deepest)) + BRACKET;
        }
        let nest = nests.last_mut().map(|nest| {
            nest.depth = nest.depth.max(inner);
            match token.kind {
                // Directly behind an operand it is a call or an index: a link of the chain.
                Kind::Sign('(' | '[' | '{') => nest.depth += usize::from(after_operand),
                Kind::Sign(')' | ']' | '}') if open > 1 => {}
                Kind::Sign(',' | ';') => nest.next(),
                Kind::Sign(_) => nest.depth += 1,
                // Two operands without a sign between: a new statement.
                _ if starts_anew => nest.next(),
                _ => {}
            }
            nest.depth
        });
        if matches!(token.kind, Kind::Sign('(' | '[' | '{')) {
            nests.push(Nest::default());
        }
        if nest.is_some_and(|depth| depth > MAX_DEPTH) || nests.len() > MAX_DEPTH / BRACKET {
            return Err(token.error("this expression is too long; use a rule for a part of it"));
        }
        before = Some(token);
    }
    Ok(())
}

/// Words that join expressions.
fn is_keyword(token: Option<&Token>) -> bool {
    let Some(Token { kind: Kind::Word(word), .. }) = token else { return false };
    matches!(word.as_str(), "in" | "else" | "with" | "as" | "not" | "if")
}
