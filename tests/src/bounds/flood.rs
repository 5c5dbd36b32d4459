//! Requests of tenants that do not exist, each of another one, as fast as one machine can send them.

use std::{collections::BTreeMap, ops::Range};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use xtask::stack::Gateway;

/// Each may have a call to the control plane under way, and Envoy keeps the most connections that these
/// ever took, 15 KB each: few, for memory to stand still.
const CONNECTIONS: u64 = 100;

/// One request for each number; answers by status.
pub(super) async fn flood(gateway: &Gateway, numbers: Range<u64>) -> Result<BTreeMap<u16, u64>> {
    let url = gateway.url();
    let address = url.strip_prefix("http://").context("no address")?;
    let mut connections = JoinSet::new();
    for first in 0..CONNECTIONS {
        let address = address.to_owned();
        let numbers = (numbers.start + first..numbers.end).step_by(usize::try_from(CONNECTIONS)?);
        connections.spawn(async move {
            let mut statuses: BTreeMap<u16, u64> = BTreeMap::new();
            let mut stream = TcpStream::connect(address).await?;
            for number in numbers {
                *statuses.entry(ask(&mut stream, number).await?).or_default() += 1;
            }
            anyhow::Ok(statuses)
        });
    }
    let mut sum = BTreeMap::new();
    while let Some(statuses) = connections.join_next().await {
        for (status, count) in statuses?? {
            *sum.entry(status).or_default() += count;
        }
    }
    Ok(sum)
}

/// The status. The id's digits are spread as those of random ids are.
async fn ask(stream: &mut TcpStream, number: u64) -> Result<u16> {
    let id = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let request =
        format!("GET / HTTP/1.1\r\nhost: weir\r\nx-tenant-id: stranger-{id:016x}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        ensure!(stream.read_buf(&mut answer).await? > 0, "the gateway closed the connection");
        let text = String::from_utf8_lossy(&answer);
        if is_whole(&text) {
            return text.split(' ').nth(1).context("no status")?.parse().context("the status");
        }
    }
}

/// Whether the body is there in its length.
fn is_whole(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.and_then(|length| length.parse().ok()).is_some_and(|length: usize| body.len() >= length)
}
