//! A private Weir on real parts: Redis, Postgres, control planes, an upstream and Envoys.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use xtask::stack::{Parts, Postgres, Stack};
//!
//! let parts = Parts::provide()?;                       // fetched and built if need be
//! let postgres = Postgres::start(&parts.tools.postgres_bin).await?;
//! let stack = Stack::builder(&parts, &postgres)
//!     .gateways(2)
//!     .plugin(serde_json::json!({ "shadow": true }))   // merged into envoy.yaml's
//!     .start()
//!     .await?;                                         // everything is ready
//! stack.control_planes[0].kill();                      // like kill -9
//! stack.control_planes[0].restart().await?;            // on the same port
//! # Ok(()) }
//! ```
//!
//! Everything listens on 127.0.0.1 only, on free ports, and ends when the stack is dropped, or
//! when this process ends in whatever way. Configurations and logs are in `.weir/<run>/`, and stay
//! until the next run when a start fails or a test panics.

mod control_plane;
mod envoy_config;
mod gateway;
mod link;
mod port;
mod postgres;
mod process;
mod reaper;
mod redis;
mod reload;
mod run_dir;
mod upstream;
mod wall_clock;

use std::{
    env,
    path::{Path, PathBuf},
    process::Output,
    sync::Arc,
};

use anyhow::Result;
use serde_json::{Value, json};

pub use self::{
    control_plane::ControlPlane,
    envoy_config::Reloadable,
    gateway::Gateway,
    link::{Link, Network},
    postgres::{Database, Postgres},
    process::wait_for,
    redis::Redis,
    upstream::Upstream,
};
use self::{control_plane::Settings, run_dir::RunDir, wall_clock::WallClock};
use crate::{
    build,
    setup::{self, Tools},
};

/// Hands a built filter (a path) to those who would build it.
pub const FILTER_VARIABLE: &str = "WEIR_TEST_FILTER";
/// Hands a built control plane (a path) to those who would build it.
pub const CONTROL_PLANE_VARIABLE: &str = "WEIR_TEST_CONTROL_PLANE";

/// What a stack is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    pub tools: Tools,
    /// A wasm module, or a native one.
    pub filter: PathBuf,
    /// The `weir` binary.
    pub control_plane: PathBuf,
}

impl Parts {
    /// Fetches the tools that are missing and builds what was not handed over. Blocks.
    pub fn provide() -> Result<Self> {
        Self::with_filter(build::filter)
    }

    /// The same, with the filter as a native module.
    pub fn provide_native() -> Result<Self> {
        Self::with_filter(build::native_filter)
    }

    fn with_filter(build_filter: impl FnOnce() -> Result<PathBuf>) -> Result<Self> {
        let handed_over = |variable| env::var_os(variable).map(PathBuf::from);
        Ok(Self {
            tools: setup::tools()?,
            filter: handed_over(FILTER_VARIABLE).map_or_else(build_filter, Ok)?,
            control_plane: handed_over(CONTROL_PLANE_VARIABLE)
                .map_or_else(build::control_plane, Ok)?,
        })
    }
}

/// How a stack shall be; [`Stack::builder`].
pub struct Builder<'a> {
    parts: &'a Parts,
    postgres: &'a Arc<Postgres>,
    name: String,
    control_planes: usize,
    gateways: usize,
    concurrency: u32,
    links: bool,
    plugin: Value,
    filter: Option<PathBuf>,
    upstream_port: Option<u16>,
    edits: Vec<(String, String)>,
    reloadable: Reloadable,
    environment: Vec<(String, String)>,
    own_wall_clocks: bool,
}

impl Builder<'_> {
    /// Begins the name of its folder below `.weir/`; `stack` unless said otherwise.
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// Replicas of the control plane, at least 1 with a gateway; 1 unless said otherwise.
    pub fn control_planes(mut self, count: usize) -> Self {
        self.control_planes = count;
        self
    }

    /// Envoys; 1 unless said otherwise.
    pub fn gateways(mut self, count: usize) -> Self {
        self.gateways = count;
        self
    }

    /// Worker threads of each Envoy; 2 unless said otherwise.
    pub fn concurrency(mut self, workers: u32) -> Self {
        self.concurrency = workers;
        self
    }

    /// Puts a [`Link`] between each gateway and the control planes: [`Stack::links`].
    pub fn links(mut self) -> Self {
        self.links = true;
        self
    }

    /// Merged into the plugin configuration of `envoy/envoy.yaml`; null removes a field. Said
    /// again, it changes the fields that it names.
    pub fn plugin(mut self, configuration: Value) -> Self {
        if let (Value::Object(said), Value::Object(more)) = (&mut self.plugin, configuration) {
            said.extend(more);
        }
        self
    }

    /// Another filter than that of the parts.
    pub fn filter(mut self, file: &Path) -> Self {
        self.filter = Some(file.to_owned());
        self
    }

    /// Calls of language models are metered, by this `llm` of the plugin configuration.
    pub fn models(self, llm: Value) -> Self {
        let filter = build::reading_bodies(&self.parts.filter);
        if build::is_native(&filter) {
            return self.plugin(json!({ "llm": llm }));
        }
        // Requests are held back until their body has come.
        let waits = "root_id: weir\n                        allow_on_headers_stop_iteration: true";
        self.filter(&filter).edit("root_id: weir", waits).plugin(json!({ "llm": llm }))
    }

    /// Another service than [`Stack::upstream`] is behind the gateways, at this port of 127.0.0.1.
    pub fn upstream_port(mut self, port: u16) -> Self {
        self.upstream_port = Some(port);
        self
    }

    /// Another text than this one in `envoy/envoy.yaml`, where it stands once.
    pub fn edit(mut self, from: &str, to: &str) -> Self {
        self.edits.push((from.to_owned(), to.to_owned()));
        self
    }

    /// What can be replaced while an Envoy runs: [`Stack::reload_gateway`].
    pub fn reloadable(mut self, part: Reloadable) -> Self {
        self.reloadable = part;
        self
    }

    /// One more variable for the control planes, such as `WEIR_LOG`.
    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Redis, each control plane and each gateway run as if on hosts of their own, whose wall clocks
    /// can be set.
    pub fn own_wall_clocks(mut self) -> Self {
        self.own_wall_clocks = true;
        self
    }

    /// Returns when everything is ready; an error shows the log of what is not.
    pub async fn start(self) -> Result<Stack> {
        let folder = RunDir::create(&self.name)?;
        let started = self.start_in(folder.path()).await;
        let (redis, database, settings, tokens) = match started {
            Ok(started) => started,
            Err(error) => {
                folder.keep();
                return Err(error);
            }
        };
        let upstream = Upstream::start().await?;
        let mut stack = Stack {
            gateways: Vec::new(),
            links: Vec::new(),
            control_planes: Vec::new(),
            upstream,
            redis,
            database,
            admin_token: tokens.0,
            gateway_token: tokens.1,
            settings,
            envoy: self.parts.tools.envoy.clone(),
            filter: self.filter.clone().unwrap_or_else(|| self.parts.filter.clone()),
            upstream_port: self.upstream_port,
            edits: self.edits.clone(),
            reloadable: self.reloadable,
            concurrency: self.concurrency,
            own_wall_clocks: self.own_wall_clocks,
            linked: self.links,
            folder,
        };
        let grown = stack.grow(self.control_planes, self.gateways, &self.plugin).await;
        if grown.is_err() {
            stack.folder.keep();
        }
        grown.map(|()| stack)
    }

    async fn start_in(
        &self,
        folder: &Path,
    ) -> Result<(Redis, Database, Settings, (String, String))> {
        let clock = self.own_wall_clocks.then(|| WallClock::create(folder, "redis")).transpose()?;
        let redis = Redis::start(&self.parts.tools.redis_server, folder, clock).await?;
        let database = self.postgres.create_database().await?;
        let tokens = (
            "admin-token-of-a-private-run".to_owned(),
            "gateway-token-of-a-private-run".to_owned(),
        );
        let mut environment: Vec<(String, String)> = [
            ("WEIR_DATABASE_URL", database.url()),
            ("WEIR_REDIS_URL", redis.url()),
            ("WEIR_ADMIN_TOKEN", tokens.0.clone()),
            ("WEIR_GATEWAY_TOKEN", tokens.1.clone()),
            ("WEIR_LOG_FORMAT", "json".to_owned()),
            // Invoices are made when a test says so, of periods that it has put into the past.
            ("WEIR_INVOICE_EVERY_MS", "0".to_owned()),
            ("WEIR_INVOICE_GRACE_MS", "0".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        environment.extend(self.environment.iter().cloned());
        let settings = Settings { program: self.parts.control_plane.clone(), environment };
        Ok((redis, database, settings, tokens))
    }
}

/// A running Weir. The fields are dropped, and so ended, from the edge inwards.
pub struct Stack {
    pub gateways: Vec<Gateway>,
    /// That of each gateway, in their order; none unless [`Builder::links`] asked for them.
    pub links: Vec<Link>,
    pub control_planes: Vec<ControlPlane>,
    pub upstream: Upstream,
    pub redis: Redis,
    pub database: Database,
    /// For `/admin/v1`.
    pub admin_token: String,
    /// For `/edge/v1`.
    pub gateway_token: String,
    settings: Settings,
    envoy: PathBuf,
    filter: PathBuf,
    upstream_port: Option<u16>,
    edits: Vec<(String, String)>,
    reloadable: Reloadable,
    concurrency: u32,
    own_wall_clocks: bool,
    linked: bool,
    folder: RunDir,
}

impl Stack {
    pub fn builder<'a>(parts: &'a Parts, postgres: &'a Arc<Postgres>) -> Builder<'a> {
        Builder {
            parts,
            postgres,
            name: "stack".to_owned(),
            control_planes: 1,
            gateways: 1,
            concurrency: 2,
            links: false,
            plugin: json!({}),
            filter: None,
            upstream_port: None,
            edits: Vec::new(),
            reloadable: Reloadable::Nothing,
            environment: Vec::new(),
            own_wall_clocks: false,
        }
    }

    /// Adds one more gateway; its error has the end of Envoy's log.
    pub async fn add_gateway(&mut self, plugin: &Value) -> Result<()> {
        self.add_gateway_with(plugin, Ok).await
    }

    /// Adds one more gateway, whose whole configuration is changed at last.
    pub async fn add_gateway_with(
        &mut self,
        plugin: &Value,
        change: impl FnOnce(String) -> Result<String>,
    ) -> Result<()> {
        if self.linked {
            let ports: Vec<u16> = self.control_planes.iter().map(ControlPlane::port).collect();
            self.links.push(Link::start(&ports).await?);
        }
        let index = self.gateways.len();
        let config =
            |port, admin_port| self.configure(index, plugin, (port, admin_port)).and_then(change);
        let mut arguments = vec!["--concurrency".to_owned(), self.concurrency.to_string()];
        if self.reloadable != Reloadable::Nothing {
            // What is replaced would otherwise stay for ten minutes.
            arguments.extend(["--drain-time-s".to_owned(), "2".to_owned()]);
        }
        let clock = self.wall_clock(&format!("envoy-{index}"))?;
        let folder = self.folder.path();
        let gateway = Gateway::start(&self.envoy, folder, index, arguments, clock, config).await?;
        self.gateways.push(gateway);
        Ok(())
    }

    /// Gateways that are added from now on have this filter.
    pub fn use_filter(&mut self, filter: &Path) {
        filter.clone_into(&mut self.filter);
    }

    /// Runs `weir` with these arguments and the settings of the control planes, to its end.
    pub async fn weir(&self, arguments: &[&str]) -> Result<Output> {
        self.settings.run(arguments).await
    }

    /// Where its configurations and logs are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves [`Stack::folder`] in place.
    pub fn keep_folder(&self) {
        self.folder.keep();
    }

    fn wall_clock(&self, name: &str) -> Result<Option<WallClock>> {
        self.own_wall_clocks.then(|| WallClock::create(self.folder.path(), name)).transpose()
    }

    async fn grow(&mut self, control_planes: usize, gateways: usize, plugin: &Value) -> Result<()> {
        for index in 0..control_planes {
            let clock = self.wall_clock(&format!("control-plane-{index}"))?;
            let started =
                ControlPlane::start(&self.settings, self.folder.path(), index, clock).await?;
            self.control_planes.push(started);
        }
        for _ in 0..gateways {
            self.add_gateway(plugin).await?;
        }
        Ok(())
    }
}
