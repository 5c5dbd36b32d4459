//! What a compiled policy may do, looked at instruction by instruction.
//!
//! A number of steps bounds how long a program runs only if each step is short, and if it does not need
//! a deep stack. So the functions are listed that take no longer than what they are given is large;
//! calls are nested a few times at most; what a policy builds is nested a few times at most, or
//! comparing two values could take as long as it likes (`[x, x]` thirty times over); and few numbers
//! are multiplied with each other, since numbers have as many digits as they need.

mod functions;
mod scope;

use std::collections::HashMap;

use regorus::rvm::Program;

pub(crate) use self::functions::names as functions;
use self::scope::Scope;
use crate::compile::{CompileError, ENTRY_SOURCE};

/// How deep rules may call each other.
const MAX_CALLS: usize = 16;
/// How deep what a policy builds may be nested, where it is compared, or handed to a function.
const MAX_RANK_COMPARED: usize = 1;
/// How deep it may be nested at all.
const MAX_RANK: usize = 8;
/// How many numbers may be multiplied with each other.
const MAX_FACTORS: usize = 16;

/// What is known of a value before it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    /// How deep it is nested, beyond what came in with the input.
    rank: usize,
    /// Of how many numbers the largest number in it is a product.
    factors: usize,
}

impl Shape {
    const PLAIN: Self = Self { rank: 0, factors: 1 };

    fn or(self, other: Self) -> Self {
        Self { rank: self.rank.max(other.rank), factors: self.factors.max(other.factors) }
    }

    /// Of a part of this.
    fn inside(self) -> Self {
        Self { rank: self.rank.saturating_sub(1), ..self }
    }
}

/// What is known of a rule: of what it gives where its arguments are plain, and how deep the calls
/// are nested that it makes.
type Known = HashMap<usize, (Shape, usize)>;

pub(crate) fn program(program: &Program) -> Result<(), CompileError> {
    let rules = Rules::of(program);
    let mut known = Known::new();
    for rule in 0..program.rule_infos.len() {
        rules.look_at(rule, &mut known, 0)?;
    }
    Ok(())
}

/// The program by its rules.
struct Rules<'p> {
    program: &'p Program,
    /// For each instruction of a rule, in their order: the rule, and the instruction's place.
    of: HashMap<usize, Vec<usize>>,
}

impl<'p> Rules<'p> {
    fn of(program: &'p Program) -> Self {
        let mut starts: Vec<(usize, usize)> = Vec::new();
        for (rule, info) in program.rule_infos.iter().enumerate() {
            let blocks = info.destructuring_blocks.iter().flatten();
            for start in info.definitions.iter().flatten().chain(blocks) {
                starts.push((usize::try_from(*start).unwrap_or(usize::MAX), rule));
            }
        }
        starts.sort_unstable();
        let mut of: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut ends: Vec<usize> = starts.iter().skip(1).map(|(start, _)| *start).collect();
        ends.push(program.instructions.len());
        for ((start, rule), end) in starts.into_iter().zip(ends) {
            of.entry(rule).or_default().extend(start..end);
        }
        Self { program, of }
    }

    /// Goes through a rule, which is called from so many others.
    fn look_at(
        &self,
        rule: usize,
        known: &mut Known,
        calls: usize,
    ) -> Result<(Shape, usize), CompileError> {
        if let Some(known) = known.get(&rule) {
            return Ok(*known);
        }
        let instructions = self.of.get(&rule).map_or(&[][..], Vec::as_slice);
        let result = self.program.rule_infos.get(rule).map_or(0, |info| info.result_reg);
        let mut scope = Scope::new(self, known, calls);
        let mut shape = Shape::PLAIN;
        for at in instructions {
            scope.step(*at)?;
            shape = shape.or(scope.get(result));
        }
        let height = scope.height();
        if height > MAX_CALLS {
            let at = instructions.first().copied().unwrap_or_default();
            return Err(self.error(at, "rules call each other too deep here"));
        }
        known.insert(rule, (shape, height));
        Ok((shape, height))
    }

    fn error(&self, at: usize, message: impl Into<String>) -> CompileError {
        let place = self.program.get_instruction_span(at);
        if place.is_none_or(|span| span.source_index == ENTRY_SOURCE) {
            let message =
                "allow, cost, meter and reason are plain values, not lists or objects".to_owned();
            return CompileError { line: 1, column: 1, message };
        }
        let number = |number: usize| u32::try_from(number).unwrap_or(1).max(1);
        let (line, column) = place.map_or((1, 1), |span| (number(span.line), number(span.column)));
        CompileError { line, column, message: message.into() }
    }
}
