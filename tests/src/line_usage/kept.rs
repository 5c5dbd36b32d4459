//! What a line leads to stays what it billed: where usage arrives at the very moment, in quarter hours that are
//! not over, and in any order.

use std::hash::{BuildHasher, RandomState};

use super::*;
use crate::leases::Numbers;

/// A period is ended within a quarter hour, and usage of that quarter hour goes on arriving, without being
/// late: what each invoice billed of it is known.
#[tokio::test]
async fn a_quarter_hour_that_is_cut_is_billed_in_parts() -> Result<()> {
    let fleet = start().await?;
    fleet.admin.put("/plans/plan", &plan("0.02")).await?.ok()?;
    fleet.admin.post("/tenants", &json!({ "id": "acme", "plan": "plan" })).await?.ok()?;
    // The test must not cross into the next quarter hour.
    let left = "select 900 - extract(epoch from clock_timestamp())::bigint % 900";
    wait_for("a quarter hour with 60 s left", SOON * 5, async || {
        let left: i64 = fleet.stack.database.query(left).await?.trim().parse()?;
        Ok((left > 60).then_some(()))
    })
    .await?;
    let draft = fleet.admin.get("/tenants/acme/invoices/preview").await?.ok()?;
    let quarter = draft["period_start"].as_str().context("period_start")?;
    use_of(&fleet, "acme", quarter, ("default", "gpt-4o"), 10).await?;
    use_of(&fleet, "acme", quarter, ("default", ""), 4).await?;
    fleet.admin.post("/tenants/acme/billing-period/end", &json!({})).await?.ok()?;
    let first = told(&fleet, "acme").await?;

    use_of(&fleet, "acme", quarter, ("default", "gpt-4o"), 5).await?;
    use_of(&fleet, "acme", quarter, ("chat", ""), 1).await?;
    let later = fleet.admin.get("/tenants/acme/invoices/preview").await?.ok()?;
    let told_of = async |link: &str| usage_of(&fleet, link, 10).await;
    let [id, line] = [first.keys().next().context("no lines")?].map(|key| [key.0, key.1])[0];
    let link = format!("/admin/v1/invoices/{id}/lines/{line}/usage");
    assert_eq!(told_of(&link).await?["tokens"], 10, "and not what came since");
    // As if the time had come: the quarter hour still runs, and more comes after this invoice too.
    run(&fleet, later["period_end"].as_str().context("period_end")?).await?;
    let second = told(&fleet, "acme").await?;
    assert_unchanged(&first, &second);
    let (_, adjustment) = second.last_key_value().context("no lines")?;
    assert_eq!((adjustment.len(), sum(adjustment, "tokens")), (2, 6), "{adjustment:?}");

    use_of(&fleet, "acme", quarter, ("default", "gpt-4o"), 3).await?;
    let sql = "update tenant set created_at = created_at";
    fleet.stack.database.query(sql).await?;
    let later = fleet.admin.get("/tenants/acme/invoices/preview").await?.ok()?;
    run(&fleet, later["period_end"].as_str().context("period_end")?).await?;
    let third = told(&fleet, "acme").await?;
    assert_unchanged(&second, &third);
    let (_, adjustment) = third.last_key_value().context("no lines")?;
    assert_eq!(sum(adjustment, "tokens"), 3, "{adjustment:?}");
    Ok(())
}

/// Late usage is written without pause while invoices are made: each piece of it is with the invoice that
/// billed it, and what was told is told ever after.
#[tokio::test]
async fn usage_that_arrives_while_invoices_are_made_is_with_one_of_them() -> Result<()> {
    let fleet = acme().await?;
    let end = std::sync::atomic::AtomicBool::new(false);
    let write = async {
        let sql = "do $$ begin for place in 0..19 loop
                     insert into usage_rollup (tenant_id, quarter, meter, model, tokens, requests)
                     values ('acme', timestamptz '2025-01-20T00:00Z' + place * interval '2 days', 'default', 'llama', 1, 1)
                     on conflict (tenant_id, quarter, meter, model) do update
                     set tokens = usage_rollup.tokens + 1, requests = usage_rollup.requests + 1;
                     commit;
                   end loop; end $$";
        while !end.load(std::sync::atomic::Ordering::Relaxed) {
            fleet.stack.database.query(sql).await?;
        }
        anyhow::Ok(())
    };
    let bill = async {
        let mut before = Told::new();
        for month in 2..=12 {
            let as_of = format!("2025-{month:02}-01T00:00:00Z");
            // Of one tenant alone, and of all: two ways through the code.
            match month % 2 {
                0 => run(&fleet, &as_of).await.map(drop)?,
                _ => {
                    let one = ["invoice", "run", "--tenant", "acme", "--as-of", &as_of];
                    ensure!(fleet.stack.weir(&one).await?.status.success());
                }
            }
            let now = lines_told(&fleet).await?;
            assert_unchanged(&before, &now);
            before = now;
        }
        end.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok(before)
    };
    let ((), before) = tokio::try_join!(write, bill)?;
    assert_unchanged(&before, &told(&fleet, "acme").await?);
    Ok(())
}

/// What the lines lead to, while more arrives.
async fn lines_told(fleet: &Fleet) -> Result<Told> {
    let page = fleet.admin.get("/invoices?limit=500").await?.ok()?;
    let mut told = Told::new();
    for invoice in page["items"].as_array().context("items")? {
        for line in invoice["lines"].as_array().context("lines")? {
            let Some(link) = line["usage"].as_str() else { continue };
            let usage = usage_of(fleet, link, 500).await?;
            let items = usage["items"].as_array().cloned().context("items")?;
            let key =
                [&invoice["id"], &line["position"]].map(|number| number.as_i64().unwrap_or(0));
            told.insert((key[0], key[1]), items);
        }
    }
    Ok(told)
}

/// Any order of usage, late usage, corrections, invoices, and invoices that are billed again.
#[tokio::test]
async fn any_history_adds_up() -> Result<()> {
    let fleet = acme().await?;
    let seed = RandomState::new().hash_one(0) >> 32;
    println!("seed {seed}");
    let mut numbers = Numbers(seed);
    let mut below = |end: u64| numbers.below(end);
    let mut month = 2;
    let mut before = Told::new();
    for step in 0..60 {
        let model = ["", "gpt-4", "gpt-4o", "llama"][below(4) as usize];
        let meter = ["default", "chat"][below(2) as usize];
        let (day, minute) = (7 + 7 * below(3), 15 * below(4));
        let quarter = format!("2025-{:02}-{day:02}T14:{minute:02}:00Z", 1 + below(month));
        match below(10) {
            0..5 => use_of(&fleet, "acme", &quarter, (meter, model), 1 + below(50)).await?,
            5..8 => {
                // Where there is not so much to take away, it is refused.
                let tokens = -1 - i64::try_from(below(20))?;
                let entries = json!([{ "quarter": quarter, "meter": meter, "model": model, "tokens": tokens }]);
                let path = format!("/tenants/acme/usage-corrections/c{step}");
                let body = json!({ "reason": "Wrong", "entries": entries });
                fleet.admin.put(&path, &body).await?;
            }
            8 if month < 9 => {
                run(&fleet, &format!("2025-{month:02}-01T00:00:00Z")).await?;
                month += 1;
            }
            _ if month > 2 => {
                let sql = "select id from invoice where not rebilled order by id desc limit 1";
                let last: i64 = match fleet.stack.database.query(sql).await?.trim() {
                    "" => continue,
                    id => id.parse()?,
                };
                let void = json!({ "reason": "Wrong", "rebill": true });
                fleet.admin.post(&format!("/invoices/{last}/void"), &void).await?.ok()?;
                before.retain(|line, _| line.0 != last);
            }
            _ => {}
        }
        if step % 10 == 9 {
            let now = told(&fleet, "acme").await?;
            assert_unchanged(&before, &now);
            before = now;
        }
    }
    run(&fleet, "2025-10-01T00:00:00Z").await?;
    assert_unchanged(&before, &told(&fleet, "acme").await?);
    Ok(())
}
