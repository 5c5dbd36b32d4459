//! Bodies as the APIs' references show them, and what must hold for any bytes.

mod answers;
mod corpus;
mod events;
mod grammar;
mod numbers;
mod prompts;
mod requests;

use super::response::{BodyKind, Reported, ResponseReader};
use crate::quantity::Quantity;

fn quantity(value: u64) -> Quantity {
    Quantity::new(value).unwrap()
}

/// What an answer in these pieces reports.
fn reported<'a>(kind: BodyKind, pieces: impl IntoIterator<Item = &'a [u8]>) -> Reported {
    let mut reader = ResponseReader::new(kind);
    for piece in pieces {
        reader.feed(piece);
    }
    reader.report()
}

/// `body` cut at some places, which may be out of range or out of order.
fn pieces<'a>(body: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (body.len() + 1)).collect();
    cuts.extend([0, body.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect()
}
