//! A hundred thousand tenants, written straight into Postgres.

use anyhow::Result;

use crate::stack::Database;

/// How many there are.
pub(super) const COUNT: u64 = 100_000;

/// The id of one of them; the same as in [`create`].
pub(super) fn id(number: u64) -> String {
    format!("tenant-{number:06}")
}

/// Tenants since the start of the last month, on a plan with two limits and three prices.
pub(super) async fn create(database: &Database) -> Result<()> {
    let sql = format!(
        r#"insert into plan (id, name) values ('bench', 'Bench');
        insert into plan_version (plan_id, version, terms) values ('bench', 1, '{{
          "currency": "USD",
          "limits": [
            {{ "name": "tokens", "unit": "tokens", "capacity": 1000000000,
               "refill": {{ "kind": "periodic", "period": "month" }} }},
            {{ "name": "burst", "unit": "requests", "capacity": 100000,
               "refill": {{ "kind": "continuous", "amount": 1000, "interval_ms": 1000 }} }}
          ],
          "prices": [
            {{ "name": "Base fee", "charge": {{ "kind": "flat", "amount": "49.00" }} }},
            {{ "name": "Chat tokens", "meter": "chat",
               "charge": {{ "kind": "graduated", "unit": "tokens", "included": 10000,
                 "tiers": [{{ "up_to": 50000, "unit_price": "0.0001" }}, {{ "up_to": null, "unit_price": "0.00005" }}] }} }},
            {{ "name": "Requests", "charge": {{ "kind": "per_unit", "unit": "requests", "unit_price": "0.01" }} }}
          ] }}');
        insert into tenant (id, name, plan_id, created_at)
          select 'tenant-' || lpad(number::text, 6, '0'), 'Tenant', 'bench',
                 date_trunc('month', now(), 'UTC') - interval '1 month'
          from generate_series(0, {COUNT} - 1) number;
        insert into tenant_terms (tenant_id, starts_at, plan_id, plan_version)
          select id, created_at, 'bench', 1 from tenant;
        analyze;"#
    );
    database.query(&sql).await.map(drop)
}
