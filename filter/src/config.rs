//! The plugin configuration, checked once. An error names the field, and Envoy refuses the listener.

use serde::Deserialize;
use thiserror::Error;
use weir_domain::quantity::Quantity;

use crate::llm::config::LlmConfig;

/// All that can be set, as JSON in the plugin's `configuration`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub control_plane: ControlPlane,
    pub identity: Identity,
    /// Requests that pass without a tenant and cost nothing. The first rule that matches counts.
    #[serde(default)]
    pub exempt: Vec<ExemptRule>,
    /// Decide, count and report, but refuse nothing.
    #[serde(default)]
    pub shadow: bool,
    /// Tokens that each request costs.
    #[serde(default = "default_cost")]
    pub cost: Quantity,
    /// How long a request waits for a lease before the outage contract decides.
    #[serde(default = "default_max_wait_ms")]
    pub max_wait_ms: u64,
    /// How often usage is sent. A crash loses what was admitted since.
    #[serde(default = "default_flush_ms")]
    pub flush_ms: u64,
    /// Nothing more is admitted while the oldest unacknowledged usage is older than this.
    #[serde(default = "default_max_unacknowledged_ms")]
    pub max_unacknowledged_ms: u64,
    /// Which answers carry `RateLimit` and `RateLimit-Policy`.
    #[serde(default)]
    pub rate_limit_fields: RateLimitFields,
    /// What becomes of requests while no lease can be had.
    #[serde(default)]
    pub outage: OutageContract,
    /// What becomes of requests where the rating policy fails.
    #[serde(default)]
    pub policy_failure: PolicyFailure,
    /// Requests that call language models.
    pub llm: Option<LlmConfig>,
}

/// What becomes of a request of which the rating policy says nothing that can be used, or takes more
/// than its budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyFailure {
    #[default]
    Deny,
    /// It costs what it would without a policy.
    Allow,
}

/// What becomes of requests of active tenants while the control plane does not answer and their
/// lease is used up or has ended: first grace, then [`AfterGrace`].
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutageContract {
    /// How long grace lasts, from the first request that needs it.
    pub grace_ms: u64,
    /// What each tenant may spend in grace at this gateway, in each second of it.
    pub grace_tokens_per_s: Quantity,
    pub then: AfterGrace,
}

/// What becomes of requests when grace is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterGrace {
    #[default]
    Deny,
    /// They pass, however many. They are counted, billed and owed.
    Allow,
}

/// How the control plane is reached.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlPlane {
    /// The Envoy cluster.
    pub cluster: String,
    /// The `:authority` of the calls; the cluster's name if empty.
    #[serde(default)]
    pub authority: String,
    /// A gateway token of the control plane.
    pub token: String,
    /// How long a call may take.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
}

/// Where a request says which tenant it is of.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Identity {
    /// A request header with the tenant's id. For networks where nobody can forge it.
    Header { name: String },
}

/// All parts that are given must match.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExemptRule {
    /// Without the query string.
    pub path: Option<String>,
    pub path_prefix: Option<String>,
    pub method: Option<String>,
}

/// Which answers carry the rate limit fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateLimitFields {
    /// Those that refuse a request for lack of tokens.
    #[default]
    Refused,
    /// All that a tenant gets. Costs a little more per request.
    Always,
}

/// The longest grace.
const MAX_GRACE_MS: u64 = 86_400_000;

fn default_cost() -> Quantity {
    Quantity::ONE
}

fn default_max_wait_ms() -> u64 {
    250
}

fn default_flush_ms() -> u64 {
    500
}

fn default_max_unacknowledged_ms() -> u64 {
    600_000
}

fn default_timeout_ms() -> u64 {
    1_000
}

/// What is wrong with a plugin configuration.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    #[error("weir: the plugin has no configuration; see envoy.yaml for an example")]
    Missing,
    #[error("weir: the plugin configuration is wrong at {field}: {cause}")]
    Json { field: String, cause: String },
    #[error("weir: the plugin configuration is wrong at {field}: {cause}")]
    Value { field: String, cause: &'static str },
}

impl Config {
    /// Reads and checks `json`.
    pub fn parse(json: Option<&[u8]>) -> Result<Self, ConfigError> {
        let json = json.filter(|bytes| !bytes.is_empty()).ok_or(ConfigError::Missing)?;
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let mut config: Self =
            serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
                ConfigError::Json {
                    field: error.path().to_string(),
                    cause: error.into_inner().to_string(),
                }
            })?;
        deserializer.end().map_err(|error| ConfigError::Json {
            field: ".".to_owned(),
            cause: error.to_string(),
        })?;
        config.check()?;
        if config.control_plane.authority.is_empty() {
            config.control_plane.authority.clone_from(&config.control_plane.cluster);
        }
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |field: &str, cause| Err(ConfigError::Value { field: field.to_owned(), cause });
        if self.control_plane.cluster.is_empty() {
            return wrong("control_plane.cluster", "must name an Envoy cluster");
        }
        if self.control_plane.token.is_empty() {
            return wrong("control_plane.token", "must be a gateway token of the control plane");
        }
        if !(1..=60_000).contains(&self.control_plane.timeout_ms) {
            return wrong("control_plane.timeout_ms", "must be 1 to 60000");
        }
        let Identity::Header { name } = &self.identity;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase())
        {
            return wrong("identity.name", "must be the name of a header in lower case");
        }
        for (index, rule) in self.exempt.iter().enumerate() {
            if rule.path.is_none() && rule.path_prefix.is_none() && rule.method.is_none() {
                let field = format!("exempt[{index}]");
                return wrong(&field, "must have a path, a path_prefix or a method");
            }
        }
        if !(1..=60_000).contains(&self.max_wait_ms) {
            return wrong("max_wait_ms", "must be 1 to 60000");
        }
        if !(10..=60_000).contains(&self.flush_ms) {
            return wrong("flush_ms", "must be 10 to 60000");
        }
        if self.max_unacknowledged_ms < self.flush_ms {
            return wrong("max_unacknowledged_ms", "must be at least flush_ms");
        }
        if let Some(llm) = &self.llm {
            llm.check().map_err(|(field, cause)| ConfigError::Value { field, cause })?;
        }
        self.outage.check()
    }
}

impl OutageContract {
    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |field: &str, cause| Err(ConfigError::Value { field: field.to_owned(), cause });
        if self.grace_ms > MAX_GRACE_MS {
            return wrong("outage.grace_ms", "must be 0 to 86400000, which is a day");
        }
        let gives = !self.grace_tokens_per_s.is_zero();
        if self.grace_ms > 0 && !gives {
            return wrong("outage.grace_tokens_per_s", "must be 1 or more where grace_ms is not 0");
        }
        if gives && self.grace_ms == 0 {
            return wrong("outage.grace_ms", "must be 1 or more where grace_tokens_per_s is not 0");
        }
        Ok(())
    }
}

impl ExemptRule {
    /// Whether it matters what the request's path is.
    pub fn names_path(&self) -> bool {
        self.path.is_some() || self.path_prefix.is_some()
    }

    /// Whether a request for `path` (with its query) by `method` passes.
    pub fn matches(&self, method: &[u8], path: &[u8]) -> bool {
        let bare = path.split(|byte| *byte == b'?').next().unwrap_or(path);
        self.method.as_ref().is_none_or(|wanted| wanted.as_bytes() == method)
            && self.path.as_ref().is_none_or(|wanted| wanted.as_bytes() == bare)
            && self.path_prefix.as_ref().is_none_or(|wanted| bare.starts_with(wanted.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"{
        "control_plane": {"cluster": "weir", "token": "t"},
        "identity": {"kind": "header", "name": "x-tenant-id"}
    }"#;

    fn parse(json: &str) -> Result<Config, ConfigError> {
        Config::parse(Some(json.as_bytes()))
    }

    #[test]
    fn defaults_fill_what_is_not_said() {
        let config = parse(MINIMAL).unwrap();
        assert_eq!(config.control_plane.authority, "weir");
        assert_eq!(config.cost, Quantity::ONE);
        assert_eq!(config.max_wait_ms, 250);
        assert!(!config.shadow);
    }

    #[test]
    fn an_error_names_the_field() {
        let with =
            |from: &str, to: &str| parse(&MINIMAL.replace(from, to)).unwrap_err().to_string();
        for (error, field) in [
            (Config::parse(None).unwrap_err().to_string(), "no configuration"),
            (with(r#""token": "t""#, r#""token": """#), "control_plane.token"),
            (with(r#""token": "t""#, r#""tokens": "t""#), "control_plane.tokens"),
            (with("x-tenant-id", "X-Tenant"), "identity.name"),
            (with("header", "cookie"), "identity"),
            (with("}\n    }", r#"}, "cost": -1}"#), "cost"),
            (with("}\n    }", r#"}, "cost": 1.5}"#), "cost"),
            (with("}\n    }", r#"}, "exempt": [{}]}"#), "exempt[0]"),
            (with("}\n    }", r#"}, "max_wait_ms": 0}"#), "max_wait_ms"),
            (with("}\n    }", r#"}, "outage": {"grace_ms": 9}}"#), "outage.grace_tokens_per_s"),
            (with("}\n    }", r#"}, "outage": {"grace_tokens_per_s": 9}}"#), "outage.grace_ms"),
            (with("}\n    }", r#"}, "outage": {"then": "pray"}}"#), "outage.then"),
            (with("}\n    }", r#"}, "llm": {"routes": []}}"#), "llm.routes"),
            (with("}\n    }", r#"}, "llm": {"routes": [{}]}}"#), "llm.routes[0]"),
            (parse("{").unwrap_err().to_string(), "EOF"),
        ] {
            assert!(error.contains(field), "{field}: {error}");
        }
    }

    #[test]
    fn an_exempt_rule_matches_without_the_query() {
        let rule = ExemptRule {
            path: Some("/healthz".into()),
            path_prefix: None,
            method: Some("GET".into()),
        };
        assert!(rule.matches(b"GET", b"/healthz?verbose"));
        assert!(!rule.matches(b"GET", b"/healthz/x"));
        assert!(!rule.matches(b"POST", b"/healthz"));
    }
}
