//! How an answer gets on its way: in pieces that are cut anywhere, slowly, or not to its end.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::{Books, Ending, script::Script, shapes::Part};
use crate::leases::Numbers;

/// Sends the parts, cut into pieces as the script has it, and writes down what they say before they
/// are sent: nobody has seen more than that.
pub(super) async fn send(
    books: Arc<Books>,
    number: usize,
    parts: Vec<Part>,
    script: Script,
    to: mpsc::Sender<io::Result<Bytes>>,
) {
    let mut random = Numbers(script.cuts.unwrap_or_default() ^ 0x9e37_79b9);
    let mut released = books.released.subscribe();
    let (mut sent, mut hold_after) = (0, script.hold_after);
    let pieces = pieces(&parts, &script);
    for (index, (piece, until)) in pieces.iter().enumerate() {
        let until = *until;
        if hold_after.is_some_and(|after| sent >= after) {
            hold_after = None;
            let _ = released.wait_for(|calls| *calls > number).await;
        }
        tokio::time::sleep(Duration::from_millis(random.below(script.pause_ms + 1))).await;
        books.write(number, |call| {
            for part in parts.iter().take(until).skip(sent) {
                call.text_bytes += part.text_bytes;
                call.said_input = part.input.or(call.said_input);
                call.said = part.usage.or(call.said);
            }
        });
        sent = until;
        if to.send(Ok(piece.clone())).await.is_err() {
            // Who has seen the last event does not wait for the ends of its lines.
            let rest = pieces.iter().skip(index).flat_map(|(piece, _)| piece.iter());
            let is_over = rest.copied().all(|byte| byte == b'\r' || byte == b'\n');
            let ending = if is_over { Ending::Whole } else { Ending::Left };
            return books.write(number, |call| call.ending = ending);
        }
    }
    let ending = match () {
        () if script.break_after.is_some() => Ending::Broken,
        () if script.fail_after.is_some() => Ending::Failed,
        () => Ending::Whole,
    };
    if ending == Ending::Broken {
        let _ = to.send(Err(io::Error::other("cut"))).await;
    }
    books.write(number, |call| call.ending = ending);
}

/// Each with how many parts are whole when it has come.
fn pieces(parts: &[Part], script: &Script) -> Vec<(Bytes, usize)> {
    let ends: Vec<usize> = parts
        .iter()
        .scan(0, |end, part| {
            *end += part.bytes.len();
            Some(*end)
        })
        .collect();
    let mut bytes = parts.iter().map(|part| part.bytes.as_slice()).collect::<Vec<_>>().concat();
    if let Some(after) = script.break_after {
        let whole = ends.get(after.wrapping_sub(1)).copied().unwrap_or(0);
        let half = parts.get(after).map_or(0, |part| part.bytes.len() / 2);
        bytes.truncate(whole + half);
    }
    let bytes = Bytes::from(bytes);
    let mut random = Numbers(script.cuts.unwrap_or_default());
    let mut pieces = Vec::new();
    let mut from = 0;
    while from < bytes.len() {
        let next_end = ends.iter().copied().find(|end| *end > from).unwrap_or(bytes.len());
        let to = match script.cuts {
            None => next_end,
            // Small and large ones, so that each boundary is cut at some time.
            Some(_) => {
                let most = [3, 40, 700][random.below(3) as usize];
                from + 1 + random.below(most) as usize
            }
        };
        let to = to.min(bytes.len());
        pieces.push((bytes.slice(from..to), ends.iter().filter(|end| **end <= to).count()));
        from = to;
    }
    pieces
}

/// A body that comes in these pieces; an error cuts the connection.
pub(super) struct Pieces(pub(super) mpsc::Receiver<io::Result<Bytes>>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map_ok(Frame::data)
    }
}
