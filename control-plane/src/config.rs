//! Configuration: a TOML file, overridden by `WEIR_*` environment variables.

use std::{net::SocketAddr, path::Path};

use figment::{
    Figment,
    providers::{Env, Format, Toml},
};
use jiff::SignedDuration;
use serde::Deserialize;
use thiserror::Error;

use crate::provider::settings::{Settings, SettingsError};

/// What `weir serve --help` says about configuration.
pub const HELP: &str = "\
Configuration (environment variable; the key in the file is the same in lower case without WEIR_):
  WEIR_DATABASE_URL          postgres://user:password@host:port/name          required
  WEIR_REDIS_URL             redis://host:port/0                              required
  WEIR_ADMIN_TOKEN           bearer token of the admin API, 16 or more chars  required
  WEIR_GATEWAY_TOKEN         bearer token of the gateways, 16 or more chars   required
  WEIR_LISTEN                address and port to listen on                    127.0.0.1:8080
  WEIR_DATABASE_CONNECTIONS  most connections to Postgres, 1 to 1000          16
  WEIR_LEASE_TTL_MS          how long a lease lasts at most, 100 to 10000     2000
  WEIR_STALE_TERMS_MS        how long tenants' terms hold that were read
                             before Postgres failed, 0 to 3600000             60000
  WEIR_INVOICE_GRACE_MS      how long after the end of a billing period its
                             invoice is made, 0 to 2592000000 (30 days)       3600000
  WEIR_INVOICE_EVERY_MS      how often at least is looked for invoices that
                             are due, 100 to 3600000; 0: never                60000
  WEIR_STRIPE_API_KEY        secret key of Stripe; no Stripe without it
  WEIR_STRIPE_WEBHOOK_SECRET signing secret of the webhook /webhooks/stripe
  WEIR_STRIPE_URL            where Stripe's API is                            https://api.stripe.com
  WEIR_STRIPE_CALLS_PER_S    most calls of this process, 1 to 1000            25
  WEIR_CHARGEBEE_URL         https://<site>.chargebee.com; no Chargebee without it
  WEIR_CHARGEBEE_API_KEY     its API key
  WEIR_CHARGEBEE_WEBHOOK_USER, WEIR_CHARGEBEE_WEBHOOK_PASSWORD
                             what calls of the webhook /webhooks/chargebee
                             must present; a password of 16 or more chars
  WEIR_CHARGEBEE_CALLS_PER_S most calls of this process, 1 to 1000            2
  WEIR_PROVIDER_TIMEOUT_MS   how long a call of a provider may take,
                             500 to 120000                                    30000
  WEIR_LOG                   what to log (tracing filter, such as weir=debug) info
  WEIR_LOG_FORMAT            json or text                                     json
  WEIR_CONFIG                the configuration file";

/// The fields that are texts of the operator's, and secret.
const SECRETS: &[&str] = &[
    "database_url",
    "redis_url",
    "admin_token",
    "gateway_token",
    "stripe_api_key",
    "stripe_webhook_secret",
    "chargebee_api_key",
    "chargebee_webhook_user",
    "chargebee_webhook_password",
];

/// The shortest token that is accepted, in characters.
const MIN_TOKEN_LEN: usize = 16;

/// Everything that an operator can set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub database_url: Secret,
    pub redis_url: Secret,
    pub admin_token: Secret,
    pub gateway_token: Secret,
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    #[serde(default = "default_database_connections")]
    pub database_connections: u32,
    #[serde(default = "default_lease_ttl_ms")]
    pub lease_ttl_ms: u64,
    /// How long what was read of a tenant holds while Postgres does not answer; 0 for not at all.
    #[serde(default = "default_stale_terms_ms")]
    pub stale_terms_ms: u64,
    /// How long after the end of a billing period its invoice is made.
    #[serde(default = "default_invoice_grace_ms")]
    pub invoice_grace_ms: u32,
    /// How often at least `serve` looks for invoices that are due; 0 for never.
    #[serde(default = "default_invoice_every_ms")]
    pub invoice_every_ms: u32,
    pub stripe_api_key: Option<Secret>,
    pub stripe_webhook_secret: Option<Secret>,
    pub stripe_url: Option<String>,
    #[serde(default = "default_stripe_calls_per_s")]
    pub stripe_calls_per_s: u32,
    pub chargebee_url: Option<String>,
    pub chargebee_api_key: Option<Secret>,
    pub chargebee_webhook_user: Option<Secret>,
    pub chargebee_webhook_password: Option<Secret>,
    #[serde(default = "default_chargebee_calls_per_s")]
    pub chargebee_calls_per_s: u32,
    #[serde(default = "default_provider_timeout_ms")]
    pub provider_timeout_ms: u32,
    #[serde(default = "default_log")]
    pub log: String,
    #[serde(default)]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    Text,
}

/// A text that must not show in logs.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8080))
}

fn default_database_connections() -> u32 {
    16
}

fn default_lease_ttl_ms() -> u64 {
    2_000
}

fn default_stale_terms_ms() -> u64 {
    60_000
}

fn default_invoice_grace_ms() -> u32 {
    3_600_000
}

fn default_invoice_every_ms() -> u32 {
    60_000
}

/// What Stripe allows a sandbox. Live it allows 100, and 25 for each endpoint, which is kept as well.
fn default_stripe_calls_per_s() -> u32 {
    25
}

/// Chargebee allows test sites 150 a minute.
fn default_chargebee_calls_per_s() -> u32 {
    2
}

fn default_provider_timeout_ms() -> u32 {
    30_000
}

fn default_log() -> String {
    "info".to_owned()
}

/// Why the configuration can't be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("the configuration is not usable: {0}; see weir serve --help")]
    Source(Box<figment::Error>),
    #[error("{} is missing; see weir serve --help", variable(.0))]
    Missing(String),
    #[error("the configuration file {0} does not exist")]
    NoFile(String),
    #[error("{0} must have at least {MIN_TOKEN_LEN} characters")]
    ShortToken(&'static str),
    #[error("admin_token and gateway_token must differ")]
    SameTokens,
    #[error("{0}")]
    Provider(#[from] SettingsError),
    #[error("{field} is {value}, it must be {allowed}")]
    Range { field: &'static str, value: u64, allowed: &'static str },
}

/// The environment variable of a field.
fn variable(field: &str) -> String {
    format!("WEIR_{}", field.to_uppercase())
}

fn source_error(error: figment::Error) -> ConfigError {
    match &error.kind {
        figment::error::Kind::MissingField(field) => ConfigError::Missing(field.to_string()),
        _ => ConfigError::Source(Box::new(error)),
    }
}

impl Config {
    /// Reads `file`, if one is named, and the environment.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        if let Some(file) = file {
            if !file.exists() {
                return Err(ConfigError::NoFile(file.display().to_string()));
            }
            figment = figment.merge(Toml::file_exact(file));
        }
        // WEIR_CONFIG names the file itself.
        let environment = Env::prefixed("WEIR_").ignore(&["config"]).ignore(SECRETS);
        figment = figment.merge(environment);
        for name in SECRETS {
            // As it is: a token of digits is no number, and must not show in the error about one.
            if let Ok(value) = std::env::var(variable(name)) {
                figment = figment.merge((*name, value.trim()));
            }
        }
        let config: Self = figment.extract().map_err(source_error)?;
        config.check()?;
        Ok(config)
    }

    /// How long after the end of a billing period its invoice is made.
    pub fn invoice_grace(&self) -> SignedDuration {
        SignedDuration::from_millis(self.invoice_grace_ms.into())
    }

    fn check(&self) -> Result<(), ConfigError> {
        for (name, token) in
            [("admin_token", &self.admin_token), ("gateway_token", &self.gateway_token)]
        {
            if token.reveal().chars().count() < MIN_TOKEN_LEN {
                return Err(ConfigError::ShortToken(name));
            }
        }
        if self.admin_token.reveal() == self.gateway_token.reveal() {
            return Err(ConfigError::SameTokens);
        }
        let max_ttl_ms = weir_domain::protocol::MAX_TTL_MS;
        let every_ms = self.invoice_every_ms;
        for (field, value, is_allowed, allowed) in [
            (
                "lease_ttl_ms",
                self.lease_ttl_ms,
                (100..=max_ttl_ms).contains(&self.lease_ttl_ms),
                "100 to 10000",
            ),
            (
                "stale_terms_ms",
                self.stale_terms_ms,
                self.stale_terms_ms <= 3_600_000,
                "0 to 3600000",
            ),
            (
                "database_connections",
                self.database_connections.into(),
                (1..=1000).contains(&self.database_connections),
                "1 to 1000",
            ),
            (
                "invoice_grace_ms",
                self.invoice_grace_ms.into(),
                self.invoice_grace_ms <= 2_592_000_000,
                "0 to 2592000000",
            ),
            (
                "invoice_every_ms",
                every_ms.into(),
                every_ms == 0 || (100..=3_600_000).contains(&every_ms),
                "0, or 100 to 3600000",
            ),
        ] {
            if !is_allowed {
                return Err(ConfigError::Range { field, value, allowed });
            }
        }
        Settings::of(self)?;
        Ok(())
    }
}
