//! The outbox: how an invoice that has become final gets to its tenant's provider, once.
//!
//! A delivery is a row that is made in the transaction in which the invoice becomes final (by a
//! trigger, whoever does that). It goes through steps; each is begun in one commit, carried out at the
//! provider, and ended in another. So whoever takes over knows which step may have been carried out,
//! and *looks at the provider first*; what is not there is done with the same idempotency key, as long
//! as the provider remembers it. Between the two, a call that is still under way can't be doubled:
//! the key covers it, and what the key no longer covers can be seen.
//!
//! | module | subject |
//! |---|---|
//! | [`outbox`] | the rows: begin a step, end it, put it off, stop |
//! | [`backoff`] | how long to wait after a failure |
//! | [`stripe`], [`chargebee`] | the steps at each provider |
//! | [`resend`] | sending an invoice again |
//! | [`credit`] | the step of credit notes, at each |
//! | [`worker`] | the task in `weir serve` that works off what is due |

pub mod backoff;
mod chargebee;
mod credit;
pub mod outbox;
pub mod resend;
mod stripe;
pub mod worker;
