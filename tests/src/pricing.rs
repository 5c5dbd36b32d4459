//! What plans can charge, from the admin API to the stored invoice: prices per meter and model,
//! packages, volume tiers, discounts and minimums.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::invoices::{amounts, invoices, run, start, tenant_since, use_of};

fn price(name: &str, meter: &str, model: Option<&str>, charge: Value) -> Value {
    let mut price = json!({ "name": name, "meter": meter, "charge": charge });
    if let Some(model) = model {
        price["model"] = json!(model);
    }
    price
}

/// A per-token price.
fn each(unit_price: &str) -> Value {
    json!({ "kind": "per_unit", "unit": "tokens", "unit_price": unit_price })
}

/// Usage of each meter and model is charged by the price that names it best, with every kind of
/// charge, discount and minimum, as computed by hand; the stored invoice says what the preview said.
#[tokio::test]
async fn prices_per_meter_and_model_equal_a_table_computed_by_hand() -> Result<()> {
    let fleet = start().await?;
    let tiers = json!([{ "up_to": 1_000, "unit_price": "0.0125" }, { "up_to": null, "unit_price": "0.0075" }]);
    let mut gpt4 = price("GPT-4", "chat", Some("gpt-4*"), each("0.03"));
    gpt4["discount_percent"] = json!("12.5");
    let mut other = price("Chat", "chat", None, each("0.01"));
    other["minimum"] = json!("5.00");
    let prices = [
        gpt4,
        price("GPT-4o mini", "chat", Some("gpt-4o-mini"), each("0.000150000001")),
        other,
        price(
            "Images",
            "images",
            None,
            json!({ "kind": "package", "unit": "requests", "package_size": 2, "package_price": "0.335", "included": 1 }),
        ),
        price(
            "Embeddings",
            "embed",
            None,
            json!({ "kind": "volume", "unit": "tokens", "tiers": tiers }),
        ),
    ];
    let plan = json!({ "currency": "USD", "prices": prices, "discount_percent": "10", "minimum": "100.00" });
    tenant_since(&fleet, "acme", "2025-01-01T00:00:00Z", plan, "UTC").await?;
    let stored = fleet.admin.get("/plans/acme-plan").await?.ok()?;
    assert_eq!(
        (&stored["minimum"], &stored["prices"][0]["model"]),
        (&json!("100.00"), &json!("gpt-4*"))
    );
    let at = "2025-01-15T12:00:00Z";
    for (meter, model, tokens) in [
        ("chat", "gpt-4-turbo", 1_001),
        ("chat", "gpt-4o-mini", 1_000_000),
        ("chat", "", 100),
        ("chat", "llama-3", 50),
        ("embed", "", 1_001),
        ("speech", "whisper", 7),
    ] {
        use_of(&fleet, "acme", at, (meter, model), tokens).await?;
    }
    for _ in 0..4 {
        use_of(&fleet, "acme", at, ("images", "flux"), 9).await?;
    }
    run(&fleet, "2025-02-01T00:00:00Z").await?;
    let invoice = &invoices(&fleet, "acme").await?[0];
    let names: Vec<_> = invoice["lines"]
        .as_array()
        .context("lines")?
        .iter()
        .filter_map(|line| line["name"].as_str())
        .collect();
    assert_eq!(
        names.iter().copied().chain(["total"]).zip(amounts(invoice)).collect::<Vec<_>>(),
        [
            ("GPT-4", "30.03"),
            ("GPT-4: Discount of 12.5 %", "-3.75"), // 3.75375
            ("GPT-4o mini", "150.00"),              // 150.000001
            ("Chat", "1.50"),                       // no model, and one that nothing names
            ("Chat: Up to the minimum of 5.00 USD", "3.50"),
            ("Images", "0.67"),             // 4 requests: 1 included, 2 packages
            ("Embeddings", "7.51"),         // 7.5075: all at the second tier's price
            ("Discount of 10 %", "-18.95"), // of 189.46: 18.946
            ("total", "170.51"),
        ],
    );
    let line = |position: usize| &invoice["lines"][position];
    assert_eq!((&line(0)["model"], &line(0)["quantity"]), (&json!("gpt-4*"), &json!(1_001)));
    assert_eq!(line(1)["discount"], json!({ "price": "GPT-4", "percent": "12.5", "of": "30.03" }));
    assert_eq!(line(4)["minimum"], json!({ "price": "Chat", "amount": "5.00", "reached": "1.50" }));
    assert_eq!(line(5)["package"], json!({ "size": 2, "price": "0.335" }));
    assert_eq!((&line(6)["kind"], &line(7)["kind"]), (&json!("volume"), &json!("discount")));
    Ok(())
}

/// The preview tells usage that no price charges, and what is missing to a minimum; late usage is
/// priced with both as if it had been on time.
#[tokio::test]
async fn unpriced_usage_is_told_and_late_usage_counts_in_the_minimum() -> Result<()> {
    let fleet = start().await?;
    let prices = [price("GPT", "default", Some("gpt*"), each("1"))];
    let plan = json!({ "currency": "JPY", "prices": prices, "minimum": "100" });
    fleet.admin.put("/plans/acme-plan", &plan).await?.ok()?;
    fleet.admin.post("/tenants", &json!({ "id": "acme", "plan": "acme-plan" })).await?.ok()?;
    let preview = fleet.admin.get("/tenants/acme/invoices/preview").await?.ok()?;
    assert_eq!(amounts(&preview), ["0", "100", "100"]);
    let now = preview["period_start"].as_str().context("period_start")?.to_owned();
    use_of(&fleet, "acme", &now, ("default", "gpt-4"), 60).await?;
    use_of(&fleet, "acme", &now, ("default", "llama"), 5).await?;
    let preview = fleet.admin.get("/tenants/acme/invoices/preview").await?.ok()?;
    assert_eq!(amounts(&preview), ["60", "40", "100"]);
    let unpriced = json!([{ "meter": "default", "model": "llama", "tokens": 5, "requests": 1 }]);
    assert_eq!(preview["unpriced"], unpriced);

    let plan = json!({ "currency": "JPY", "prices": [price("GPT", "default", Some("gpt*"), each("1"))], "minimum": "100" });
    tenant_since(&fleet, "late", "2025-01-01T00:00:00Z", plan, "UTC").await?;
    let at = "2025-01-15T12:00:00Z";
    use_of(&fleet, "late", at, ("default", "gpt-4"), 60).await?;
    run(&fleet, "2025-02-01T00:00:00Z").await?;
    // 30 more are within the minimum that was paid, and of the next 30 only 20 are not.
    use_of(&fleet, "late", at, ("default", "gpt-4"), 30).await?;
    run(&fleet, "2025-03-01T00:00:00Z").await?;
    use_of(&fleet, "late", at, ("default", "gpt-4"), 30).await?;
    run(&fleet, "2025-04-01T00:00:00Z").await?;
    let totals: Vec<_> =
        invoices(&fleet, "late").await?.iter().map(|invoice| amounts(invoice).join(" ")).collect();
    assert_eq!(totals, ["60 40 100", "0 100 100", "0 100 20 120"]);
    Ok(())
}
