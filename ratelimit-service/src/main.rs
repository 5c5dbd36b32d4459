//! The classic architecture at its leanest, for `cargo xtask bench`: a rate limit service that Envoy
//! asks over gRPC for each request, and that keeps a counter per descriptor in Redis. A program of its
//! own, so that its CPU time can be read, and that it is built as the control plane is.
//!
//! The messages are Envoy's `envoy.service.ratelimit.v3`; only the fields that matter are read.

use anyhow::{Context, Result, bail};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use redis::aio::MultiplexedConnection;
use tokio::net::{TcpListener, TcpStream};

/// Serves on a free port, which it prints first, until it is killed. Its argument is the URL of Redis.
fn main() -> Result<()> {
    let redis = std::env::args().nth(1).context("usage: ratelimit-service <url of Redis>")?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let client = redis::Client::open(redis)?;
        let counters = client.get_multiplexed_async_connection().await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?.port());
        loop {
            let (stream, _) = listener.accept().await?;
            let counters = counters.clone();
            tokio::spawn(async move {
                if let Err(error) = connection(stream, counters).await {
                    eprintln!("a connection ended: {error:#}");
                }
            });
        }
    })
}

async fn connection(stream: TcpStream, counters: MultiplexedConnection) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        let counters = counters.clone();
        tokio::spawn(async move {
            if let Err(error) = answer(request, respond, counters).await {
                eprintln!("a request failed: {error:#}");
            }
        });
    }
    Ok(())
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    mut counters: MultiplexedConnection,
) -> Result<()> {
    let mut body = request.into_body();
    let mut message = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        message.extend_from_slice(&data);
    }
    // A gRPC message begins with one byte of flags and four of length.
    let key = descriptor(message.get(5..).context("the gRPC message is too short")?)?;
    let (count, _): (i64, i64) =
        redis::pipe().incr(&key, 1).expire(&key, 60).query_async(&mut counters).await?;
    const LIMIT: i64 = 1 << 40;
    const OK: u8 = 1;
    const OVER_LIMIT: u8 = 2;
    let code = if count <= LIMIT { OK } else { OVER_LIMIT };
    let mut reply = BytesMut::new();
    reply.put_u8(0);
    reply.put_u32(2);
    reply.put_slice(&[0x08, code]);
    let response = Response::builder().header("content-type", "application/grpc").body(())?;
    let mut stream = respond.send_response(response, false)?;
    stream.send_data(reply.freeze(), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse()?);
    stream.send_trailers(trailers)?;
    Ok(())
}

/// The value of the first entry of the first descriptor: RateLimitRequest.descriptors (2) →
/// RateLimitDescriptor.entries (1) → Entry.value (2).
fn descriptor(request: &[u8]) -> Result<String> {
    let descriptor = field(request, 2)?;
    let entry = field(descriptor, 1)?;
    Ok(format!("bench:{}", std::str::from_utf8(field(entry, 2)?)?))
}

/// The first length-delimited field of this number in a protobuf message.
fn field(mut message: &[u8], number: u64) -> Result<&[u8]> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => {
                varint(&mut message)?;
            }
            2 => {
                let length = usize::try_from(varint(&mut message)?)?;
                let value = message.get(..length).context("a field is cut short")?;
                if tag >> 3 == number {
                    return Ok(value);
                }
                message.advance(length);
            }
            kind => bail!("a field of kind {kind} was not expected"),
        }
    }
    bail!("the message has no field {number}")
}

fn varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes.split_off_first().context("a number is cut short")?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a number is too long")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_is_found() -> Result<()> {
        let entry = b"\x0a\x06tenant\x12\x04acme";
        let message = [&b"\x0a\x05bench\x12\x10\x0a\x0e"[..], entry, b"\x18\x01"].concat();
        assert_eq!(descriptor(&message)?, "bench:acme");
        assert!(descriptor(b"\x0a\x05ben").is_err());
        Ok(())
    }
}
