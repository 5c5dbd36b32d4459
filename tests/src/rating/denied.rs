//! What a policy does not allow.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::{books_are, detail, is_everywhere, is_refused, is_shown, marked};
use crate::{
    fleet::clocks::{HOUR_S, Host, set_clock},
    harness::{Answer, Fleet, SOON, monthly, wait_for},
    leases::bucket,
};

const CLOSED: &str = "allow := false if startswith(input.path, \"/closed/\")

allow := false if input.method == \"DELETE\"

allow := false if input.headers[\"x-tier\"] == \"none\"

allow := false if input.path == \"/silent\"

reason := \"closed: \\\"höhere Gewalt\\\"\\nuntil 日曜日 %\" if startswith(input.path, \"/closed/\")

reason := substring(long, 0, -1) if input.method == \"DELETE\"

reason := concat_all if input.headers[\"x-tier\"] == \"none\"

concat_all := \"no tier\"

long := \"LONG\"";

const CLOSED_REASON: &str = "closed: \"höhere Gewalt\"\nuntil 日曜日 %";

/// By path, method and header: 403 with the policy's reason, nothing reaches the upstream, nothing is
/// taken or counted; a request beside it passes.
#[tokio::test]
async fn what_is_denied_is_told_why_and_costs_nothing() -> Result<()> {
    let fleet = Fleet::start().await?;
    fleet.tenant("acme", &[monthly(100)], &[]).await?;
    let long = "ä".repeat(300);
    let version = fleet.rate_by_marked("closed", &CLOSED.replace("LONG", &long)).await?;
    let before = fleet.stack.upstream.requests();
    let send = async |method: Method, path: &str, headers: &[(&str, &str)]| {
        let mut request = fleet.request(method, path).header("x-tenant-id", "acme");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request).await
    };
    for _ in 0..3 {
        let closed = send(Method::GET, "/closed/door?open=1", &[]).await?;
        is_refused(&closed, 403, "policy_denied")?;
        ensure!(detail(&closed) == CLOSED_REASON, "{closed:?}");
        let method = send(Method::DELETE, "/", &[]).await?;
        is_refused(&method, 403, "policy_denied")?;
        ensure!(detail(&method) == "ä".repeat(200), "the reason is cut: {method:?}");
        let header = send(Method::GET, "/", &[("X-Tier", "none")]).await?;
        is_refused(&header, 403, "policy_denied")?;
        ensure!(detail(&header) == "no tier", "{header:?}");
        let silent = send(Method::GET, "/silent", &[]).await?;
        is_refused(&silent, 403, "policy_denied")?;
        ensure!(detail(&silent).contains("rating policy"), "{silent:?}");
        for answer in [closed, method, header, silent] {
            ensure!(answer.header("retry-after").is_empty(), "{answer:?}");
        }
    }
    let grpc = [("content-type", "application/grpc")];
    let denied = send(Method::POST, "/closed/Door", &grpc).await?;
    ensure!((denied.status, denied.header("grpc-status")) == (200, "7"), "{denied:?}");
    ensure!(denied.header("x-weir-reason") == "policy_denied", "{denied:?}");
    let message = percent_decoded(denied.header("grpc-message"))?;
    ensure!(message == CLOSED_REASON, "{message}");

    ensure!(fleet.stack.upstream.requests() == before);
    let untouched = bucket(&fleet, "acme", "monthly").await?;
    ensure!(untouched["remaining"] == 100, "{untouched}");
    for (method, path, headers) in [
        (Method::GET, "/closed", &[][..]),
        (Method::GET, "/?path=/closed/", &[]),
        (Method::GET, "/", &[("x-tier", "some")]),
    ] {
        ensure!(send(method, path, headers).await?.status == 200, "{path}");
    }
    books_are(&fleet, "acme", &[("default", version, 3, 3)]).await
}

/// As grpc-message is encoded.
fn percent_decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let hex = after.get(..2).context("cut off")?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(hex)?, 16)?);
            rest = after.get(2..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    Ok(String::from_utf8(bytes)?)
}

fn hour_in(seconds: i64) -> Result<i64> {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    Ok((now + seconds).div_euclid(HOUR_S).rem_euclid(24))
}

/// The hour is that of the control plane's clock, in UTC, wherever the gateway's own stands; and when
/// the hour ends, what depends on it changes without anybody saying so.
#[tokio::test]
async fn the_hour_is_that_of_the_control_plane() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.own_wall_clocks()).await?;
    fleet.tenant("acme", &[monthly(1_000)], &[]).await?;
    let open_at = |hours: [i64; 2]| {
        let [from, to] = hours.map(|hour| hour.rem_euclid(24));
        format!("allow := false if not input.time.hour in {{{from}, {to}}}")
    };
    set_clock(&fleet, Host::Gateway, -9 * HOUR_S)?;
    set_clock(&fleet, Host::ControlPlane, 5 * HOUR_S)?;
    let then = hour_in(5 * HOUR_S)?;
    fleet.rate_by_marked("then", &open_at([then, then + 1])).await?;
    ensure!(fleet.ask(0, "acme", "/").await?.status == 200);
    fleet.rate_by_marked("not-then", &open_at([then + 2, then + 3])).await?;
    is_refused(&fleet.ask(0, "acme", "/").await?, 403, "policy_denied")?;

    // The last seconds of an hour.
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    let ahead = 7 * HOUR_S + (HOUR_S - 8) - now.rem_euclid(HOUR_S);
    set_clock(&fleet, Host::ControlPlane, ahead)?;
    let last = hour_in(ahead)?;
    fleet.rate_by(&marked("last", &open_at([last, last]))).await?;
    is_everywhere(&fleet, "last").await?;
    ensure!(fleet.ask(0, "acme", "/").await?.status == 200, "this hour is open");
    wait_for("the hour to end", SOON, async || {
        let answer = fleet.ask(0, "acme", "/").await?;
        Ok((answer.header("x-weir-reason") == "policy_denied").then_some(()))
    })
    .await
}

/// Days go from Monday, 1, to Sunday, 7.
#[tokio::test]
async fn the_weekday_is_known() -> Result<()> {
    let fleet = Fleet::start().await?;
    fleet.tenant("acme", &[monthly(1_000)], &[]).await?;
    let days = (1..=7).map(|day| {
        format!(
            "reason := \"day {day}\" if {{ input.path == \"/day\"; input.time.weekday == {day} }}"
        )
    });
    let days: Vec<String> = days.collect();
    let rules = format!("allow := false if input.path == \"/day\"\n\n{}", days.join("\n\n"));
    fleet.rate_by_marked("days", &rules).await?;
    let day = async || {
        let days =
            fleet.stack.database.query("select extract(isodow from now() at time zone 'UTC')");
        anyhow::Ok(format!("day {}", days.await?.trim()))
    };
    let before = day().await?;
    let said = detail(&fleet.ask(0, "acme", "/day").await?);
    ensure!([before, day().await?].contains(&said), "{said}");
    Ok(())
}

/// A tenant that is suspended hears that, whatever a policy allows; strangers are strangers.
#[tokio::test]
async fn who_may_not_pass_at_all_is_told_so() -> Result<()> {
    let fleet = Fleet::start().await?;
    for tenant in ["acme", super::PROBE] {
        fleet.tenant(tenant, &[monthly(100)], &[]).await?;
    }
    // It reads the plan, which nobody has who may not pass.
    fleet.rate_by_marked("plans", "default cost := 1\n\ncost := 5 if input.plan").await?;
    ensure!(fleet.ask(0, "acme", "/").await?.status == 200);
    fleet.admin.post("/tenants/acme/suspend", &json!({})).await?.ok()?;
    wait_for("the suspension", SOON, async || {
        Ok((fleet.ask(0, "acme", "/").await?.status == 403).then_some(()))
    })
    .await?;
    for _ in 0..20 {
        is_refused(&fleet.ask(0, "acme", "/").await?, 403, "suspended")?;
        is_refused(&fleet.ask(0, "stranger", "/").await?, 401, "unknown_tenant")?;
    }
    fleet.admin.post("/tenants/acme/resume", &Value::Null).await?.ok()?;
    wait_for("the tenant to be back", SOON, async || {
        Ok((fleet.ask(0, "acme", "/").await?.status == 200).then_some(()))
    })
    .await
}

/// What is exempt is not rated, and shadow mode lets pass what a policy denies, without a cost.
#[tokio::test]
async fn exempt_paths_and_shadow_mode_pass() -> Result<()> {
    let exempt = json!({ "exempt": [{ "path": "/ping" }] });
    let fleet = Fleet::with(|stack| stack.plugin(exempt)).await?;
    fleet.tenant("acme", &[monthly(100)], &[]).await?;
    fleet.rate_by_marked("all", "allow := false").await?;
    ensure!(fleet.ask(0, "acme", "/ping").await?.status == 200);
    is_refused(&fleet.ask(0, "acme", "/pong").await?, 403, "policy_denied")?;

    let fleet = Fleet::with(|stack| stack.plugin(json!({ "shadow": true }))).await?;
    fleet.tenant("acme", &[monthly(100)], &[]).await?;
    let version = fleet
        .rate_by(&marked("x", "allow := false if input.path == \"/closed\"\n\ncost := 3"))
        .await?;
    is_shown(&fleet, version).await?;
    let gateway = &fleet.stack.gateways[0];
    wait_for("denials", SOON, async || {
        ensure!(fleet.ask(0, "acme", "/closed").await?.status == 200);
        Ok((gateway.weir_stat("refused.policy_denied").await? > 20).then_some(()))
    })
    .await?;
    ensure!(gateway.weir_stat("shadow_refused").await? > 20);
    let before = super::books(&fleet, "acme").await?;
    for _ in 0..5 {
        ensure!(fleet.ask(0, "acme", "/open").await?.status == 200);
    }
    wait_for("what is allowed to be counted", SOON, async || {
        let books = super::books(&fleet, "acme").await?;
        let rated = books.get(&("default".to_owned(), version));
        ensure!(rated == Some(&(15, 5)), "{before:?}, then {books:?}");
        Ok(Some(()))
    })
    .await
}
