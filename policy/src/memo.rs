//! Decisions that were made before.

use std::mem;

use hashbrown::HashMap;

use crate::{
    compile::Policy,
    contract::{Decision, Input, Part},
    decide::Failure,
};

/// How many decisions each of the two generations holds.
const MOST: usize = 1_024;
/// The longest input that is remembered, in bytes of what is read of it.
const LONGEST: usize = 512;

/// A policy with what it said lately, by what it reads of the input. Another policy, or another
/// version, has a memo of its own.
///
/// What was not asked for while [`MOST`] others were is forgotten. Failures are remembered too: a
/// policy that runs into its budget must not do so for each request.
#[derive(Debug)]
pub struct Memo {
    policy: Policy,
    young: HashMap<Box<[u8]>, Said>,
    old: HashMap<Box<[u8]>, Said>,
    /// The input at hand; kept for its memory.
    key: Vec<u8>,
    /// What it said of an input that is not remembered.
    last: Option<Said>,
    evaluated: u64,
}

type Said = Result<Decision, Failure>;

impl Memo {
    /// `policy` must not read `data.buckets`, which are different each time.
    pub fn new(policy: Policy) -> Self {
        let (young, old) = (HashMap::new(), HashMap::new());
        Self { policy, young, old, key: Vec::new(), last: None, evaluated: 0 }
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// How often the policy was evaluated.
    pub fn evaluated(&self) -> u64 {
        self.evaluated
    }

    /// How many decisions are remembered.
    pub fn held(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// What the policy says of `input`. Allocates nothing where it said it before.
    pub fn decide(&mut self, input: &Input<'_>) -> &Said {
        self.write_key(input);
        if self.key.len() > LONGEST {
            self.evaluated += 1;
            return self.last.insert(self.policy.decide(input));
        }
        if !self.young.contains_key(self.key.as_slice()) {
            let (key, said) = self.old.remove_entry(self.key.as_slice()).unwrap_or_else(|| {
                self.evaluated += 1;
                (self.key.clone().into_boxed_slice(), self.policy.decide(input))
            });
            if said == Err(Failure::Time) {
                // The machine stood still; the next one may have more luck.
                return self.last.insert(said);
            }
            if self.young.len() >= MOST {
                self.old = mem::take(&mut self.young);
            }
            self.young.insert(key, said);
        }
        match self.young.get(self.key.as_slice()) {
            Some(said) => said,
            // It was put there.
            None => self.last.insert(Err(Failure::Steps)),
        }
    }

    /// Each part that is read, with its length or a mark that it is missing, so that no two inputs
    /// that differ in what is read have one key.
    fn write_key(&mut self, input: &Input<'_>) {
        self.key.clear();
        for field in self.policy.reads() {
            match field.of(input) {
                None => self.key.push(0),
                Some(Part::Text(text)) => {
                    self.key.push(1);
                    self.key.extend_from_slice(&text.len().to_le_bytes());
                    self.key.extend_from_slice(text.as_bytes());
                }
                Some(Part::Number(number)) => {
                    self.key.push(2);
                    self.key.extend_from_slice(&number.to_le_bytes());
                }
            }
        }
    }
}
