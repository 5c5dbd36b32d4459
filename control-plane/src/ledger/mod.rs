//! The ledger: what gateways admitted, stored once each.
//!
//! | module | subject |
//! |---|---|
//! | [`batch`] | a usage batch as it came in, and what makes one poison |
//! | [`commit`] | one transaction that stores many batches |
//! | [`records`] | the part of it that writes the records |
//! | [`queue`] | the queue in front of it, and what happens when a transaction fails |
//! | [`totals`] | sums over what is stored |

pub mod batch;
pub mod commit;
pub mod queue;
mod records;
pub mod totals;

pub use batch::Incoming;
pub use queue::{Ledger, Refused};
pub use totals::{DayTotal, MeterTotal, Totals, by_day, totals};
