//! What the demo says at its end: invoices, where to look, and the JSON summary.

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::tenants::Row;
use crate::admin::Admin;
use crate::stack::Stack;

pub(super) fn print_invoice(invoice: &Value) {
    println!("  {}  {}", text(&invoice["number"]), text(&invoice["tenant"]));
    for line in invoice["lines"].as_array().into_iter().flatten() {
        print_line(&text(&line["name"]), &how(line), &text(&line["amount"]));
    }
    let total = format!("{} {}", text(&invoice["currency"]), text(&invoice["total"]));
    print_line("Total", "", &total);
    println!();
}

fn print_line(name: &str, how: &str, amount: &str) {
    println!("    {name:<12}{how:<36}{amount:>14}");
}

/// How the amount of a line comes about.
fn how(line: &Value) -> String {
    let quantity = text(&line["quantity"]);
    let tiers = line["tiers"].as_array().map_or(0, Vec::len);
    let mut how = match text(&line["unit_price"]) {
        price if !price.is_empty() => format!("{quantity} × {price}"),
        _ if tiers > 0 => format!("{quantity} in {tiers} tiers"),
        _ => quantity,
    };
    if let Some(included @ 1..) = line["included"].as_u64() {
        how = format!("{how}, {included} included");
    }
    how
}

/// A JSON value as one reads it; nothing for null.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

pub(super) fn print_conserved(conserved: bool) {
    let sign = if conserved { "=" } else { "≠" };
    println!("  admitted to clients {sign} counted in the ledger, for every tenant");
}

/// Each surface with its address and a line to try.
pub(super) async fn print_surfaces(stack: &Stack, admin: &Admin) -> Result<()> {
    let gateway = stack.gateways.first().context("the stack has no gateway")?;
    let control_plane = stack.control_planes.first().context("the stack has no control plane")?;
    let (service, envoy, weir) = (gateway.url(), gateway.admin_url(), control_plane.url());
    let api_key = admin.post_json("/tenants/plenty/api-keys", &json!({ "name": "demo" })).await?;
    let key = api_key["key"].as_str().unwrap_or_default();
    let (admin_token, gateway_token) = (&stack.admin_token, &stack.gateway_token);
    println!("\nWhat runs now\n");
    for (surface, try_it) in [
        ("The service, limited", format!("curl -i -H 'x-tenant-id: plenty' {service}/orders")),
        ("  … out of tokens", format!("curl -i -H 'x-tenant-id: runs-dry' {service}/orders")),
        (
            "Admin API",
            format!("curl -H 'authorization: Bearer {admin_token}' {weir}/admin/v1/tenants"),
        ),
        (
            "  … its description",
            format!("curl -H 'authorization: Bearer {admin_token}' {weir}/admin/v1/openapi.json"),
        ),
        ("Tenant portal", format!("{weir}/portal with the API key {key}")),
        (
            "  … without a browser",
            format!(
                "curl -sL -c /tmp/weir-cookies -b /tmp/weir-cookies -d key={key} {weir}/portal/sign-in"
            ),
        ),
        (
            "Edge API, for gateways",
            format!(
                "curl -H 'authorization: Bearer {gateway_token}' '{weir}/edge/v1/config?version=1&after=0'"
            ),
        ),
        ("Metrics", format!("curl {weir}/metrics")),
        ("Health", format!("curl {weir}/readyz")),
        ("The filter's counters", format!("curl '{envoy}/stats?filter=wasmcustom.weir'")),
        ("Logs", stack.folder().display().to_string()),
    ] {
        println!("  {surface:<24}{try_it}");
    }
    Ok(())
}

/// The object that `--json` prints, in the form that the README documents.
pub(super) fn json(rows: &[Row], conserved: bool) -> Result<Value> {
    let mut tenants = Map::new();
    for row in rows.iter().filter(|row| row.is_tenant) {
        let invoice =
            row.invoice.as_ref().with_context(|| format!("{} has no invoice", row.tenant))?;
        let summary = json!({
            "sent": row.counts.total(),
            "admitted": row.admitted(),
            "limited": row.counts.of(429),
            "refused": row.counts.of(401) + row.counts.of(403),
            "ledger_tokens": row.ledger_tokens,
            "ledger_requests": row.ledger_requests,
            "invoice_total": invoice["total"],
            "currency": invoice["currency"],
        });
        tenants.insert(row.tenant.to_owned(), summary);
    }
    Ok(json!({ "tenants": tenants, "conserved": conserved }))
}
