//! From requests at Envoy to the totals at both providers.

use std::{sync::Arc, time::Duration};

use xtask::load::{Counts, Until};

use super::{quiet::all_delivered, *};
use crate::fake::{
    Fault,
    chargebee::{API_KEY as CHARGEBEE_KEY, FakeChargebee},
    stripe::{API_KEY as STRIPE_KEY, FakeStripe},
};

/// 49.00 USD, and 0.013 for each request, rounded half to even: in cents.
fn owed_minor(admitted: u64) -> i64 {
    let tenths = i64::try_from(admitted).unwrap_or(i64::MAX) * 13;
    let (whole, rest) = (tenths / 10, tenths % 10);
    let up = rest > 5 || (rest == 5 && whole % 2 != 0);
    4_900 + whole + i64::from(up)
}

/// What clients saw admitted is what the ledger has, what the invoice charges and what the provider
/// asks for, at Stripe and at Chargebee, with requests that were refused, and the control plane killed
/// in the middle of traffic and in the middle of both deliveries. All places agree in the end.
#[tokio::test]
async fn what_clients_saw_admitted_is_what_providers_ask_for() -> Result<()> {
    let (stripe, chargebee) = (FakeStripe::start().await?, FakeChargebee::start().await?);
    let fleet = Fleet::with(|stack| {
        stack
            .variable("WEIR_STRIPE_URL", stripe.url())
            .variable("WEIR_STRIPE_API_KEY", STRIPE_KEY)
            .variable("WEIR_CHARGEBEE_URL", chargebee.url())
            .variable("WEIR_CHARGEBEE_API_KEY", CHARGEBEE_KEY)
            .variable("WEIR_CHARGEBEE_CALLS_PER_S", "25")
            // A claim passes after twice this time.
            .variable("WEIR_PROVIDER_TIMEOUT_MS", "1000")
    })
    .await?;
    let tenants = ["stripe", "chargebee"];
    for (id, limit) in tenants.iter().zip([600, 1_000_000]) {
        fleet.tenant(id, &[monthly(limit)], &[flat("49.00"), per_unit("0.013")]).await?;
        let provider = json!({ "kind": id, "email": format!("billing@{id}.example") });
        fleet
            .admin
            .patch(&format!("/tenants/{id}"), &json!({ "provider": provider }))
            .await?
            .ok()?;
    }

    let counts = tenants.map(|_| Arc::new(Counts::default()));
    let loads = tenants.iter().zip(&counts).map(|(id, counts)| {
        let (load, counts) = (fleet.load(id, 8), Arc::clone(counts));
        tokio::spawn(async move { load.run(Until::elapsed(Duration::from_secs(5)), &counts).await })
    });
    let loads: Vec<_> = loads.collect();
    wait_for("traffic", SOON, async || {
        Ok(counts.iter().all(|counts| counts.of(200) > 200).then_some(()))
    })
    .await?;
    fleet.stack.control_planes[0].kill();
    fleet.stack.control_planes[0].restart().await?;
    for load in loads {
        load.await??;
    }
    let [limited, free] = &counts;
    ensure!(limited.of(429) > 0, "nobody was refused");
    ensure!(limited.of(200) <= 600 && free.of(200) > 600, "{} {}", limited.of(200), free.of(200));
    for (id, counts) in tenants.iter().zip(&counts) {
        fleet.ledger_reaches(id, counts.of(200)).await?;
    }

    stripe.strike("POST invoices/finalize", Fault::SilentAfter);
    chargebee.strike("POST invoices/create", Fault::SilentAfter);
    let mut totals = Vec::new();
    for id in tenants {
        let end = format!("/tenants/{id}/billing-period/end");
        totals.push(fleet.admin.post(&end, &json!({})).await?.ok()?["total"].clone());
    }
    stripe.struck().await?;
    chargebee.struck().await?;
    fleet.stack.control_planes[0].kill();
    fleet.stack.control_planes[0].restart().await?;
    all_delivered(&fleet).await?;

    let owed = [limited, free].map(|counts| owed_minor(counts.of(200)));
    let text = |minor: i64| json!(format!("{}.{:02}", minor / 100, minor % 100));
    assert_eq!(totals, owed.map(text));
    let (at_stripe, at_chargebee) =
        (stripe.invoices_of("stripe"), chargebee.invoices_of("chargebee"));
    assert_eq!((at_stripe.len(), at_chargebee.len()), (1, 1));
    assert_eq!([at_stripe[0].total_minor(), at_chargebee[0].total_minor()], owed);
    let lines = [
        at_stripe[0].lines.iter().map(|line| line.amount_minor).collect::<Vec<_>>(),
        at_chargebee[0].charges.iter().map(|(_, amount)| *amount).collect(),
    ];
    assert_eq!(lines, owed.map(|owed| vec![4_900, owed - 4_900]));
    agrees(&fleet).await.map(drop)
}
