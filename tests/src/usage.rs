//! The usage endpoints of the admin API sum what the ledger has.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{harness::Fleet, ledger::Worker};

/// The usage query sums what was stored, by stretch and by tenant, page by page.
#[tokio::test]
async fn usage_is_queried_by_stretch_and_page() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(0)).await?;
    fleet.tenant("acme", &[], &[]).await?;
    fleet.tenant("beta", &[], &[]).await?;
    let zurich = json!({ "time_zone": "Europe/Zurich" });
    fleet.admin.patch("/tenants/beta", &zurich).await?.ok()?;
    // 2026-01-31T22:59Z to 23:31Z: midnight in Zurich is at 23:00Z.
    let records: Vec<_> = [(0, 1), (1, 10), (16, 100), (32, 1000)]
        .iter()
        .flat_map(|(offset, tokens)| {
            ["acme", "beta"].map(|tenant| {
                json!({ "tenant": tenant, "minute": 29_498_339 + offset, "tokens": tokens, "requests": 1 })
            })
        })
        .collect();
    fleet.edge.post("/usage", &Worker::new("w").batch(1, json!(records))).await?.ok()?;

    let range = "from=2026-01-31T22:00:00Z&to=2026-02-02T00:00:00Z";
    let by = async |granularity: &str, tenant: &str| {
        let path = format!("/usage?tenant={tenant}&{range}&granularity={granularity}");
        let answer = fleet.admin.get(&path).await?.ok()?;
        let items = answer["items"].as_array().context("items")?.clone();
        let short =
            |item: &Value| format!("{} {}", item["from"].as_str().unwrap_or(""), item["tokens"]);
        anyhow::Ok(items.iter().map(short).collect::<Vec<_>>())
    };
    let hours = ["2026-01-31T22:00:00Z 1", "2026-01-31T23:00:00Z 1110"];
    assert_eq!(by("hour", "acme").await?, hours);
    assert_eq!(by("day", "acme").await?, ["2026-01-31T22:00:00Z 1111"]);
    assert_eq!(by("day", "beta").await?, hours, "the first day is cut at from");
    assert_eq!(by("total", "beta").await?, ["2026-01-31T22:00:00Z 1111"]);
    assert_eq!(by("quarter_hour", "acme").await?.len(), 4);

    let mut path = format!("/usage?{range}&granularity=quarter_hour&limit=3");
    let mut seen = Vec::new();
    loop {
        let page = fleet.admin.get(&path).await?.ok()?;
        seen.extend(page["items"].as_array().context("items")?.clone());
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/usage?{range}&granularity=quarter_hour&limit=3&after={next}");
    }
    assert_eq!(seen.len(), 8);
    assert_eq!(seen.iter().filter_map(|item| item["tokens"].as_u64()).sum::<u64>(), 2222);

    for (query, field) in [
        ("", "from"),
        ("from=2026-01-31T22:01:00Z", "from"),
        ("from=2024-01-31T22:00:00Z&to=2026-01-31T22:00:00Z", "from"),
        ("from=2026-01-31T22:00:00Z&to=2026-01-31T22:00:00Z", "to"),
        ("from=yesterday", "from"),
        ("from=2026-01-31T22:00:00Z&granularity=week", "granularity"),
        ("from=2026-01-31T22:00:00Z&limit=0", "limit"),
        ("from=2026-01-31T22:00:00Z&after=zz", "after"),
        ("from=2026-01-31T22:00:00Z&tenant=a/b", "tenant"),
    ] {
        let answer = fleet.admin.get(&format!("/usage?{query}")).await?;
        assert!(answer.status == 400 && answer.body.contains(field), "{query}: {}", answer.body);
    }
    assert_eq!(fleet.admin.get(&format!("/usage?tenant=nobody&{range}")).await?.status, 404);
    assert_eq!(fleet.admin.get("/tenants/nobody/usage").await?.status, 404);
    Ok(())
}
