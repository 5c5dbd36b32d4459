//! A deployment in which everything happens that is not a mistake.

use super::*;
use crate::{
    fake::{
        chargebee::{API_KEY as CHARGEBEE_KEY, FakeChargebee},
        stripe::{API_KEY as STRIPE_KEY, FakeStripe},
    },
    harness::Fleet,
};

/// A Weir without gateways that can use both stand-ins.
pub(super) async fn with_providers(
    stripe: &FakeStripe,
    chargebee: &FakeChargebee,
) -> Result<Fleet> {
    Fleet::with(|stack| {
        stack
            .gateways(0)
            .variable("WEIR_STRIPE_URL", stripe.url())
            .variable("WEIR_STRIPE_API_KEY", STRIPE_KEY)
            .variable("WEIR_STRIPE_CALLS_PER_S", "1000")
            .variable("WEIR_CHARGEBEE_URL", chargebee.url())
            .variable("WEIR_CHARGEBEE_API_KEY", CHARGEBEE_KEY)
            .variable("WEIR_CHARGEBEE_CALLS_PER_S", "1000")
    })
    .await
}

/// A tenant whose invoices this provider sends.
pub(super) async fn customer(fleet: &Fleet, id: &str, kind: &str) -> Result<()> {
    tenant(fleet, id).await?;
    if kind == "manual" {
        return Ok(());
    }
    let provider = json!({ "kind": kind, "email": format!("billing@{id}.example") });
    fleet.admin.patch(&format!("/tenants/{id}"), &json!({ "provider": provider })).await?.ok()?;
    Ok(())
}

pub(super) async fn all_delivered(fleet: &Fleet) -> Result<()> {
    wait_for("all to be delivered", SOON, async || {
        let sql = "select count(*), min(last_error) from delivery where state <> 'done'";
        let open = fleet.stack.database.query(sql).await?;
        ensure!(open.trim() == "0|", "not yet: {}", open.trim());
        Ok(Some(()))
    })
    .await
}

/// Late usage, corrections, credits, credit notes, voided and rebilled invoices: nothing of it is a
/// difference, and what is not billed yet is told as that.
#[tokio::test]
async fn nothing_differs_where_all_is_well() -> Result<()> {
    let (stripe, chargebee) = (FakeStripe::start().await?, FakeChargebee::start().await?);
    let fleet = with_providers(&stripe, &chargebee).await?;
    let tenants = ["stripe", "chargebee", "manual"];
    for id in tenants {
        customer(&fleet, id, id).await?;
        used(&fleet, id, JANUARY, 100).await?;
        let credit =
            json!({ "name": "wire", "kind": "prepaid", "currency": "USD", "amount": "3.00" });
        fleet.admin.post(&format!("/tenants/{id}/credits"), &credit).await?.ok()?;
    }
    run(&fleet, "2025-02-01T00:00:00Z").await?;
    all_delivered(&fleet).await?;
    let report = agrees(&fleet).await?;
    let sections: Vec<_> = report["sections"].as_array().into_iter().flatten().collect();
    let compared: Vec<_> = sections.iter().map(|one| one["compared"].clone()).collect();
    assert_eq!(
        compared,
        [3, 3, 3, 3, 6, 3, 3, 3, 0, 3, 1, 1].map(|count| json!(count)),
        "{report}"
    );

    // What comes late is awaited, and billed by the next run.
    for id in tenants {
        used(&fleet, id, JANUARY, 11).await?;
        used(&fleet, id, "2025-01-31T23:45:00Z", 1).await?;
        used(&fleet, id, FEBRUARY, 70).await?;
        let entries = json!([{ "quarter": JANUARY, "tokens": -40, "requests": -1 }]);
        let correction = json!({ "reason": "Bug 7", "entries": entries });
        let path = format!("/tenants/{id}/usage-corrections/bug-7");
        fleet.admin.put(&path, &correction).await?.ok()?;
    }
    let billed = agrees(&fleet).await?["sections"][1].clone();
    assert_eq!(billed["awaited"], 6, "{billed}");
    let first = &billed["awaited_differences"][0];
    assert_eq!(
        (&first["what"], &first["difference"]),
        (&json!("requests of meter \"default\", model \"\""), &json!("1"))
    );
    run(&fleet, "2025-03-01T00:00:00Z").await?;
    assert_eq!(section(&fleet, "billed").await?["awaited"], 0);

    // One is void and its usage forgiven, one is billed again, one is credited in part.
    for (tenant, rebill) in [("stripe", true), ("chargebee", false), ("manual", true)] {
        let sql = format!("select max(id) from invoice where tenant_id = '{tenant}'");
        let last = fleet.stack.database.query(&sql).await?;
        let body = json!({ "reason": "Wrong", "rebill": rebill });
        fleet.admin.post(&format!("/invoices/{}/void", last.trim()), &body).await?.ok()?;
    }
    all_delivered(&fleet).await?;
    agrees(&fleet).await?;
    used(&fleet, "chargebee", FEBRUARY, 5).await?;
    run(&fleet, "2025-04-01T00:00:00Z").await?;
    let note = json!({ "amount": "0.50", "reason": "Sorry" });
    fleet.admin.post("/invoices/1/credit-notes", &note).await?.ok()?;
    all_delivered(&fleet).await?;
    let report = agrees(&fleet).await?;
    assert_eq!(report["sections"][1]["awaited"], 0, "{report}");
    let states = "select string_agg(distinct state || rebilled, ' ' order by state || rebilled) from invoice";
    let states = fleet.stack.database.query(states).await?;
    assert_eq!(states.trim(), "finalfalse sentfalse voidfalse voidtrue");
    Ok(())
}
