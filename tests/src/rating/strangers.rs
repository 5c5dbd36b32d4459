//! Strangers, and a policy that denies all.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use xtask::stack::Gateway;

use super::{books_are, marked};
use crate::{
    fleet::trace::Traffic,
    harness::{Fleet, SOON, monthly, wait_for},
};

/// What memory may grow by.
const NOISE_BYTES: u64 = 2 * 1_024 * 1_024;
const CONNECTIONS: u64 = 100;

/// So many requests, each of another tenant that does not exist, with a path and a header of its own; how
/// many were answered like this.
async fn come(gateway: &Gateway, count: u64, status: &str) -> Result<u64> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let first = NEXT.fetch_add(count, Ordering::Relaxed);
    let mut connections = tokio::task::JoinSet::new();
    for connection in 0..CONNECTIONS {
        let (port, expected) = (gateway.port(), format!("HTTP/1.1 {status} "));
        connections.spawn(async move {
            let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
            let mut alike = 0;
            for number in (first + connection..first + count).step_by(CONNECTIONS as usize) {
                let id = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let request = format!(
                    "GET /{id:x} HTTP/1.1\r\nhost: weir\r\nx-tenant-id: s-{id:016x}\r\nx-tier: {id}\r\n\r\n"
                );
                socket.write_all(request.as_bytes()).await?;
                let mut answer = vec![0; 4_096];
                let mut length = 0;
                while !is_whole(&answer[..length]) {
                    let read = socket.read(&mut answer[length..]).await?;
                    ensure!(read > 0, "the gateway closed the connection");
                    length += read;
                }
                alike += u64::from(answer.starts_with(expected.as_bytes()));
            }
            anyhow::Ok(alike)
        });
    }
    let mut alike = 0;
    while let Some(connection) = connections.join_next().await {
        alike += connection??;
    }
    Ok(alike)
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.and_then(|length| length.parse().ok()).is_some_and(|length: usize| body.len() >= length)
}

/// Strangers by the thousands, whom the policy would deny by what it reads of each: they are strangers
/// first, and told so. Memory stays as it is, and tenants whom it allows are served meanwhile. A new one
/// is too: strangers take no place.
#[tokio::test]
async fn strangers_who_are_denied_leave_nothing_behind() -> Result<()> {
    let fleet = Fleet::start().await?;
    for tenant in ["acme", "late"] {
        fleet.tenant(tenant, &[monthly(super::PLENTY)], &[]).await?;
    }
    let rules =
        "allow := false if { input.headers[\"x-tier\"]; input.method; input.tenant }\n\ncost := 2";
    let version = fleet.rate_by_marked("closed", rules).await?;
    let gateway = &fleet.stack.gateways[0];
    let acme = Traffic::start(&fleet, "acme", &[2], Duration::from_millis(5))?;
    ensure!(come(gateway, 12_000, "403").await? == 0);
    let before = gateway.used_bytes().await?;
    ensure!(come(gateway, 12_000, "403").await? == 0);
    let after = gateway.used_bytes().await?;
    println!("{before} bytes, then {after}");
    ensure!(after <= before + NOISE_BYTES, "{before} bytes grew to {after}");
    ensure!(fleet.call("late", "/").await?.status == 200);

    let acme = acme.stop().await?;
    ensure!(acme.0.iter().all(|seen| seen.status == 200), "acme was refused");
    let admitted = acme.admitted();
    books_are(&fleet, "acme", &[("default", version, 2 * admitted, admitted)]).await?;
    // One of each was asked for at most, however many strangers came.
    let asked = fleet.stack.redis.command("KEYS *s-*").await?;
    ensure!(!asked.contains("s-0") && !asked.contains("{s-"), "{asked}");
    Ok(())
}

/// A policy that denies all, tenants that exist among them: nothing is taken, nothing is remembered; and
/// when it is taken away all are served.
#[tokio::test]
async fn a_policy_that_denies_all_denies_all() -> Result<()> {
    let fleet = Fleet::start().await?;
    for number in 0..20 {
        fleet.tenant(&format!("t{number}"), &[monthly(100)], &[]).await?;
    }
    fleet.rate_by_marked("closed", "allow := false").await?;
    let gateway = &fleet.stack.gateways[0];
    let before = fleet.stack.upstream.requests();
    for number in 0..20 {
        for _ in 0..5 {
            let answer = fleet.ask(0, &format!("t{number}"), "/").await?;
            ensure!(answer.header("x-weir-reason") == "policy_denied", "{answer:?}");
        }
    }
    ensure!(come(gateway, 3_000, "403").await? == 0, "strangers are told that they are");
    ensure!(fleet.stack.upstream.requests() == before);
    let open = fleet.rate_by(&marked("open", "cost := 2")).await?;
    for number in 0..20 {
        let tenant = format!("t{number}");
        wait_for("the tenant to be served", SOON, async || {
            Ok((fleet.ask(0, &tenant, "/").await?.status == 200).then_some(()))
        })
        .await?;
        books_are(&fleet, &tenant, &[("default", open, 2, 1)]).await?;
    }
    ensure!(come(gateway, 500, "401").await? > 0);
    Ok(())
}
