//! What grows has a bound: strangers leave nothing behind, usage that cannot be stored waits for so
//! long and no longer, and a WebSocket is one request however much goes over it.

mod flood;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use xtask::stack::Gateway;

use self::flood::flood;
use crate::{
    fleet::trace::Traffic,
    harness::{Fleet, SOON, monthly, wait_for},
    leases::bucket,
};

/// What memory may grow by while strangers come: far less than remembering them takes.
const NOISE_BYTES: u64 = 1_536 * 1_024;

/// So many strangers come, or as many as `FLOOD` says for a run by hand.
fn strangers(in_the_suite: u64) -> Result<u64> {
    Ok(std::env::var("FLOOD").map_or(Ok(in_the_suite), |count| count.parse())?)
}

/// Strangers by the thousands, each of whom the control plane is asked for, leave nothing in a
/// gateway, and a tenant beside them is served as if they were not there.
#[tokio::test]
async fn a_flood_of_strangers_leaves_nothing_behind() -> Result<()> {
    let fleet = Fleet::start().await?;
    fleet.tenant("acme", &[monthly(1_000_000)], &[]).await?;
    let acme = Traffic::start(&fleet, "acme", &[2], Duration::from_millis(10))?;
    let answers = flood_measured(&fleet.stack.gateways[0], 5_000, strangers(10_000)?).await?;
    ensure!(answers.contains_key(&401), "{answers:?}");

    let acme = acme.stop().await?;
    let refused: Vec<_> = acme.0.iter().filter(|seen| seen.status != 200).collect();
    ensure!(refused.is_empty(), "acme is refused: {refused:?}");
    ensure!(fleet.stack.upstream.requests() == acme.admitted());
    fleet.ledger_reaches("acme", acme.admitted()).await
}

/// Nor do they while nobody can say that they are strangers; and when somebody can, tenants are
/// served.
#[tokio::test]
async fn a_flood_in_an_outage_leaves_nothing_behind() -> Result<()> {
    let short = json!({ "max_wait_ms": 50 });
    let fleet = Fleet::with(|stack| stack.plugin(short)).await?;
    fleet.tenant("acme", &[monthly(1_000_000)], &[]).await?;
    fleet.stack.control_planes[0].kill();
    let answers = flood_measured(&fleet.stack.gateways[0], 10_000, strangers(40_000)?).await?;
    ensure!(answers.keys().all(|status| *status == 503), "{answers:?}");

    fleet.stack.control_planes[0].restart().await?;
    let acme = Traffic::start(&fleet, "acme", &[2], Duration::from_millis(10))?;
    wait_for("acme to be served", SOON, async || Ok((acme.count(200) > 100).then_some(()))).await?;
    let acme = acme.stop().await?;
    ensure!(fleet.stack.upstream.requests() == acme.admitted());
    fleet.ledger_reaches("acme", acme.admitted()).await
}

/// Lets strangers come to warm up, so that what is bounded grows to its bounds, and then more, for
/// whom memory must not grow; the answers to these, by status.
async fn flood_measured(
    gateway: &Gateway,
    warm_up: u64,
    strangers: u64,
) -> Result<BTreeMap<u16, u64>> {
    // Others each time.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let come = async |count: u64| {
        let first = NEXT.fetch_add(count, Ordering::Relaxed);
        flood(gateway, first..first + count).await
    };
    come(warm_up).await?;
    let (before, began) = (gateway.used_bytes().await?, Instant::now());
    let answers = come(strangers).await?;
    let after = gateway.used_bytes().await?;
    let took = began.elapsed();
    println!("{strangers} strangers in {took:?}: {answers:?}; {before} bytes, then {after}");
    ensure!(answers.keys().all(|status| [401, 503].contains(status)), "{answers:?}");
    ensure!(after <= before + NOISE_BYTES, "{before} bytes grew to {after}");
    Ok(answers)
}

/// While Postgres stores no usage but leases flow, requests pass until what is not stored is older
/// than allowed, and then no more. Afterwards all of it is stored.
#[tokio::test]
async fn usage_that_is_not_stored_stops_the_traffic() -> Result<()> {
    let unacknowledged = json!({ "max_unacknowledged_ms": 1_500 });
    let fleet = Fleet::with(|stack| stack.plugin(unacknowledged)).await?;
    fleet.tenant("acme", &[monthly(1_000_000)], &[]).await?;
    let acme = Traffic::start(&fleet, "acme", &[4], Duration::from_millis(10))?;
    wait_for("usage to be stored", SOON, async || {
        Ok((fleet.ledger("acme").await?.1 > 0).then_some(()))
    })
    .await?;

    let hold = "lock table usage_worker in access exclusive mode; select pg_sleep(120)";
    let release = "select pg_terminate_backend(pid) from pg_stat_activity
                   where query like 'lock table usage_worker%'";
    let (database, passed) = (&fleet.stack.database, AtomicU64::new(0));
    let (held, refused) = tokio::join!(database.query(hold), async {
        let refused = wait_for("refusals", SOON, async || {
            let answer = fleet.call("acme", "/").await?;
            passed.fetch_add(u64::from(answer.status == 200), Ordering::Relaxed);
            ensure!(answer.header("x-weir-reason") == "usage_unacknowledged", "{answer:?}");
            Ok(Some(Instant::now()))
        })
        .await;
        // All of them are refused by then.
        let since = acme.count(503);
        let more = wait_for("more refusals", SOON, async || {
            Ok((acme.count(503) >= since + 100).then_some(()))
        });
        let more = more.await;
        database.query(release).await?;
        more?;
        refused
    });
    ensure!(held.is_err(), "the lock ended by itself");
    let refused = refused?;
    wait_for("requests to pass again", SOON, async || {
        Ok(acme.is_served_since(Instant::now() - Duration::from_millis(100), 1).then_some(()))
    })
    .await?;
    let acme = acme.stop().await?;

    let statuses = acme.0.iter().all(|seen| [200, 503].contains(&seen.status));
    ensure!(statuses && acme.of(200).any(|seen| seen.sent > refused));
    let gateway = &fleet.stack.gateways[0];
    ensure!(gateway.weir_stat("refused.control_plane_unreachable").await? == 0);
    fleet.ledger_reaches("acme", acme.admitted() + passed.into_inner()).await
}

/// A WebSocket is admitted and counted once, when it is opened; what goes over it costs nothing.
#[tokio::test]
async fn a_websocket_counts_once() -> Result<()> {
    let fleet = Fleet::start().await?;
    fleet.tenant("acme", &[monthly(100)], &[]).await?;
    let mut socket = open_websocket(&fleet, "acme").await?;
    ensure!(socket.1.starts_with("HTTP/1.1 101"), "{}", socket.1);
    for number in 0..50_u8 {
        // A text frame with a mask of zeros.
        let frame = [0x81, 0x82, 0, 0, 0, 0, b'a' + number % 26, b'!'];
        socket.0.write_all(&frame).await?;
        let mut echo = [0; 8];
        socket.0.read_exact(&mut echo).await?;
        assert_eq!(echo, frame);
    }
    drop(socket);

    fleet.ledger_reaches("acme", 1).await?;
    assert_eq!(fleet.stack.gateways[0].weir_stat("admitted").await?, 1);
    wait_for("99 to be left", SOON, async || {
        Ok((bucket(&fleet, "acme", "monthly").await?["remaining"] == 99).then_some(()))
    })
    .await?;
    let refused = open_websocket(&fleet, "nobody").await?;
    assert!(refused.1.starts_with("HTTP/1.1 401"), "{}", refused.1);
    assert_eq!(fleet.stack.upstream.requests(), 1);
    Ok(())
}

/// The connection, and the head of the answer.
async fn open_websocket(fleet: &Fleet, tenant: &str) -> Result<(TcpStream, String)> {
    let url = fleet.stack.gateways[0].url();
    let address = url.strip_prefix("http://").context("no address")?;
    let mut socket = TcpStream::connect(address).await?;
    let request = format!(
        "GET /live HTTP/1.1\r\nhost: weir\r\nx-tenant-id: {tenant}\r\nconnection: upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    Ok((socket, String::from_utf8(head)?))
}
