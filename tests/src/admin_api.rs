//! The admin API: who may call it, and what it does with plans, tenants and credentials.

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Fleet, continuous, flat, monthly, per_unit};

/// A control plane without gateways.
pub(crate) async fn operator() -> Result<Fleet> {
    Fleet::with(|stack| stack.gateways(0)).await
}

/// Walks the OpenAPI document, so that no endpoint can be forgotten: each refuses calls without a
/// token, with a wrong one and with a gateway's, and says so as a problem.
#[tokio::test]
async fn every_endpoint_refuses_a_missing_and_a_wrong_token() -> Result<()> {
    let fleet = operator().await?;
    let document = fleet.admin.get("/openapi.json").await?.ok()?;
    let mut endpoints = vec![
        (Method::GET, String::new()),
        (Method::GET, "/".to_owned()),
        (Method::POST, "/no/such/endpoint".to_owned()),
        (Method::DELETE, "/plans".to_owned()),
    ];
    for (path, item) in document["paths"].as_object().context("no paths")? {
        // Some stand beside the admin API.
        let beside = format!("/../..{path}");
        let path = path.strip_prefix("/admin/v1").unwrap_or(&beside);
        // Of the data API errors look otherwise; they are tested with it.
        if path.contains("/v1/data/") {
            continue;
        }
        for method in item.as_object().context("no operations")?.keys() {
            let method = method.to_uppercase().parse()?;
            endpoints.push((method, path.replace(['{', '}'], "")));
        }
    }
    assert!(endpoints.len() > 20, "{endpoints:?}");

    let gateway_token = fleet.stack.gateway_token.clone();
    for token in [None, Some("wrong"), Some(gateway_token.as_str())] {
        let stranger = fleet.admin.with_token(token);
        for (method, path) in &endpoints {
            let answer = Answer::of(stranger.request(method.clone(), path)).await?;
            assert_eq!(answer.status, 401, "{method} {path} with {token:?}: {}", answer.body);
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
    let basic = fleet.admin.with_token(None).request(Method::GET, "/plans");
    let answer = Answer::of(basic.basic_auth("admin", Some(&fleet.stack.admin_token))).await?;
    assert_eq!(answer.status, 401);
    Ok(())
}

/// Each change of a plan is a version, the same terms again are none, and changes at the same time
/// leave no gap and lose nothing.
#[tokio::test]
async fn plans_have_versions() -> Result<()> {
    let fleet = operator().await?;
    let terms = json!({ "currency": "USD", "limits": [monthly(100)], "prices": [flat("5.00")] });
    let made = fleet.admin.put("/plans/team", &terms).await?;
    assert_eq!((made.status, made.ok()?["version"].as_i64()), (201, Some(1)));
    let again = fleet.admin.put("/plans/team", &terms).await?;
    assert_eq!((again.status, again.ok()?["version"].as_i64()), (200, Some(1)));

    fleet.admin.put("/plans/team/limits", &json!([monthly(200)])).await?.ok()?;
    fleet.admin.put("/plans/team/prices", &json!([per_unit("0.01")])).await?.ok()?;
    let plan = fleet.admin.get("/plans/team").await?.ok()?;
    assert_eq!(plan["version"], 3);
    assert_eq!(plan["limits"], json!([monthly(200)]));
    assert_eq!(plan["limits"], fleet.admin.get("/plans/team/limits").await?.ok()?);
    assert_eq!(plan["prices"][0]["charge"]["unit_price"], "0.01");
    assert_eq!(plan["prices"], fleet.admin.get("/plans/team/prices").await?.ok()?);

    let writes = (0..8).map(|n| {
        let limits = json!([continuous("burst", "tokens", 100 + n, 1, 1000)]);
        let request = fleet.admin.request(Method::PUT, "/plans/team/limits").json(&limits);
        tokio::spawn(async move { Answer::of(request).await?.ok() })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await??;
    }
    let versions = pages(&fleet, "/plans/team/versions", 4).await?;
    let numbers: Vec<_> = versions.iter().filter_map(|plan| plan["version"].as_i64()).collect();
    assert_eq!(numbers, (1..=11).rev().collect::<Vec<_>>());
    assert_eq!(versions[10]["limits"], terms["limits"], "an old version stays as it was");
    Ok(())
}

/// Usage is priced per quarter hour, so a plan change counts from the next one; of several changes
/// in one quarter hour the last counts.
#[tokio::test]
async fn prices_change_with_the_next_quarter_hour() -> Result<()> {
    let fleet = operator().await?;
    fleet.tenant("acme", &[], &[flat("1.00")]).await?;
    fleet.tenant("beta", &[], &[flat("9.00")]).await?;
    fleet.admin.put("/plans/acme-plan/prices", &json!([flat("2.00")])).await?.ok()?;
    fleet.admin.put("/plans/acme-plan/prices", &json!([flat("3.00")])).await?.ok()?;
    fleet.admin.patch("/tenants/beta", &json!({ "plan": "acme-plan" })).await?.ok()?;
    let beta = fleet.admin.get("/tenants/beta").await?.ok()?;
    assert_eq!((&beta["plan"], &beta["plan_version"]), (&json!("acme-plan"), &json!(3)));

    let database = &fleet.stack.database;
    let first = database
        .query(
            "select distinct on (tenant.id) tenant.id, tenant_terms.plan_id, plan_version,
               created_at - starts_at < interval '15 minutes' and starts_at <= created_at
             from tenant join tenant_terms on tenant_id = tenant.id order by tenant.id, starts_at",
        )
        .await?;
    assert_eq!(first.trim(), "acme|acme-plan|1|t\nbeta|beta-plan|1|t");
    let last = database
        .query(
            "select distinct on (tenant_id) tenant_id, plan_id, plan_version,
               starts_at > now() - interval '2 minutes' and starts_at <= now() + interval '15 minutes'
             from tenant_terms order by tenant_id, starts_at desc",
        )
        .await?;
    assert_eq!(last.trim(), "acme|acme-plan|3|t\nbeta|acme-plan|3|t");
    Ok(())
}

/// Every change that gateways must hear of is announced, in revisions without a gap; what changes
/// nothing is not.
#[tokio::test]
async fn changes_are_announced() -> Result<()> {
    let fleet = operator().await?;
    fleet.tenant("acme", &[], &[]).await?;
    fleet.admin.post("/tenants", &json!({ "id": "beta", "plan": "acme-plan" })).await?.ok()?;
    for state in ["suspended", "suspended", "active"] {
        let action = if state == "active" { "resume" } else { "suspend" };
        let tenant =
            fleet.admin.post(&format!("/tenants/acme/{action}"), &json!(null)).await?.ok()?;
        assert_eq!(tenant["state"], state);
        assert_eq!(fleet.admin.get("/tenants/acme").await?.ok()?, tenant);
    }
    let renamed = json!({ "name": "Acme", "time_zone": "europe/zurich" });
    let tenant = fleet.admin.patch("/tenants/acme", &renamed).await?.ok()?;
    assert_eq!((&tenant["name"], &tenant["time_zone"]), (&json!("Acme"), &json!("Europe/Zurich")));
    fleet.admin.patch("/tenants/acme", &json!({ "name": "ACME" })).await?.ok()?;
    fleet.admin.put("/plans/acme-plan/limits", &json!([monthly(7)])).await?.ok()?;

    let changes = fleet
        .stack
        .database
        .query("select string_agg(revision || ' ' || tenant_id, ', ' order by revision) from config_change")
        .await?;
    assert_eq!(changes.trim(), "2 acme, 3 beta, 4 acme, 5 acme, 6 acme, 7 acme, 8 beta");
    let revision = fleet.stack.database.query("select revision from config_revision").await?;
    assert_eq!(revision.trim(), "8");
    Ok(())
}

/// A list comes in pages, each item once and in order.
#[tokio::test]
async fn lists_come_in_pages() -> Result<()> {
    let fleet = operator().await?;
    fleet.admin.put("/plans/team", &json!({ "currency": "USD" })).await?.ok()?;
    let ids: Vec<String> = (0..7).map(|n| format!("t{n}")).collect();
    for id in ids.iter().rev() {
        fleet.admin.post("/tenants", &json!({ "id": id, "plan": "team" })).await?.ok()?;
        fleet.admin.post("/tenants/t6/api-keys", &json!({ "name": id })).await?.ok()?;
    }
    for length in [1, 3, 7, 500] {
        let tenants = pages(&fleet, "/tenants", length).await?;
        let seen: Vec<_> = tenants.iter().filter_map(|tenant| tenant["id"].as_str()).collect();
        assert_eq!(seen, ids, "pages of {length}");
        let keys = pages(&fleet, "/tenants/t6/api-keys", length).await?;
        let seen: Vec<_> = keys.iter().rev().filter_map(|key| key["name"].as_str()).collect();
        assert_eq!(seen, ids, "pages of {length}");
    }
    Ok(())
}

/// A key is shown once and is of one tenant; a token works until it is revoked.
#[tokio::test]
async fn credentials_are_shown_once_and_can_be_revoked() -> Result<()> {
    let fleet = operator().await?;
    fleet.tenant("acme", &[], &[]).await?;
    fleet.tenant("beta", &[], &[]).await?;
    let made = fleet.admin.post("/tenants/acme/api-keys", &json!({ "name": "ci" })).await?;
    let key = made.ok()?;
    let secret = key["key"].as_str().context("no key")?;
    assert!(secret.starts_with("weir_key_") && secret.len() == 73, "{secret}");
    let list = fleet.admin.get("/tenants/acme/api-keys").await?;
    assert!(!list.body.contains(secret), "{}", list.body);
    assert_eq!(list.ok()?["items"][0]["id"], key["id"]);
    let id = &key["id"];
    assert_eq!(fleet.admin.delete(&format!("/tenants/beta/api-keys/{id}")).await?.status, 404);
    assert_eq!(fleet.admin.delete(&format!("/tenants/acme/api-keys/{id}")).await?.status, 204);
    assert_eq!(fleet.admin.get("/tenants/acme/api-keys").await?.ok()?["items"], json!([]));

    for (role, allowed) in [("admin", 200), ("gateway", 401)] {
        let token = json!({ "role": role, "name": "Ada" });
        let token = fleet.admin.post("/access-tokens", &token).await?.ok()?;
        let holder = fleet.admin.with_token(token["token"].as_str());
        assert_eq!(holder.get("/tenants").await?.status, allowed, "{role}");
        let path = format!("/access-tokens/{}", token["id"]);
        assert_eq!(fleet.admin.delete(&path).await?.status, 204);
        assert_eq!(holder.get("/tenants").await?.status, 401, "{role}");
    }
    Ok(())
}

/// All items of a list, in pages of at most `length`.
async fn pages(fleet: &Fleet, path: &str, length: usize) -> Result<Vec<Value>> {
    let mut items = Vec::new();
    let mut after = String::new();
    loop {
        let page = fleet.admin.get(&format!("{path}?limit={length}{after}")).await?.ok()?;
        let part = page["items"].as_array().context("no items")?;
        anyhow::ensure!(part.len() <= length, "a page of {} items", part.len());
        items.extend_from_slice(part);
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(items),
        }
    }
}
