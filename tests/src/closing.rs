//! Tenants that leave: nothing is admitted any more, the last period ends, no fees follow, and what they
//! used and was not billed yet still is.

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    harness::*,
    invoices::{amounts, invoices, run, start, tenant_since, use_tokens},
};

/// A closed tenant is refused, has its last invoice at once, and stays closed.
#[tokio::test]
async fn a_closed_tenant_is_refused_and_billed_at_once() -> Result<()> {
    let fleet = Fleet::start().await?;
    fleet.tenant("acme", &[monthly(100)], &[flat("49.00"), per_unit("0.01")]).await?;
    assert_eq!(fleet.drive("acme", 4, 20).await?.of(200), 20);
    fleet.ledger_reaches("acme", 20).await?;
    let nothing = json!({});
    let call = |action: &str| {
        let path = format!("/tenants/acme/{action}");
        let (admin, nothing) = (&fleet.admin, &nothing);
        async move { admin.post(&path, nothing).await }
    };
    let (first, second) = tokio::try_join!(call("close"), call("close"))?;
    let closed = first.ok()?;
    assert_eq!((&closed["state"], &second.ok()?), (&json!("closed"), &closed));
    wait_for("a refusal", SOON, async || {
        Ok((fleet.call("acme", "/").await?.status == 403).then_some(()))
    })
    .await?;
    let made = invoices(&fleet, "acme").await?;
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(amounts(&made[0]), ["49.00", "0.20", "49.20"]);
    assert_eq!(made[0]["period_end"], closed["closed_at"]);

    for action in ["suspend", "resume", "billing-period/end"] {
        let answer = call(action).await?;
        assert_eq!(answer.status, 409, "{action}: {}", answer.body);
    }
    fleet.admin.put("/plans/other", &json!({ "currency": "USD" })).await?.ok()?;
    let moved = fleet.admin.patch("/tenants/acme", &json!({ "plan": "other" })).await?;
    assert!(moved.status == 409 && moved.body.contains("is closed"), "{}", moved.body);
    fleet.admin.patch("/tenants/acme", &json!({ "name": "Acme, gone" })).await?.ok()?;
    assert_eq!(run(&fleet, "2099-01-01T00:00:00Z").await?, "0 invoices made for 1 tenant.\n");
    let (browser, ..) = crate::portal::signed_in(&fleet, "acme").await?;
    assert!(browser.get("").await?.body.contains("This account is closed"));
    assert_eq!(fleet.admin.post("/tenants/nobody/close", &nothing).await?.status, 404);
    Ok(())
}

/// Periods end with the tenant. What it used later, and what comes late for earlier periods, is on one
/// invoice without fees and minimums; without such usage there is none.
#[tokio::test]
async fn after_the_end_only_usage_is_billed_and_only_where_there_is_some() -> Result<()> {
    let fleet = start().await?;
    let prices = [flat("10.00"), per_unit("0.01")];
    let plan = json!({ "currency": "USD", "prices": prices, "minimum": "15.00" });
    tenant_since(&fleet, "acme", "2025-01-01T00:00:00Z", plan, "UTC").await?;
    use_tokens(&fleet, "acme", "2025-01-20T10:00:00Z", 600).await?;
    let close = "update tenant set state = 'closed', closed_at = '2025-02-10T10:15:00Z'";
    fleet.stack.database.query(close).await?;
    run(&fleet, "2025-06-01T00:00:00Z").await?;
    assert_eq!(billed(&fleet).await?, ["10.00 6.00 16.00", "10.00 0.00 5.00 15.00"]);
    let last = &invoices(&fleet, "acme").await?[1];
    assert_eq!(last["period_end"], "2025-02-10T10:15:00Z");

    use_tokens(&fleet, "acme", "2025-01-20T10:15:00Z", 30).await?;
    use_tokens(&fleet, "acme", "2025-02-10T10:15:00Z", 20).await?;
    use_tokens(&fleet, "acme", "2025-03-31T23:45:00Z", 5).await?;
    // It is made with a month's end.
    let running = run(&fleet, "2025-02-28T00:00:00Z").await?;
    assert_eq!(running, "0 invoices made for 1 tenant.\n");
    let as_of = "2025-05-15T00:00:00Z";
    let (one, two) = tokio::join!(run(&fleet, as_of), run(&fleet, as_of));
    one?;
    two?;
    let made = invoices(&fleet, "acme").await?;
    assert_eq!(made.len(), 3, "{made:?}");
    assert_eq!(amounts(&made[2]), ["0.25", "0.30", "0.55"]);
    let times = (&made[2]["period_start"], &made[2]["period_end"]);
    assert_eq!(times, (&json!("2025-02-10T10:15:00Z"), &json!("2025-05-01T00:00:00Z")));

    // One tenant alone is the other way through the code. What came late is priced as the rest was.
    use_tokens(&fleet, "acme", "2025-03-31T23:45:00Z", 7).await?;
    for _ in 0..2 {
        let run = ["invoice", "run", "--tenant", "acme", "--as-of", "2025-09-15T00:00:00Z"];
        assert!(fleet.stack.weir(&run).await?.status.success());
    }
    let made = billed(&fleet).await?;
    assert_eq!(made[2..], ["0.25 0.30 0.55", "0.00 0.07 0.07"]);
    Ok(())
}

/// Where periods are not months, what is left comes at the end of one that would have been.
#[tokio::test]
async fn after_the_end_the_dates_of_the_plan_go_on() -> Result<()> {
    let fleet = start().await?;
    let prices = [flat("10.00"), per_unit("0.01")];
    let plan =
        json!({ "currency": "USD", "prices": prices, "billing_period": { "every_days": 10 } });
    tenant_since(&fleet, "acme", "2025-01-01T00:00:00Z", plan, "UTC").await?;
    let close = "update tenant set state = 'closed', closed_at = '2025-01-14T10:15:00Z'";
    fleet.stack.database.query(close).await?;
    use_tokens(&fleet, "acme", "2025-01-23T00:00:00Z", 5).await?;
    run(&fleet, "2025-02-05T00:00:00Z").await?;
    let made = invoices(&fleet, "acme").await?;
    let ends: Vec<_> = made.iter().map(|invoice| &invoice["period_end"]).collect();
    assert_eq!(ends, ["2025-01-11T00:00:00Z", "2025-01-14T10:15:00Z", "2025-01-31T00:00:00Z"]);
    assert_eq!(billed(&fleet).await?, ["10.00 0.00 10.00", "10.00 0.00 10.00", "0.05 0.05"]);
    Ok(())
}

async fn billed(fleet: &Fleet) -> Result<Vec<String>> {
    let made: Vec<Value> = invoices(fleet, "acme").await?;
    Ok(made.iter().map(|invoice| amounts(invoice).join(" ")).collect())
}
