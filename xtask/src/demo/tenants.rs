//! Who calls in the demo: three tenants on three plans, and strangers.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use serde_json::{Value, json};

use crate::admin::Admin;
use crate::load::{Counts, Load};

/// The one that is suspended in mid-traffic, so that it has usage to pay for.
const SUSPENDED: &str = "suspended";

/// A caller, what it saw, and what Weir says of it.
pub(super) struct Row {
    pub(super) tenant: &'static str,
    /// The plan in words.
    pub(super) terms: &'static str,
    /// Strangers have no ledger and no invoice.
    pub(super) is_tenant: bool,
    clients: usize,
    pause: Duration,
    pub(super) counts: Arc<Counts>,
    pub(super) remaining: Option<u64>,
    pub(super) ledger_tokens: u64,
    pub(super) ledger_requests: u64,
    pub(super) invoice: Option<Value>,
}

impl Row {
    fn new(tenant: &'static str, terms: &'static str, clients: usize, pause_ms: u64) -> Self {
        Self {
            tenant,
            terms,
            is_tenant: true,
            clients,
            pause: Duration::from_millis(pause_ms),
            counts: Arc::default(),
            remaining: None,
            ledger_tokens: 0,
            ledger_requests: 0,
            invoice: None,
        }
    }

    pub(super) fn load(&self, url: &str) -> Load {
        let load = Load::of_tenant(format!("{url}/orders"), self.tenant, self.clients);
        Load { pause: self.pause, ..load }
    }

    pub(super) fn admitted(&self) -> u64 {
        self.counts.of(200)
    }

    /// A request costs one token, so all three must be the same.
    pub(super) fn is_conserved(&self) -> bool {
        self.ledger_tokens == self.admitted() && self.ledger_requests == self.admitted()
    }
}

/// Creates plans and tenants.
pub(super) async fn create(admin: &Admin) -> Result<Vec<Row>> {
    for (plan, terms) in plans() {
        admin.put_json(&format!("/plans/{plan}"), &terms).await?;
        admin.post_json("/tenants", &json!({ "id": plan, "plan": plan })).await?;
    }
    let suspended = "10,000 a month; 49.00 with 50 included, then 0.001; suspended on the way";
    let stranger = Row { is_tenant: false, ..Row::new("stranger", "not a tenant", 1, 200) };
    Ok(vec![
        Row::new("plenty", "1,000,000 a month; 0.0001 each", 4, 4),
        Row::new("runs-dry", "100 a month; 0.01 each, from the 51st 0.005", 2, 50),
        Row::new(SUSPENDED, suspended, 2, 40),
        stranger,
    ])
}

pub(super) async fn suspend(admin: &Admin, rows: &[Row]) -> Result<()> {
    if rows.iter().any(|row| row.tenant == SUSPENDED) {
        admin.post(&format!("/tenants/{SUSPENDED}/suspend")).await?;
    }
    Ok(())
}

/// Each is for the tenant of the same name.
fn plans() -> [(&'static str, Value); 3] {
    let monthly = |capacity: u64| {
        json!([{ "name": "monthly", "unit": "tokens", "capacity": capacity,
                 "refill": { "kind": "periodic", "period": "month" } }])
    };
    let per_unit = |included: u64, unit_price: &str| {
        json!({ "name": "Tokens", "charge": { "kind": "per_unit", "unit": "tokens",
                "unit_price": unit_price, "included": included } })
    };
    let graduated = json!({ "name": "Tokens", "charge": { "kind": "graduated", "unit": "tokens",
        "included": 0, "tiers": [{ "up_to": 50, "unit_price": "0.01" }, { "up_to": null, "unit_price": "0.005" }] } });
    let flat = json!({ "name": "Base fee", "charge": { "kind": "flat", "amount": "49.00" } });
    [
        (
            "plenty",
            json!({ "name": "Plenty", "currency": "USD", "limits": monthly(1_000_000),
                           "prices": [per_unit(0, "0.0001")] }),
        ),
        (
            "runs-dry",
            json!({ "name": "Runs dry", "currency": "USD", "limits": monthly(100),
                             "prices": [graduated] }),
        ),
        (
            SUSPENDED,
            json!({ "name": "Flat fee", "currency": "USD", "limits": monthly(10_000),
                            "prices": [flat, per_unit(50, "0.001")] }),
        ),
    ]
}
