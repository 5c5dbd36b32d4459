//! From the text of a policy to a program.

use std::sync::Arc;

use regorus::{
    Engine,
    languages::rego::compiler::{Compiler, CompilerError},
    rvm::Program,
};
use thiserror::Error;

use weir_domain::protocol::MAX_POLICY_BYTES as MAX_SOURCE;

use crate::{
    check,
    contract::{Field, OUTPUTS, PACKAGE},
    scan::{self, Names},
};

/// Why a text is not a policy, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {message}")]
pub struct CompileError {
    /// 1 for the first line.
    pub line: u32,
    /// 1 for the first character of the line.
    pub column: u32,
    pub message: String,
}

/// Where a policy is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In gateways, and so without `data.buckets`.
    Edge,
    /// In the control plane only.
    Everywhere,
}

/// A policy that can be asked. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Policy {
    pub(crate) program: Arc<Program>,
    /// What it reads of the input.
    pub(crate) reads: Arc<[Field]>,
    /// Which of [`OUTPUTS`] it has rules for.
    pub(crate) says: [bool; OUTPUTS.len()],
    reads_buckets: bool,
}

/// The file name in errors, which are cut off before they are shown.
const FILE: &str = "policy.rego";
/// Where the entry is that asks for all outputs at once.
const ENTRY: &str = "data.weir.entry.said";
/// Its module's number in the program: the compiler numbers them as it comes by them.
pub(crate) const ENTRY_SOURCE: usize = 0;

impl Policy {
    /// Compiles `source` for `place`; the error says what is wrong with it, and where.
    pub fn compile(source: &str, place: Place) -> Result<Self, CompileError> {
        let whole = |message: String| CompileError { line: 1, column: 1, message };
        if source.len() > MAX_SOURCE {
            let length = source.len();
            return Err(whole(format!(
                "the policy has {length} bytes, at most {MAX_SOURCE} are allowed"
            )));
        }
        let names = scan::names(source)?;
        if let (Place::Edge, Some((line, column))) = (place, names.buckets) {
            let message = "`data.buckets` can't be read in a gateway, which does not know what is left \
                           of a bucket, and need not: the cost is taken only where there is enough. \
                           Leave it out; `allow` and `cost` are all that is needed here"
                .to_owned();
            return Err(CompileError { line, column, message });
        }
        let mut engine = Engine::new();
        let package = engine.add_policy(FILE.to_owned(), source.to_owned()).map_err(located)?;
        if package.strip_prefix("data.") != Some(PACKAGE) {
            return Err(whole(format!("the policy must begin with `package {PACKAGE}`")));
        }
        let mut says = [false; OUTPUTS.len()];
        for (says, output) in says.iter_mut().zip(OUTPUTS) {
            *says = engine.has_declared_rule_rooted_at(FILE, output).map_err(located)?;
        }
        if !says.first().is_some_and(|allow| *allow) {
            return Err(whole(
                "the policy has no rule `allow`, so it would deny all; add one".to_owned(),
            ));
        }
        engine.add_policy("entry.rego".to_owned(), entry(says)).map_err(located)?;
        let compiled = engine.compile_with_entrypoint(&ENTRY.into()).map_err(located)?;
        let program = Compiler::compile_from_policy(&compiled, &[ENTRY]).map_err(|error| {
            let (line, column) = error.span.as_ref().map_or((1, 1), |span| (span.line, span.col));
            CompileError { line, column, message: explained(&error.error) }
        })?;
        let known = compiled.get_rules().keys().map(String::as_str);
        all_rules_are_read(&program, known, &names)?;
        check::program(&program)?;
        Ok(Self {
            program,
            reads: names.reads.into_iter().collect(),
            says,
            reads_buckets: names.buckets.is_some(),
        })
    }

    /// What it reads of the input, each once, in an order that stays.
    pub fn reads(&self) -> &[Field] {
        &self.reads
    }

    /// Whether it reads `data.buckets`.
    pub fn reads_buckets(&self) -> bool {
        self.reads_buckets
    }
}

/// What the compiler says, where that alone does not help.
fn explained(error: &CompilerError) -> String {
    match error {
        CompilerError::UnknownFunction { name } => {
            format!("there is no function `{name}`; these there are: {}", check::functions())
        }
        CompilerError::RegisterOverflow { .. } => {
            "a rule has more than 255 values in it; divide it into several".to_owned()
        }
        other => other.to_string(),
    }
}

/// A module that asks for all outputs at once, as a set of pairs; those that are undefined are not in it.
fn entry(says: [bool; OUTPUTS.len()]) -> String {
    let mut module = "package weir.entry\n".to_owned();
    for (output, _) in OUTPUTS.iter().zip(says).filter(|(_, says)| *says) {
        module.push_str(&format!("said contains [\"{output}\", data.{PACKAGE}.{output}]\n"));
    }
    module
}

/// A rule that nothing reads is most likely a misspelled output.
fn all_rules_are_read<'r>(
    program: &Program,
    rules: impl Iterator<Item = &'r str>,
    names: &Names,
) -> Result<(), CompileError> {
    let mut unread: Vec<&str> = rules
        .filter(|rule| !program.rule_infos.iter().any(|info| info.name == *rule))
        .filter_map(|rule| rule.strip_prefix("data.")?.strip_prefix(PACKAGE)?.strip_prefix('.'))
        .collect();
    unread.sort_unstable();
    let Some(rule) = unread.first() else { return Ok(()) };
    let line = names.heads.iter().find(|(head, _)| head == rule).map_or(1, |(_, line)| *line);
    let message =
        format!("nothing reads the rule `{rule}`; the outputs are {}", OUTPUTS.join(", "));
    Err(CompileError { line, column: 1, message })
}

/// The place and the message in what the parser says.
fn located(error: impl std::fmt::Display) -> CompileError {
    let text = error.to_string();
    let place = || {
        let mut numbers = text.split_once(FILE)?.1.trim_start_matches(':').split([':', '\n']);
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    };
    let (line, column) = place().unwrap_or((1, 1));
    let message = text.rsplit_once("\nerror: ").map_or(text.as_str(), |(_, message)| message);
    CompileError { line, column, message: message.trim().to_owned() }
}
