//! The edge API itself: what it refuses, and the long poll.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use super::control_planes;
use crate::harness::{Api, monthly};

/// Each mistake is a 400 that names the field.
#[tokio::test]
async fn wrong_calls_are_told_what_is_wrong() -> Result<()> {
    let fleet = control_planes(1).await?;
    let item = |call: u64, need: u64, want: u64| {
        let amount = |tokens: u64| json!({ "tokens": tokens, "requests": 1 });
        json!({ "tenant": "acme", "call": call, "need": amount(need), "want": amount(want), "spent": amount(0) })
    };
    let body = |version: u64, gateway: &str, leases: Vec<serde_json::Value>| json!({ "version": version, "gateway": gateway, "worker": "w", "leases": leases });
    let cases = [
        (body(2, "g", vec![]), "version", "serves version 1"),
        (body(1, "a b", vec![]), "gateway", "' '"),
        (body(1, "g", vec![item(1, 2, 1)]), "leases[0].want", "at least need"),
        (body(1, "g", vec![item(0, 1, 1)]), "leases[0].call", "1 to 2^53"),
        (body(1, "g", vec![item(1, 1, 1), item(2, 1, 1)]), "leases[1].tenant", "twice"),
        (body(1, "g", vec![json!({ "tenant": "" })]), "leases[0].tenant", "empty"),
        (body(1, "g", (1..=101).map(|call| item(call, 1, 1)).collect()), "leases", "at most 100"),
    ];
    for (body, field, detail) in cases {
        let answer = fleet.edge.post("/leases", &body).await?;
        let problem = answer.json()?;
        assert_eq!((answer.status, problem["errors"][0]["field"].as_str()), (400, Some(field)));
        assert!(problem["detail"].as_str().unwrap_or_default().contains(detail), "{problem}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    for token in [None, Some(fleet.stack.admin_token.as_str())] {
        let edge = fleet.edge.with_token(token);
        assert_eq!(edge.post("/leases", &body(1, "g", vec![])).await?.status, 401);
        assert_eq!(edge.get("/config?version=1&after=0").await?.status, 401);
    }
    Ok(())
}

/// A gateway hears of each change, in order, on every replica; and starts afresh where it is behind.
#[tokio::test]
async fn the_long_poll_tells_each_change() -> Result<()> {
    let fleet = control_planes(2).await?;
    let url = format!("{}/edge/v1", fleet.stack.control_planes[1].url());
    let second = Api::new(&reqwest::Client::new(), url, &fleet.stack.gateway_token);
    let poll = async |after: u64| {
        second.get(&format!("/config?version=1&after={after}&policy=0")).await?.ok()
    };

    let start = poll(0).await?;
    assert_eq!(start["reset"], true);
    let mut revision = start["revision"].as_u64().unwrap();
    for tenant in ["acme", "bolt"] {
        let change = async {
            fleet.tenant(tenant, &[monthly(1)], &[]).await?;
            anyhow::Ok(Instant::now())
        };
        let (answer, changed) = tokio::join!(poll(revision), change);
        let (answer, changed) = (answer?, changed?);
        assert_eq!(answer["tenants"], json!([tenant]));
        assert_eq!(answer["reset"], false);
        assert!(changed.elapsed() < Duration::from_secs(5), "it is told at once");
        revision = answer["revision"].as_u64().unwrap();
    }
    let far = poll(revision + 1_000).await?;
    assert_eq!((far["reset"].as_bool(), far["revision"].as_u64()), (Some(true), Some(revision)));
    Ok(())
}

/// Told to stop, the control plane does not wait for long polls to end.
#[tokio::test]
async fn a_long_poll_does_not_hold_up_the_shutdown() -> Result<()> {
    let fleet = control_planes(1).await?;
    let revision = fleet.edge.get("/config?version=1&after=0").await?.ok()?["revision"].clone();
    let asked = Instant::now();
    let path = format!("/config?version=1&after={revision}&policy=0");
    let poll = fleet.edge.get(&path);
    let stop = async {
        // The poll has arrived once another call has been answered after it.
        fleet.edge.get("/config?version=1&after=0").await?.ok()?;
        fleet.stack.control_planes[0].stop();
        anyhow::Ok(())
    };
    let (answer, stopped) = tokio::join!(poll, stop);
    stopped?;
    assert_eq!(answer?.ok()?["revision"], revision);
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    Ok(())
}

/// A gateway that one replica told of a change is not told something older by another.
#[tokio::test]
async fn no_replica_is_behind_what_a_gateway_has_heard() -> Result<()> {
    let fleet = control_planes(2).await?;
    fleet.tenant("acme", &[monthly(1_000)], &[]).await?;
    fleet.tenant("bolt", &[monthly(1_000)], &[]).await?;
    let url = format!("{}/edge/v1", fleet.stack.control_planes[1].url());
    let second = Api::new(&reqwest::Client::new(), url, &fleet.stack.gateway_token);
    let mut revision = fleet.edge.get("/config?version=1&after=0").await?.ok()?["revision"].clone();
    for call in 1..=40 {
        let plan = if call % 2 == 0 { "acme-plan" } else { "bolt-plan" };
        let path = format!("/config?version=1&after={revision}&policy=0");
        let moved = json!({ "plan": plan });
        let (told, moved) =
            tokio::join!(fleet.edge.get(&path), fleet.admin.patch("/tenants/acme", &moved));
        moved?.ok()?;
        revision = told?.ok()?["revision"].clone();
        let none = json!({ "tokens": 0, "requests": 0 });
        let ask =
            json!({ "tenant": "acme", "call": call, "need": none, "want": none, "spent": none });
        let body = json!({ "version": 1, "gateway": "g", "worker": "w", "revision": revision, "leases": [ask] });
        let answer = second.post("/leases", &body).await?.ok()?;
        assert_eq!(answer["leases"][0]["plan"], plan, "call {call}: {answer}");
    }
    Ok(())
}
