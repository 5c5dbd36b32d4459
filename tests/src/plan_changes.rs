//! A tenant moves to another plan with its next billing period.

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    harness::*,
    invoices::{amounts, start, tenant_since, use_tokens},
};

const CHANGE: &str = "/tenants/acme/plan-change";

/// Tenant `acme` on the plan `old`, and the plan `new`.
async fn plans() -> Result<Fleet> {
    let fleet = start().await?;
    write(&fleet, "old", "10.00").await?;
    write(&fleet, "new", "30.00").await?;
    fleet.admin.post("/tenants", &json!({ "id": "acme", "plan": "old" })).await?.ok()?;
    Ok(fleet)
}

/// A version of a plan with a flat price and a limit of its name.
async fn write(fleet: &Fleet, plan: &str, amount: &str) -> Result<()> {
    let limit = json!({ "name": plan, "unit": "tokens", "capacity": 10, "refill": { "kind": "periodic", "period": "day" } });
    let terms = json!({ "currency": "USD", "limits": [limit], "prices": [flat(amount)] });
    fleet.admin.put(&format!("/plans/{plan}"), &terms).await?.ok().map(drop)
}

async fn plan_change(fleet: &Fleet, plan: &str) -> Result<Value> {
    fleet.admin.put(CHANGE, &json!({ "plan": plan, "starts": "next_period" })).await?.ok()
}

async fn preview(fleet: &Fleet) -> Result<Value> {
    fleet.admin.get("/tenants/acme/invoices/preview").await?.ok()
}

/// The current period is priced by the old plan to its end, the next one by the new plan from its
/// start, wherever that moves to, at the newest versions of both; limits change then too.
#[tokio::test]
async fn a_planned_change_starts_with_the_next_period() -> Result<()> {
    let fleet = plans().await?;
    let planned = plan_change(&fleet, "new").await?;
    assert_eq!(planned["starts_at"], preview(&fleet).await?["period_end"]);

    write(&fleet, "old", "11.00").await?;
    write(&fleet, "new", "31.00").await?;
    let ended = fleet.admin.post("/tenants/acme/billing-period/end", &json!({})).await?.ok()?;
    let moved = fleet.admin.get(CHANGE).await?.ok()?;
    assert_eq!(moved["starts_at"], ended["period_end"]);
    let next = preview(&fleet).await?;
    assert_eq!(amounts(&next), ["31.00", "31.00"]);
    assert_eq!(next["period_start"], ended["period_end"]);

    let tenant = async || fleet.admin.get("/tenants/acme").await?.ok();
    assert_eq!(tenant().await?["plan"], "old");
    // As if the time had come.
    fleet.stack.database.query("update plan_change set starts_at = now()").await?;
    wait_for("the new plan", SOON, async || Ok((tenant().await?["plan"] == "new").then_some(())))
        .await?;
    let buckets = fleet.admin.get("/tenants/acme/buckets").await?.ok()?;
    assert!(buckets.to_string().contains(r#""limit":"new""#), "{buckets}");
    assert_eq!(fleet.admin.get(CHANGE).await?.status, 404);
    Ok(())
}

/// A change that is withdrawn, or overtaken by another one or by the tenant's end, leaves nothing behind.
#[tokio::test]
async fn a_planned_change_is_withdrawn_or_overtaken() -> Result<()> {
    let fleet = plans().await?;
    write(&fleet, "other", "20.00").await?;
    plan_change(&fleet, "new").await?;
    assert_eq!(fleet.admin.delete(CHANGE).await?.status, 204);
    assert_eq!(fleet.admin.delete(CHANGE).await?.status, 404);
    plan_change(&fleet, "new").await?;
    let planned = plan_change(&fleet, "other").await?;
    assert_eq!(fleet.admin.get(CHANGE).await?.ok()?, planned);
    let sql = "select plan_id from tenant_terms order by starts_at desc limit 1";
    assert_eq!(fleet.stack.database.query(sql).await?.trim(), "other");
    // At once: nothing is planned any more.
    fleet.admin.patch("/tenants/acme", &json!({ "plan": "new" })).await?.ok()?;
    assert_eq!(fleet.admin.get(CHANGE).await?.status, 404);
    assert_eq!(fleet.stack.database.query(sql).await?.trim(), "new");

    plan_change(&fleet, "other").await?;
    fleet.admin.post("/tenants/acme/close", &json!({})).await?.ok()?;
    assert_eq!(fleet.admin.get(CHANGE).await?.status, 404);
    assert_eq!(fleet.stack.database.query(sql).await?.trim(), "new");
    let change = json!({ "plan": "other", "starts": "next_period" });
    let answer = fleet.admin.put(CHANGE, &change).await?;
    assert!(answer.status == 409 && answer.body.contains("is closed"), "{}", answer.body);
    Ok(())
}

/// Mistakes are refused, and nothing is planned.
#[tokio::test]
async fn a_change_that_can_not_be_planned_says_why() -> Result<()> {
    let fleet = plans().await?;
    fleet.admin.put("/plans/yen", &json!({ "currency": "JPY" })).await?.ok()?;
    for (body, status, says) in [
        (json!({ "plan": "old", "starts": "next_period" }), 400, "on old already"),
        (json!({ "plan": "none", "starts": "next_period" }), 400, "there is no plan"),
        (json!({ "plan": "yen", "starts": "next_period" }), 409, "billed in USD"),
        (json!({ "plan": "new", "starts": "tomorrow" }), 400, "next_period"),
        (json!({ "plan": "new" }), 400, "starts"),
    ] {
        let answer = fleet.admin.put(CHANGE, &body).await?;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        assert!(answer.body.contains(says), "{body}: {}", answer.body);
    }
    let change = json!({ "plan": "new", "starts": "next_period" });
    assert_eq!(fleet.admin.put("/tenants/nobody/plan-change", &change).await?.status, 404);
    assert_eq!(fleet.admin.get(CHANGE).await?.status, 404);
    // A plan that somebody will be on keeps its currency.
    plan_change(&fleet, "new").await?;
    assert_eq!(fleet.admin.put("/plans/new", &json!({ "currency": "JPY" })).await?.status, 409);
    Ok(())
}

/// Prices that change with this quarter hour, by a call that has not ended, are on the invoice of a period
/// that is ended meanwhile: it waits for them.
#[tokio::test]
async fn prices_that_are_being_changed_are_waited_for() -> Result<()> {
    let fleet = start().await?;
    let query = async |sql: &str| fleet.stack.database.query(sql).await;
    let prices = |price: &str| json!({ "currency": "USD", "prices": [per_unit(price)] });
    let since = query("select now() - interval '2 hours'").await?;
    tenant_since(&fleet, "acme", since.trim(), prices("0.01"), "UTC").await?;
    // The test must not cross into the next quarter hour.
    wait_for("a quarter hour with 30 s left", SOON * 3, async || {
        let left = "select 900 - extract(epoch from clock_timestamp())::bigint % 900";
        Ok((query(left).await?.trim().parse::<i64>()? > 30).then_some(()))
    })
    .await?;
    let quarter = "select to_char(date_bin('15 minutes', now(), 'epoch') at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";
    let quarter = query(quarter).await?;
    use_tokens(&fleet, "acme", quarter.trim(), 100).await?;
    // As if the call had come in the last moment of the quarter hour before.
    query(
        "create function earlier() returns trigger language plpgsql as $$
         begin new.starts_at := new.starts_at - interval '15 minutes'; return new; end $$;
         create trigger earlier before insert on tenant_terms for each row execute function earlier()",
    )
    .await?;

    // What gateways hear of is written last.
    let slow = "begin; update config_revision set revision = revision; select pg_sleep(60)";
    let of_weir = "datname = current_database() and application_name = 'weir'";
    let waits = async |what: &str, whose: &str| {
        wait_for(what, SOON, async || {
            let sql = format!("select count(*) from pg_stat_activity where {whose}");
            Ok((query(&sql).await?.trim() == "1").then_some(()))
        })
        .await
    };
    let path = "/tenants/acme/billing-period/end";
    let story = async {
        waits("somebody who is slow", "wait_event = 'PgSleep' and datname = current_database()")
            .await?;
        let changed = async { fleet.admin.put("/plans/acme-plan", &prices("0.02")).await?.ok() };
        let ended = async {
            waits("the change", &format!("{of_weir} and wait_event_type = 'Lock'")).await?;
            fleet.admin.post(path, &json!({})).await?.ok()
        };
        let let_go = async {
            waits("the end", &format!("{of_weir} and wait_event = 'advisory'")).await?;
            query("select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()").await
        };
        let (_, ended, _) = tokio::try_join!(changed, ended, let_go)?;
        anyhow::Ok(ended)
    };
    let (_, ended) = tokio::join!(query(slow), story);
    let ended = ended?;
    assert_eq!(amounts(&ended), ["0.00", "2.00", "2.00"]);
    Ok(())
}
