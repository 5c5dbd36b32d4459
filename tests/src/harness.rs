//! How to write an end-to-end test.
//!
//! ```ignore
//! #[tokio::test]
//! async fn what_holds() -> Result<()> {
//!     let fleet = Fleet::start().await?;                      // 1 control plane, 1 Envoy with 2 workers
//!     fleet.tenant("acme", &[monthly(100)], &[per_unit("0.01")]).await?;
//!     let counts = fleet.drive("acme", 32, 300).await?;       // 300 requests by 32 clients
//!     assert_eq!(counts.of(200), 100);
//!     fleet.ledger_reaches("acme", 100).await?;               // polls with a deadline
//!     Ok(())
//! }
//! ```
//!
//! - Each test has its own [`Fleet`]: its own database, Redis, control planes, upstream and Envoys.
//!   Only the Postgres server is shared, so tests run side by side and tenants may have any name.
//! - [`Fleet::with`] takes a closure that changes the stack: `Fleet::with(|stack| stack.gateways(2))`.
//! - `fleet.stack` is an [`xtask::stack::Stack`]: kill and restart parts, read stats and logs, query SQL.
//! - [`Fleet::that_traps`] has VMs that trap when a request asks for it, [`Fleet::that_panics`] native
//!   workers that panic.
//! - Kill Postgres only in a fleet from [`Fleet::with_own_postgres`].
//! - [`Api`] calls the admin API (`fleet.admin`) and the edge API (`fleet.edge`) with their tokens, or with others.
//! - Limits and prices come from small functions such as [`monthly`] and [`per_unit`].
//! - Never sleep: [`wait_for`] polls a condition with a deadline, and names it when it fails.
//! - Configurations and logs stay in `.weir/` until the next run; the output of a failed test names
//!   its folder.

mod api;
mod terms;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use serde_json::json;
use tokio::sync::OnceCell;
use xtask::{
    build,
    load::{Counts, Load, Until},
    stack::{Builder, Parts, Postgres, Stack},
};

#[allow(unused_imports, reason = "each test uses some of them")]
pub(crate) use self::{
    api::{Answer, Api},
    terms::*,
};
#[allow(unused_imports, reason = "each test uses some of them")]
pub(crate) use xtask::stack::wait_for;

/// Within this, usage reaches the ledger and a change reaches the gateways, on a busy machine too.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// A running Weir, and what tests do with it.
pub(crate) struct Fleet {
    pub(crate) stack: Stack,
    pub(crate) admin: Api,
    pub(crate) edge: Api,
    client: reqwest::Client,
}

impl Fleet {
    /// One control plane, one Envoy with two workers.
    pub(crate) async fn start() -> Result<Self> {
        Self::with(|stack| stack).await
    }

    /// A stack that differs, such as `Fleet::with(|stack| stack.gateways(2))`.
    pub(crate) async fn with(change: impl FnOnce(Builder<'_>) -> Builder<'_>) -> Result<Self> {
        let (parts, postgres) = shared().await?;
        Self::of(change(Self::patient(Stack::builder(parts, postgres)))).await
    }

    /// With a filter that traps when a request asks for it: `x-weir-trap`, see `filter/src/trap.rs`.
    pub(crate) async fn that_traps(
        change: impl FnOnce(Builder<'_>) -> Builder<'_>,
    ) -> Result<Self> {
        let filter = trapping_filter().await?;
        Self::with(|stack| change(stack.filter(filter))).await
    }

    /// With a native module whose workers panic when a request asks for it, in the same way.
    pub(crate) async fn that_panics(
        change: impl FnOnce(Builder<'_>) -> Builder<'_>,
    ) -> Result<Self> {
        let filter = panicking_filter().await?;
        Self::with(|stack| change(stack.filter(filter))).await
    }

    /// With a Postgres server of its own, for tests that kill or stop it.
    pub(crate) async fn with_own_postgres(
        change: impl FnOnce(Builder<'_>) -> Builder<'_>,
    ) -> Result<Self> {
        let (parts, _) = shared().await?;
        let postgres = Postgres::start(&parts.tools.postgres_bin).await?;
        Self::of(change(Self::patient(Stack::builder(parts, &postgres)))).await
    }

    /// A busy machine may take longer than clients would like to; it must not fail tests of other
    /// things than time.
    fn patient(stack: Builder<'_>) -> Builder<'_> {
        stack.plugin(json!({ "max_wait_ms": 5_000, "control_plane": { "timeout_ms": 3_000 } }))
    }

    async fn of(stack: Builder<'_>) -> Result<Self> {
        let stack = stack.name("test").start().await?;
        // A test that returns an error is not seen to fail when its stack is dropped.
        stack.keep_folder();
        let control_plane =
            stack.control_planes.first().map_or_else(String::new, |first| first.url());
        let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?;
        Ok(Self {
            admin: Api::new(&client, format!("{control_plane}/admin/v1"), &stack.admin_token),
            edge: Api::new(&client, format!("{control_plane}/edge/v1"), &stack.gateway_token),
            client,
            stack,
        })
    }

    /// Creates a tenant on a plan of its own, `<tenant>-plan`, in USD.
    pub(crate) async fn tenant(&self, id: &str, limits: &[Limit], prices: &[Price]) -> Result<()> {
        let plan = format!("{id}-plan");
        let terms = json!({ "currency": "USD", "limits": limits, "prices": prices });
        self.admin.put(&format!("/plans/{plan}"), &terms).await?.ok()?;
        self.admin.post("/tenants", &json!({ "id": id, "plan": plan })).await?.ok()?;
        Ok(())
    }

    /// One request of this tenant through the first gateway.
    pub(crate) async fn call(&self, tenant: &str, path: &str) -> Result<Answer> {
        let url = format!("{}{path}", self.stack.gateways[0].url());
        Answer::of(self.client.get(url).header("x-tenant-id", tenant)).await
    }

    /// A request to the first gateway that is not a tenant's plain GET.
    pub(crate) fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.stack.gateways[0].url()))
    }

    /// So many requests of this tenant by so many clients, over all gateways; counts by status.
    pub(crate) async fn drive(
        &self,
        tenant: &str,
        clients: usize,
        requests: u64,
    ) -> Result<Arc<Counts>> {
        let counts = Arc::new(Counts::default());
        self.load(tenant, clients).run(Until::requests(requests), &counts).await?;
        Ok(counts)
    }

    /// For loads that run while the test does something else.
    pub(crate) fn load(&self, tenant: &str, clients: usize) -> Load {
        let urls = self.stack.gateways.iter().map(|gateway| gateway.url());
        Load { urls: urls.collect(), ..Load::of_tenant("", tenant, clients) }
    }

    /// Tokens and requests of the current billing period in the ledger.
    pub(crate) async fn ledger(&self, tenant: &str) -> Result<(u64, u64)> {
        let usage = self.admin.get(&format!("/tenants/{tenant}/usage")).await?.ok()?;
        let number =
            |field: &str| usage[field].as_u64().with_context(|| format!("{field} in {usage}"));
        Ok((number("tokens")?, number("requests")?))
    }

    /// Waits until the ledger has so many requests of one token each; more of them are an error.
    pub(crate) async fn ledger_reaches(&self, tenant: &str, requests: u64) -> Result<()> {
        let seen =
            wait_for(&format!("{requests} requests of {tenant} in the ledger"), SOON, async || {
                let ledger = self.ledger(tenant).await?;
                anyhow::ensure!(
                    ledger.1 >= requests,
                    "the ledger has {ledger:?} (tokens, requests)"
                );
                Ok(Some(ledger))
            })
            .await?;
        anyhow::ensure!(
            seen == (requests, requests),
            "the ledger of {tenant} has {seen:?}, expected {requests} each"
        );
        Ok(())
    }
}

/// Built and started once per test binary. They end with this process.
async fn shared() -> Result<&'static (Parts, Arc<Postgres>)> {
    static SHARED: OnceCell<(Parts, Arc<Postgres>)> = OnceCell::const_new();
    SHARED
        .get_or_try_init(|| async {
            let parts = tokio::task::spawn_blocking(Parts::provide).await??;
            let postgres = Postgres::start(&parts.tools.postgres_bin).await?;
            Ok((parts, postgres))
        })
        .await
}

/// One that traps, or where the filter is a native module, one that panics. Built once per test binary, when
/// the first test needs it.
pub(crate) async fn trapping_filter() -> Result<&'static PathBuf> {
    static FILTER: OnceCell<PathBuf> = OnceCell::const_new();
    let (parts, _) = shared().await?;
    if build::is_native(&parts.filter) {
        return panicking_filter().await;
    }
    FILTER
        .get_or_try_init(|| async { tokio::task::spawn_blocking(build::trapping_filter).await? })
        .await
}

/// The filter in the other form: as a native module, where all else is tested with the wasm module.
pub(crate) async fn other_filter() -> Result<PathBuf> {
    let (parts, _) = shared().await?;
    let is_native = build::is_native(&parts.filter);
    let build = move || if is_native { build::filter() } else { build::native_filter() };
    tokio::task::spawn_blocking(build).await?
}

/// A native module whose workers panic on request.
pub(crate) async fn panicking_filter() -> Result<&'static PathBuf> {
    static FILTER: OnceCell<PathBuf> = OnceCell::const_new();
    FILTER
        .get_or_try_init(|| async { tokio::task::spawn_blocking(build::panicking_filter).await? })
        .await
}
