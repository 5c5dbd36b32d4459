//! Each line of an invoice leads to the usage that it billed: by quarter hour, with sums that are exactly its
//! quantity, whatever arrives later.

mod kept;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    harness::*,
    invoices::{run, start, tenant_since, use_of},
};

/// Quarter hour, meter, model.
type Key = (String, String, String);

/// What the lines of invoices say of their usage, by invoice and line.
type Told = BTreeMap<(i64, i64), Vec<Value>>;

const NEW_YEAR: &str = "2025-01-01T00:00:00Z";

/// All usage of a line, in pages of so many rows.
async fn usage_of(fleet: &Fleet, path: &str, limit: u32) -> Result<Value> {
    let path = path.strip_prefix("/admin/v1").context("not in the admin API")?;
    let mut after = String::new();
    let mut items = Vec::new();
    loop {
        let page = fleet.admin.get(&format!("{path}?limit={limit}{after}")).await?.ok()?;
        items.extend(page["items"].as_array().cloned().context("items")?);
        let Some(next) = page["next"].as_str() else {
            return Ok(json!({ "items": items, "unit": page["unit"], "tokens": page["tokens"],
                              "requests": page["requests"] }));
        };
        after = format!("&after={next}");
    }
}

fn sum(items: &[Value], of: &str) -> i64 {
    items.iter().filter_map(|item| item[of].as_i64()).sum()
}

/// Holds all lines of the tenant's invoices against what they lead to: the sums are the quantities, usage
/// lies in the period that is billed, and all of it together is the rollup of what is billed.
async fn told(fleet: &Fleet, tenant: &str) -> Result<Told> {
    let page = fleet.admin.get(&format!("/invoices?tenant={tenant}&limit=500")).await?.ok()?;
    let mut told = Told::new();
    let mut billed = BTreeMap::<Key, i64>::new();
    for invoice in page["items"].as_array().context("items")? {
        for line in invoice["lines"].as_array().context("lines")? {
            let is_billed = line["quantity"].is_u64() || line["kind"] == "adjustment";
            let link = line["usage"].as_str();
            ensure!(link.is_some() == (is_billed && invoice["rebilled"] == false), "{line}");
            let Some(link) = link else { continue };
            let usage = usage_of(fleet, link, 3).await?;
            let items = usage["items"].as_array().context("items")?;
            for of in ["tokens", "requests"] {
                ensure!(usage[of] == sum(items, of), "{of} of {usage}");
            }
            let period = if is_adjustment(line) { &line["adjusts"] } else { invoice };
            for item in items {
                let times = [&period["period_start"], &item["quarter"], &period["period_end"]];
                let [start, quarter, end] = times.map(|time| time.as_str().unwrap_or_default());
                ensure!(start <= quarter && quarter < end, "{item} of {line}");
            }
            match usage["unit"].as_str() {
                Some(unit) => ensure!(line["quantity"] == sum(items, unit), "{line} is of {usage}"),
                None => ensure!(is_adjustment(line), "{line} counts nothing"),
            }
            if usage["unit"] != "requests" {
                for item in items.iter().filter(|item| item["meter"] == "default") {
                    let of = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
                    *billed.entry((of("quarter"), of("meter"), of("model"))).or_default() +=
                        item["tokens"].as_i64().context("tokens")?;
                }
            }
            let key =
                [&invoice["id"], &line["position"]].map(|number| number.as_i64().unwrap_or(0));
            told.insert((key[0], key[1]), items.clone());
        }
    }
    billed.retain(|_, tokens| *tokens != 0);
    ensure!(
        billed == rolled_up(fleet, tenant).await?,
        "what is billed is not what was used: {billed:?}"
    );
    Ok(told)
}

fn is_adjustment(line: &Value) -> bool {
    line["kind"] == "adjustment"
}

/// What the rollup has of the meter `default` in closed periods, without what is noted as not billed yet, and
/// what came late and cost nothing: for that there is no line.
async fn rolled_up(fleet: &Fleet, tenant: &str) -> Result<BTreeMap<Key, i64>> {
    let sql = format!(
        "select to_char(quarter at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), model, sum(tokens)
         from (select quarter, meter, model, tokens from usage_rollup where tenant_id = '{tenant}'
               union all
               select quarter, meter, model, -tokens from usage_late where tenant_id = '{tenant}'
               union all
               select quarter, meter, model, -tokens from invoice_quarter kept
               join invoice on invoice.id = invoice_id and not rebilled and tenant_id = '{tenant}'
               where invoice_id <> period_invoice_id and not exists (
                 select from invoice_line line where line.invoice_id = kept.invoice_id
                   and adjusts_invoice_id = period_invoice_id)) known
         where meter = 'default' and quarter < (
           select max(period_end) from invoice where tenant_id = '{tenant}' and not rebilled)
         group by quarter, model having sum(tokens) <> 0"
    );
    let rows = fleet.stack.database.query(&sql).await?;
    rows.lines()
        .filter(|row| !row.is_empty())
        .map(|row| {
            let mut fields = row.split('|').map(str::to_owned);
            let mut field = || fields.next().context("too few fields");
            Ok(((field()?, "default".to_owned(), field()?), field()?.parse()?))
        })
        .collect()
}

/// What was told before is told still.
fn assert_unchanged(before: &Told, now: &Told) {
    for (line, items) in before {
        assert_eq!(now.get(line), Some(items), "line {line:?}");
    }
}

fn price(name: &str, (meter, model): (&str, Option<&str>), unit: &str, unit_price: &str) -> Value {
    json!({ "name": name, "meter": meter, "model": model,
            "charge": { "kind": "per_unit", "unit": unit, "unit_price": unit_price } })
}

fn plan(gpt_price: &str) -> Value {
    let prices = [
        flat("5.00"),
        price("GPT", ("default", Some("gpt-4*")), "tokens", gpt_price),
        price("All others", ("default", None), "tokens", "0.01"),
        price("Chats", ("chat", None), "requests", "0.50"),
    ];
    json!({ "currency": "USD", "prices": prices })
}

/// A tenant since the start of 2025, whose price of GPT changes in the middle of January, with usage of
/// several meters and models in January.
async fn acme() -> Result<Fleet> {
    let fleet = start().await?;
    tenant_since(&fleet, "acme", NEW_YEAR, plan("0.02"), "UTC").await?;
    fleet.admin.put("/plans/acme-plan", &plan("0.03")).await?.ok()?;
    let sql = "update tenant_terms set starts_at = '2025-01-15T00:00:00Z' where plan_version = 2";
    fleet.stack.database.query(sql).await?;
    for (quarter, of, tokens) in [
        ("2025-01-05T00:00:00Z", ("default", ""), 100),
        ("2025-01-05T00:00:00Z", ("default", "gpt-4o"), 50),
        ("2025-01-05T10:15:00Z", ("chat", ""), 3),
        ("2025-01-14T23:45:00Z", ("default", "gpt-4"), 9),
        ("2025-01-15T00:00:00Z", ("default", "gpt-4"), 8),
        ("2025-01-20T00:00:00Z", ("default", "gpt-4o"), 70),
        ("2025-01-20T00:15:00Z", ("default", "llama"), 30),
        ("2025-01-31T23:45:00Z", ("default", "gpt-3"), 7),
    ] {
        use_of(&fleet, "acme", quarter, of, tokens).await?;
    }
    Ok(fleet)
}

async fn correct(fleet: &Fleet, name: &str, quarter: &str, model: &str, tokens: i64) -> Result<()> {
    let entries =
        json!([{ "quarter": quarter, "meter": "default", "model": model, "tokens": tokens }]);
    let path = format!("/tenants/acme/usage-corrections/{name}");
    fleet.admin.put(&path, &json!({ "reason": "Wrong", "entries": entries })).await?.ok().map(drop)
}

/// Usage of a minute of 20 January 2025, 10:00, from a gateway that was cut off.
async fn late_batch(fleet: &Fleet, sequence: u64, tokens: u64) -> Result<()> {
    let record = json!({ "tenant": "acme", "minute": 28_956_120, "tokens": tokens, "requests": 1 });
    let batch = json!({ "version": 1, "gateway": "late", "worker": "0123456789abcdef0123456789abcdef",
                        "sequence": sequence, "records": [record] });
    fleet.edge.post("/usage", &batch).await?.ok().map(drop)
}

/// Prices for models, terms that change within the period, late usage and corrections: every line leads to
/// exactly what it billed, when it was billed and ever after, also where an invoice is billed again.
#[tokio::test]
async fn each_line_leads_to_exactly_what_it_billed() -> Result<()> {
    let fleet = acme().await?;
    run(&fleet, "2025-02-01T00:00:00Z").await?;
    let january = told(&fleet, "acme").await?;
    let tokens: Vec<i64> = january.values().map(|items| sum(items, "tokens")).collect();
    // GPT until and from the middle of the month, the others, and the chats.
    assert_eq!(tokens, [59, 137, 3, 78], "{january:?}");

    late_batch(&fleet, 1, 30).await?;
    correct(&fleet, "one", "2025-01-05T00:00:00Z", "gpt-4o", -20).await?;
    use_of(&fleet, "acme", "2025-01-25T00:00:00Z", ("default", "claude"), 11).await?;
    use_of(&fleet, "acme", "2025-02-03T00:00:00Z", ("default", "gpt-4o"), 40).await?;
    assert_unchanged(&january, &told(&fleet, "acme").await?);
    run(&fleet, "2025-03-01T00:00:00Z").await?;
    let february = told(&fleet, "acme").await?;
    assert_unchanged(&january, &february);
    let (_, adjustment) = february.last_key_value().context("no lines")?;
    let late: Vec<_> = adjustment.iter().map(|item| item["tokens"].as_i64()).collect();
    assert_eq!(late, [Some(-20), Some(30), Some(11)]);

    late_batch(&fleet, 2, 5).await?;
    correct(&fleet, "two", "2025-01-05T00:00:00Z", "gpt-4o", -30).await?;
    correct(&fleet, "three", "2025-02-03T00:00:00Z", "gpt-4o", 2).await?;
    // In sum nothing, so nobody owes more.
    correct(&fleet, "four", "2025-02-04T00:00:00Z", "gpt-4o", 6).await?;
    correct(&fleet, "five", "2025-02-03T00:00:00Z", "gpt-4o", -8).await?;
    run(&fleet, "2025-04-01T00:00:00Z").await?;
    let march = told(&fleet, "acme").await?;
    assert_unchanged(&february, &march);

    let last = fleet.admin.get("/invoices?limit=1").await?.ok()?["items"][0].take();
    let void = json!({ "reason": "Wrong", "rebill": true });
    fleet.admin.post(&format!("/invoices/{}/void", last["id"]), &void).await?.ok()?;
    let refused = fleet.admin.get(&format!("/invoices/{}/lines/2/usage", last["id"])).await?;
    assert!(refused.status == 409 && refused.body.contains("billed again"), "{}", refused.body);
    assert_unchanged(&february, &told(&fleet, "acme").await?);
    late_batch(&fleet, 3, 1).await?;
    run(&fleet, "2025-04-01T00:00:00Z").await?;
    assert_unchanged(&february, &told(&fleet, "acme").await?);
    Ok(())
}

/// The same usage as CSV, all of a line in one; what leads nowhere says so.
#[tokio::test]
async fn usage_of_a_line_comes_as_pages_and_as_csv() -> Result<()> {
    let fleet = start().await?;
    tenant_since(&fleet, "acme", NEW_YEAR, plan("0.02"), "UTC").await?;
    let sql = "insert into usage_rollup (tenant_id, quarter, meter, model, tokens, requests)
               select 'acme', quarter, 'default', model, 2, 1
               from generate_series('2025-01-01', '2025-01-31 23:45', interval '15 minutes') quarter,
                    (values ('llama, \"3\"'), ('qwen')) models (model)";
    fleet.stack.database.query(sql).await?;
    run(&fleet, "2025-02-01T00:00:00Z").await?;
    let invoice = fleet.admin.get("/invoices").await?.ok()?["items"][0].take();
    assert_eq!(invoice["lines"][2]["quantity"], 2 * 2 * 2_976);
    let link = invoice["lines"][2]["usage"].as_str().context("usage")?.to_owned();
    assert_eq!(link, format!("/admin/v1/invoices/{}/lines/3/usage", invoice["id"]));
    let pages = usage_of(&fleet, &link, 500).await?;
    let path = link.trim_start_matches("/admin/v1");
    let accepts = fleet.admin.request(reqwest::Method::GET, path).header("accept", "text/csv");
    let csv = Answer::of(accepts).await?;
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
    assert_eq!(csv.body, fleet.admin.get(&format!("{path}?format=csv")).await?.body);
    let mut lines = csv.body.lines();
    assert_eq!(lines.next(), Some("quarter,meter,model,tokens,requests"));
    for item in pages["items"].as_array().context("items")? {
        let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
        let model = text("model");
        let model =
            if model.contains(',') { format!("\"{}\"", model.replace('"', "\"\"")) } else { model };
        let expected = format!("{},default,{model},2,1", text("quarter"));
        assert_eq!(lines.next(), Some(expected.as_str()));
    }
    assert_eq!(lines.next(), None);

    let id = &invoice["id"];
    for (path, status, said) in [
        (format!("/invoices/{id}/lines/1/usage"), 409, "bills no usage"),
        (format!("/invoices/{id}/lines/9/usage"), 404, "line"),
        ("/invoices/999/lines/1/usage".to_owned(), 404, "999"),
        (format!("/invoices/{id}/lines/x/usage"), 400, "line"),
        (format!("/invoices/{id}/lines/3/usage?format=xml"), 400, "format"),
        (format!("/invoices/{id}/lines/3/usage?after=6161"), 400, "after"),
    ] {
        let answer = fleet.admin.get(&path).await?;
        assert!(answer.status == status && answer.body.contains(said), "{path}: {}", answer.body);
    }
    let draft = fleet.admin.get("/tenants/acme/invoices/preview").await?.ok()?;
    assert_eq!(draft["lines"][2]["usage"], Value::Null);
    Ok(())
}
