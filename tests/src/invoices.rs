//! From rolled-up usage to invoices: amounts computed by hand, each period invoiced once, and late
//! usage on the next invoice. Billing periods lie in 2025, so that they have ended.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::harness::*;

/// A Weir without gateways: usage comes through the edge API or straight into the rollup.
pub(crate) async fn start() -> Result<Fleet> {
    Fleet::with(|stack| stack.gateways(0)).await
}

/// A tenant on a plan of its own, as if it had been created at `since`.
pub(crate) async fn tenant_since(
    fleet: &Fleet,
    id: &str,
    since: &str,
    plan: Value,
    zone: &str,
) -> Result<()> {
    fleet.admin.put(&format!("/plans/{id}-plan"), &plan).await?.ok()?;
    let tenant = json!({ "id": id, "plan": format!("{id}-plan"), "time_zone": zone });
    fleet.admin.post("/tenants", &tenant).await?.ok()?;
    let sql = format!(
        "update tenant set created_at = '{since}' where id = '{id}';
         update tenant_terms set starts_at = to_timestamp(floor(extract(epoch from '{since}'::timestamptz) / 900) * 900)
         where tenant_id = '{id}'"
    );
    fleet.stack.database.query(&sql).await.map(drop)
}

/// Adds usage of the meter `default` to a quarter hour.
pub(crate) async fn use_tokens(
    fleet: &Fleet,
    tenant: &str,
    quarter: &str,
    tokens: u64,
) -> Result<()> {
    use_of(fleet, tenant, quarter, ("default", ""), tokens).await
}

/// Adds tokens and a request of a meter and model to a quarter hour.
pub(crate) async fn use_of(
    fleet: &Fleet,
    tenant: &str,
    quarter: &str,
    (meter, model): (&str, &str),
    tokens: u64,
) -> Result<()> {
    let sql = format!(
        "insert into usage_rollup (tenant_id, quarter, meter, model, tokens, requests)
         values ('{tenant}', '{quarter}', '{meter}', '{model}', {tokens}, 1)
         on conflict (tenant_id, quarter, meter, model) do update
         set tokens = usage_rollup.tokens + excluded.tokens, requests = usage_rollup.requests + 1"
    );
    fleet.stack.database.query(&sql).await.map(drop)
}

/// `weir invoice run` as if it were that time; what it says.
pub(crate) async fn run(fleet: &Fleet, as_of: &str) -> Result<String> {
    let output = fleet.stack.weir(&["invoice", "run", "--as-of", as_of]).await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// The tenant's invoices, oldest first.
pub(crate) async fn invoices(fleet: &Fleet, tenant: &str) -> Result<Vec<Value>> {
    let mut page =
        fleet.admin.get(&format!("/invoices?tenant={tenant}&state=final")).await?.ok()?;
    let mut items = page["items"].take().as_array().cloned().context("items")?;
    items.reverse();
    Ok(items)
}

/// The invoice's amounts, and then its total.
pub(crate) fn amounts(invoice: &Value) -> Vec<&str> {
    let lines = invoice["lines"].as_array().map(Vec::as_slice).unwrap_or_default();
    let lines = lines.iter().map(|line| &line["amount"]);
    lines.chain([&invoice["total"]]).filter_map(Value::as_str).collect()
}

/// Every pricing model, in currencies with 2, 0 and 3 digits, equals what is computed by hand.
#[tokio::test]
async fn an_invoice_equals_a_table_computed_by_hand() -> Result<()> {
    let fleet = start().await?;
    // 1,234 + 16 tokens: 1250 × 0.0001 = 0.125; 250 × 0.0111 = 2.775; 500 × 0.0103 + 750 × 0.0051 =
    // 5.15 + 3.825 = 8.975; each rounded half to even in its currency's minor unit.
    let tiers = [(Some(500), "0.0103"), (None, "0.0051")];
    for (currency, fee, expected) in [
        ("USD", "49.50", ["49.50", "0.12", "2.78", "8.98", "61.38"]),
        ("JPY", "49", ["49", "0", "3", "9", "61"]),
        ("KWD", "49.505", ["49.505", "0.125", "2.775", "8.975", "61.380"]),
    ] {
        let mut prices =
            [flat(fee), per_unit("0.0001"), per_unit_above(1_000, "0.0111"), graduated(&tiers)];
        prices[2]["meter"] = json!("chat");
        prices[3]["meter"] = json!("images");
        let plan = json!({ "currency": currency, "prices": prices });
        tenant_since(&fleet, currency, "2025-01-01T00:00:00Z", plan, "UTC").await?;
        for meter in ["default", "chat", "images"] {
            let used = async |quarter, tokens| {
                use_of(&fleet, currency, quarter, (meter, ""), tokens).await
            };
            used("2025-01-01T00:00:00Z", 1_234).await?;
            used("2025-01-31T23:45:00Z", 16).await?;
            used("2025-02-01T00:00:00Z", 1_000_000).await?;
        }
        run(&fleet, "2025-02-01T00:00:00Z").await?;

        let invoices = invoices(&fleet, currency).await?;
        assert_eq!(invoices.len(), 1);
        assert_eq!(amounts(&invoices[0]), expected, "{currency}");
        assert_eq!(invoices[0]["period_end"], "2025-02-01T00:00:00Z");
        let line = &invoices[0]["lines"][2];
        assert_eq!(
            (&line["quantity"], &line["included"], &line["unit_price"], &line["unit"]),
            (&json!(1_250), &json!(1_000), &json!("0.0111"), &json!("tokens")),
        );
        let id = invoices[0]["id"].as_i64().context("id")?;
        assert_eq!(fleet.admin.get(&format!("/invoices/{id}")).await?.ok()?, invoices[0]);
    }
    assert_eq!(fleet.admin.get("/invoices/999").await?.status, 404);
    Ok(())
}

/// Periods are the calendar months of the tenant's zone, from the quarter hour of its creation, and
/// a plan that changes within one is charged for its share of it.
#[tokio::test]
async fn periods_follow_the_zone_and_plans_are_charged_for_their_share() -> Result<()> {
    let fleet = start().await?;
    let plan = json!({ "currency": "USD", "prices": [flat("31.00"), per_unit("0.01")] });
    tenant_since(&fleet, "acme", "2025-01-10T10:07:00Z", plan, "Europe/Zurich").await?;
    let plan = json!({ "currency": "USD", "prices": [flat("62.00"), per_unit("0.01")] });
    fleet.admin.put("/plans/acme-plan", &plan).await?.ok()?;
    // From the start of 15 February in Zurich: 14 days at 31.00, 14 at 62.00.
    let sql = "update tenant_terms set starts_at = '2025-02-14T23:00:00Z' where plan_version = 2";
    fleet.stack.database.query(sql).await?;
    use_tokens(&fleet, "acme", "2025-02-14T22:45:00Z", 100).await?;
    use_tokens(&fleet, "acme", "2025-02-14T23:00:00Z", 200).await?;
    run(&fleet, "2025-02-28T23:00:00Z").await?;

    let invoices = invoices(&fleet, "acme").await?;
    let times = |index: usize| (&invoices[index]["period_start"], &invoices[index]["period_end"]);
    assert_eq!(times(0), (&json!("2025-01-10T10:00:00Z"), &json!("2025-01-31T23:00:00Z")));
    assert_eq!(times(1), (&json!("2025-01-31T23:00:00Z"), &json!("2025-02-28T23:00:00Z")));
    assert_eq!(amounts(&invoices[0]), ["31.00", "0.00", "31.00"]);
    // The price that did not change is one line.
    assert_eq!(amounts(&invoices[1]), ["15.50", "3.00", "31.00", "49.50"]);
    assert_eq!(invoices[1]["lines"][0]["share"], json!({ "quarter_hours": 1344, "of": 2688 }));
    Ok(())
}

/// Runs that overlap or are repeated make each invoice once, with numbers that have no gaps.
#[tokio::test]
async fn two_runs_at_once_and_a_repeated_one_make_each_invoice_once() -> Result<()> {
    let fleet = start().await?;
    for tenant in ["a", "b", "c", "d", "e", "f"] {
        let plan = json!({ "currency": "USD", "prices": [flat("5.00")] });
        tenant_since(&fleet, tenant, "2025-01-01T00:00:00Z", plan, "UTC").await?;
    }
    let as_of = "2025-07-01T00:00:00Z";
    let (first, second) = tokio::join!(run(&fleet, as_of), run(&fleet, as_of));
    first?;
    second?;
    assert_eq!(run(&fleet, as_of).await?, "0 invoices made for 6 tenants.\n");

    let sql = "select count(*), count(distinct (tenant_id, period_start)), min(number), max(number), sum(total_minor) from invoice";
    let stored = fleet.stack.database.query(sql).await?;
    assert_eq!(stored.trim(), "36|36|INV-000001|INV-000036|18000");
    let output = fleet.stack.weir(&["invoice", "run", "--tenant", "nobody"]).await?;
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no tenant \"nobody\""));
    // Pages hold each invoice once.
    let page = fleet.admin.get("/invoices?limit=30").await?.ok()?;
    let after = page["next"].as_str().context("next")?;
    let rest = fleet.admin.get(&format!("/invoices?limit=30&after={after}")).await?.ok()?;
    assert_eq!(rest["items"].as_array().map(Vec::len), Some(6));
    assert_eq!(rest["next"], Value::Null);
    Ok(())
}

/// A tenant whose invoice can't be computed holds up nobody else, and is told of.
#[tokio::test]
async fn a_tenant_that_can_not_be_invoiced_holds_up_nobody() -> Result<()> {
    let fleet = start().await?;
    for tenant in ["a", "broken", "c"] {
        let plan = json!({ "currency": "USD", "prices": [flat("5.00")] });
        tenant_since(&fleet, tenant, "2025-01-01T00:00:00Z", plan, "UTC").await?;
    }
    fleet.stack.database.query("delete from tenant_terms where tenant_id = 'broken'").await?;
    let run = fleet.stack.weir(&["invoice", "run", "--as-of", "2025-02-01T00:00:00Z"]).await?;
    assert!(!run.status.success());
    assert_eq!(String::from_utf8(run.stdout)?, "2 invoices made for 3 tenants.\n");
    let errors = String::from_utf8(run.stderr)?;
    assert!(errors.contains("\"tenant\":\"broken\"") && errors.contains("no terms"), "{errors}");
    let numbers = fleet.stack.database.query("select string_agg(number, ' ') from invoice").await?;
    assert_eq!(numbers.trim(), "INV-000001 INV-000002");
    Ok(())
}

/// Usage that arrives after its period's invoice comes with the next one, once, priced as if it had
/// been on time.
#[tokio::test]
async fn late_usage_is_an_adjustment_on_the_next_invoice() -> Result<()> {
    let fleet = start().await?;
    let plan = json!({ "currency": "USD", "prices": [per_unit_above(100, "0.01")] });
    tenant_since(&fleet, "acme", "2025-01-01T00:00:00Z", plan, "UTC").await?;
    use_tokens(&fleet, "acme", "2025-01-20T10:00:00Z", 90).await?;
    run(&fleet, "2025-02-01T00:00:00Z").await?;

    // 2025-01-20T10:00Z, from a gateway that was cut off: 10 more are included, 20 are not.
    let record = json!({ "tenant": "acme", "minute": 28_956_120, "tokens": 30, "requests": 1 });
    let batch = json!({ "version": 1, "gateway": "late", "worker": "0123456789abcdef0123456789abcdef",
                        "sequence": 1, "records": [record] });
    fleet.edge.post("/usage", &batch).await?.ok()?;
    use_tokens(&fleet, "acme", "2025-02-03T00:00:00Z", 150).await?;
    run(&fleet, "2025-03-01T00:00:00Z").await?;
    use_tokens(&fleet, "acme", "2025-01-20T10:15:00Z", 1).await?;
    run(&fleet, "2025-05-01T00:00:00Z").await?;

    let invoices = invoices(&fleet, "acme").await?;
    assert_eq!(amounts(&invoices[0]), ["0.00", "0.00"]);
    assert_eq!(amounts(&invoices[1]), ["0.50", "0.20", "0.70"]);
    let line = &invoices[1]["lines"][1];
    assert_eq!(line["kind"], "adjustment");
    assert_eq!(
        line["adjusts"],
        json!({ "invoice": invoices[0]["id"], "period_start": "2025-01-01T00:00:00Z", "period_end": "2025-02-01T00:00:00Z" }),
    );
    assert_eq!(amounts(&invoices[2]), ["0.00", "0.01", "0.01"]);
    assert_eq!(amounts(&invoices[3]), ["0.00", "0.00"]);
    Ok(())
}

/// An operator ends a period: its invoice is there at once, the next period starts there, and what is
/// used in the rest of the quarter hour is not lost.
#[tokio::test]
async fn a_period_is_ended_early_once() -> Result<()> {
    let fleet = start().await?;
    fleet.tenant("acme", &[], &[flat("49.00"), per_unit_above(100, "0.01")]).await?;
    // The test must not cross into the next quarter hour.
    let left = "select 900 - extract(epoch from clock_timestamp())::bigint % 900";
    wait_for("a quarter hour with 90 s left", SOON * 7, async || {
        let left: i64 = fleet.stack.database.query(left).await?.trim().parse()?;
        Ok((left > 90).then_some(()))
    })
    .await?;
    let now = "select to_char(to_timestamp(floor(extract(epoch from clock_timestamp()) / 900) * 900) at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";
    let quarter = fleet.stack.database.query(now).await?.trim().to_owned();
    use_tokens(&fleet, "acme", &quarter, 110).await?;
    let draft = fleet.admin.get("/tenants/acme/invoices/preview").await?.ok()?;
    assert_eq!(amounts(&draft), ["49.00", "0.10", "49.10"]);
    assert_eq!((&draft["state"], &draft["id"]), (&json!("draft"), &Value::Null));
    assert_eq!(draft["period_start"], quarter.as_str());
    assert!(invoices(&fleet, "acme").await?.is_empty(), "a preview is not stored");

    let nothing = json!({});
    let end = || fleet.admin.post("/tenants/acme/billing-period/end", &nothing);
    let (first, second) = tokio::try_join!(end(), end())?;
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
    let made = &invoices(&fleet, "acme").await?[0];
    assert_eq!(amounts(made), ["49.00", "0.10", "49.10"]);
    assert_eq!(made["number"], "INV-000001");
    assert_eq!(made["period_start"], draft["period_start"]);

    use_tokens(&fleet, "acme", &quarter, 5).await?;
    let draft = fleet.admin.get("/tenants/acme/invoices/preview").await?.ok()?;
    assert_eq!(draft["period_start"], made["period_end"]);
    assert_eq!(amounts(&draft), ["49.00", "0.00", "0.05", "49.05"]);
    let stranger = fleet.admin.get("/tenants/nobody/invoices/preview").await?;
    assert_eq!(stranger.status, 404);
    Ok(())
}
