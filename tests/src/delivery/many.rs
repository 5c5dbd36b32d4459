//! Very many tenants at a provider that takes so many calls a second.

use std::{env, str::FromStr, time::Instant};

use super::*;
use crate::fake::Limit;

/// How many tenants, and how many calls a second the stand-in takes. Stripe's own limit is 100, of each
/// endpoint 25: `WEIR_TEST_TENANTS=10000 WEIR_TEST_STRIPE_CALLS_PER_S=100 cargo test -p weir-tests
/// many_tenants` takes the fifteen minutes that 80,000 calls take there.
const TENANTS: (&str, u32) = ("WEIR_TEST_TENANTS", 150);
const CALLS_PER_S: (&str, u32) = ("WEIR_TEST_STRIPE_CALLS_PER_S", 200);
/// The calls of one delivery: customer and draft, each looked for and made, lines, compare, finalize, send.
const CALLS: u32 = 8;

fn set<T: FromStr>((name, default): (&str, T)) -> Result<T, T::Err> {
    env::var(name).map_or(Ok(default), |value| value.parse())
}

/// Tenants with usage of January: of the tenant number n, n tokens at 0.01, recorded and summed up.
async fn tenants_with_usage(fleet: &Fleet, count: u32) -> Result<()> {
    let plan = json!({ "currency": "USD", "prices": [per_unit("0.01")] });
    fleet.admin.put("/plans/one", &plan).await?.ok()?;
    let sql = format!(
        "insert into tenant (id, name, plan_id, provider, created_at)
         select 't' || n, 't' || n, 'one', 'stripe', '2025-01-01' from generate_series(1, {count}) n;
         insert into tenant_terms (tenant_id, starts_at, plan_id, plan_version)
         select id, created_at, 'one', 1 from tenant;
         insert into provider_customer (tenant_id, provider, email)
         select id, 'stripe', id || '@example.com' from tenant;
         insert into usage_record (gateway, worker, sequence, position, tenant_id, minute, meter, model,
                                   policy_version, tokens, requests)
         select 'g', 'w', n, 0, 't' || n, '2025-01-20T10:07:00Z', 'default', '', 0, n, 1
         from generate_series(1, {count}) n;
         insert into usage_rollup (tenant_id, quarter, meter, model, tokens, requests)
         select tenant_id, '2025-01-20T10:00:00Z', meter, model, tokens, requests from usage_record"
    );
    fleet.stack.database.query(&sql).await.map(drop)
}

/// From the ledger to Stripe under its limit: each tenant gets its invoice, once and with its total, the
/// provider hardly ever has to say that there are too many calls, and all places agree in the end.
#[tokio::test]
async fn many_tenants_under_the_providers_limit() -> Result<()> {
    let (tenants, per_second) = (set(TENANTS)?, set(CALLS_PER_S)?);
    let stripe = FakeStripe::start().await?;
    stripe.allow(Limit { in_all: per_second, per_endpoint: (per_second / 4).max(25) });
    // A little less, as calls do not arrive as evenly as they are made.
    let pace = (per_second * 9 / 10).to_string();
    let fleet =
        with_stripe_and(&stripe, |stack| stack.variable("WEIR_STRIPE_CALLS_PER_S", pace)).await?;
    tenants_with_usage(&fleet, tenants).await?;
    let started = Instant::now();
    crate::invoices::run(&fleet, "2025-02-01T00:00:00Z").await?;
    let invoiced = started.elapsed();

    let within = SOON + std::time::Duration::from_secs((tenants * CALLS * 2 / per_second).into());
    wait_for("all to be delivered", within, async || {
        let open = "select count(*) filter (where state = 'done'), count(*) from delivery";
        let open = fleet.stack.database.query(open).await?;
        ensure!(open.trim() == format!("{tenants}|{tenants}"), "so far {}", open.trim());
        Ok(Some(()))
    })
    .await?;
    let delivered = started.elapsed();
    let totals = stripe.with(|stripe| {
        let told = stripe.invoices.iter().map(|invoice| {
            ensure!(invoice.sent == 1 && invoice.status == "open", "{invoice:?}");
            let tenant = invoice.metadata["tenant_id"].as_str().context("no tenant")?;
            Ok((invoice.total_minor(), tenant.to_owned()))
        });
        told.collect::<Result<Vec<_>>>()
    });
    let mut totals = totals?;
    totals.sort();
    let expected: Vec<_> = (1..=i64::from(tenants)).map(|n| (n, format!("t{n}"))).collect();
    assert_eq!(totals, expected);
    let calls = stripe.calls().len();
    let report = crate::reconciliation::agrees(&fleet).await?;
    let compared: Vec<_> = ["compared", "differing"]
        .iter()
        .map(|name| {
            report["sections"].as_array().map(|all| {
                all.iter().map(|one| one[*name].to_string()).collect::<Vec<_>>().join(" ")
            })
        })
        .collect();
    eprintln!(
        "{tenants} tenants: invoices after {invoiced:?}, delivered after {delivered:?}, {calls} calls, {} refused; compared {compared:?}, {} calls for it",
        stripe.refused(),
        stripe.calls().len() - calls,
    );
    // Where this machine stands still for a moment, some calls come in a heap afterwards.
    assert!(stripe.refused() < calls / 40, "{} of {calls} calls", stripe.refused());
    Ok(())
}
