//! The policies that the repository ships, in a gateway that reads calls of language models.

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::{books, detail, is_refused};
use crate::{
    fleet::clocks::{HOUR_S, Host, set_clock},
    harness::{Answer, Fleet, SOON, monthly, wait_for},
    llm::{CHAT, Models, chat},
};

/// A gateway of one worker, which has rated by this text when this returns; its version.
async fn rates_by(fleet: &Fleet, text: &str) -> Result<u64> {
    let version = fleet.rate_by(text).await?;
    wait_for("the only worker to have it", SOON, async || {
        fleet.call("probe", "/").await?;
        let books = books(fleet, "probe").await?;
        Ok(books.keys().any(|(_, of)| *of == version).then_some(()))
    })
    .await?;
    Ok(version)
}

async fn models() -> Result<Models> {
    let models = Models::with(json!({}), |stack| stack.concurrency(1)).await?;
    models.tenants(&[super::PROBE, "acme"]).await?;
    Ok(models)
}

/// Waits for what the ledger has of this version: tokens and requests on this meter.
async fn counts(
    fleet: &Fleet,
    meter: &str,
    version: u64,
    tokens: u64,
    requests: u64,
) -> Result<()> {
    wait_for(&format!("{requests} on {meter}"), SOON, async || {
        let books = books(fleet, "acme").await?;
        let row = books.get(&(meter.to_owned(), version));
        ensure!(row == Some(&(tokens, requests)), "{books:?}");
        Ok(Some(()))
    })
    .await
}

/// A chat of this model, with a prompt of so many words.
fn prompt(model: &str, words: usize) -> Value {
    let mut body = chat(10);
    body["model"] = json!(model);
    body["messages"][0]["content"] = json!("weir ".repeat(words));
    body
}

#[tokio::test]
async fn the_examples_do_what_they_say() -> Result<()> {
    let models = models().await?;
    let fleet = &models.fleet;
    let call = async |body: &Value| {
        Answer::of(models.call("acme", CHAT, body, &json!({ "output": 5 }))).await
    };
    let get = async |path: &str| anyhow::Ok(fleet.call("acme", path).await?.status);
    let post = async |path: &str| {
        let request = fleet.request(Method::POST, path).header("x-tenant-id", "acme");
        anyhow::Ok(Answer::of(request).await?.status)
    };

    let bucket = rates_by(fleet, include_str!("../../../envoy/policies/token_bucket.rego")).await?;
    ensure!((get("/a").await?, post("/b").await?) == (200, 200));
    counts(fleet, "default", bucket, 2, 2).await?;

    let by_model =
        rates_by(fleet, include_str!("../../../envoy/policies/cost_by_model.rego")).await?;
    ensure!(get("/a").await? == 200);
    ensure!(call(&prompt("gpt-4.1-mini", 3)).await?.status == 200);
    counts(fleet, "requests", by_model, 20, 1).await?;
    counts(fleet, "output", by_model, 5, 0).await?;

    let by_prompt =
        rates_by(fleet, include_str!("../../../envoy/policies/cost_by_prompt.rego")).await?;
    ensure!(get("/a").await? == 200);
    ensure!(call(&prompt("gpt-4.1", 3_000)).await?.status == 200);
    counts(fleet, "default", by_prompt, 1, 1).await?;
    counts(fleet, "output", by_prompt, 5, 0).await?;

    fleet
        .admin
        .put(
            "/plans/free",
            &json!({ "currency": "USD", "prices": [],
        "limits": [monthly(super::PLENTY)] }),
        )
        .await?
        .ok()?;
    let free = rates_by(fleet, include_str!("../../../envoy/policies/free_tier.rego")).await?;
    let large = prompt("gpt-4.1", 6_000);
    ensure!(call(&large).await?.status == 200, "not on that plan");
    ensure!((get("/a").await?, post("/b").await?) == (200, 200));
    counts(fleet, "default", free, 1, 2).await?;
    fleet.admin.patch("/tenants/acme", &json!({ "plan": "free" })).await?.ok()?;
    let denied = wait_for("the plan", SOON, async || {
        let answer = call(&large).await?;
        Ok((answer.status == 403).then_some(answer))
    })
    .await?;
    is_refused(&denied, 403, "policy_denied")?;
    ensure!(detail(&denied).contains("need a paid plan"), "{denied:?}");
    ensure!(call(&prompt("gpt-4.1", 3)).await?.status == 200);
    Ok(())
}

/// `deny_by_path_and_hour.rego`, on the days and at the hours that it names.
#[tokio::test]
async fn the_example_of_hours_does_what_it_says() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.own_wall_clocks()).await?;
    for tenant in [super::PROBE, "acme"] {
        fleet.tenant(tenant, &[monthly(super::PLENTY)], &[]).await?;
    }
    let text = include_str!("../../../envoy/policies/deny_by_path_and_hour.rego");
    let query = "select extract(isodow from now() at time zone 'UTC')::int * 24
                   + extract(hour from now() at time zone 'UTC')::int - 24";
    let now: i64 = fleet.stack.database.query(query).await?.trim().parse()?;
    let minute = "select extract(minute from now())::int";
    let minute: i64 = fleet.stack.database.query(minute).await?.trim().parse()?;
    // Day from 0 for Monday, hour, and whether administration and exports are open then.
    for (number, (day, hour, admin, export)) in
        [(0, 8, true, true), (1, 10, true, false), (5, 10, false, false), (3, 22, false, true)]
            .into_iter()
            .enumerate()
    {
        // In the middle of that hour.
        let ahead = (day * 24 + hour - now) * HOUR_S + (30 - minute) * 60;
        set_clock(&fleet, Host::ControlPlane, ahead)?;
        let reason = format!("\nreason := \"{number}\" if startswith(input.path, \"/which\")\n");
        let mark = "\nclosed if startswith(input.path, \"/which\")\n";
        // What it says to those for whom it is closed must not be said twice.
        let text = text.replace(
            "reason := \"closed at this hour; try again later\" if closed",
            &format!("reason := \"closed at this hour; try again later\" if {{ closed; not startswith(input.path, \"/which\") }}\n{reason}{mark}"),
        );
        fleet.rate_by(&text).await?;
        super::is_everywhere(&fleet, &number.to_string()).await?;
        for (path, is_open) in [("/admin/users", admin), ("/export/all", export), ("/", true)] {
            let answer = fleet.ask(0, "acme", path).await?;
            let context = || format!("{path} on day {day} at {hour}: {answer:?}");
            ensure!((answer.status == 200) == is_open, context());
            if !is_open {
                let said = detail(&answer);
                Some(())
                    .filter(|()| said.starts_with("closed at this hour"))
                    .with_context(context)?;
            }
        }
    }
    Ok(())
}
