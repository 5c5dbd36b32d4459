//! Rating policies: Rego that says of a request whether it is allowed, what it costs, and on which meter.
//!
//! A policy decides and changes nothing: what it says is debited by whoever asked. The same text runs
//! in the filter and in the control plane, within the same budget, and says the same.
//!
//! | module | subject |
//! |---|---|
//! | [`contract`] | what a policy may read ([`Input`], [`Buckets`]) and what it says ([`Decision`]) |
//! | [`compile`] | [`Policy`]: from text to a program, or an error with line and column |
//! | `scan` | what the text names: the inputs, and `data` |
//! | `check` | what the program may do: which functions it calls, how deep |
//! | [`decide`] | evaluation, within a budget |
//! | [`memo`] | decisions that were made before, by the inputs that the policy reads |
//!
//! Nothing here has IO. The one clock is that of the budget ([`decide::TIME_LIMIT`]).

mod check;
pub mod compile;
pub mod contract;
pub mod decide;
pub mod memo;
mod scan;
#[cfg(test)]
mod tests;

pub use self::{
    compile::{CompileError, Place, Policy},
    contract::{Buckets, Decision, Input, Time},
    decide::Failure,
    memo::Memo,
};
