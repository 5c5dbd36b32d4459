//! Which requests call language models, and how they are metered.

use serde::Deserialize;
use weir_domain::{llm::estimate::TokenEstimate, quantity::Quantity};

/// The `llm` part of the plugin configuration. Needs the module that reads bodies.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LlmConfig {
    /// Where models are called: requests with a body on these paths. All others cost `cost`.
    pub routes: Vec<RouteRule>,
    /// The longest body that is read. Envoy's own buffer limit must not be below it.
    #[serde(default = "default_max_body_bytes")]
    pub max_body_bytes: usize,
    /// What becomes of a call whose body is too long, is no JSON, or is not understood.
    #[serde(default)]
    pub unreadable: Unreadable,
    /// What is reserved for the output of a call that names no bound.
    #[serde(default = "default_max_output_tokens")]
    pub default_max_output_tokens: Quantity,
    /// How tokens are guessed where nobody counts them.
    #[serde(default)]
    pub estimate: TokenEstimate,
    /// What a call costs that the upstream answers with a status of 400 or more.
    #[serde(default)]
    pub upstream_errors: UpstreamErrors,
    /// Has OpenAI's streams say what they used, though the client does not ask for it.
    #[serde(default)]
    pub include_usage: bool,
    /// Believe `x-weir-model`, `x-weir-prompt-tokens` and `x-weir-max-output-tokens`: for networks where
    /// nobody can forge them. Otherwise they are removed.
    #[serde(default)]
    pub trust_headers: bool,
}

/// One of the two.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteRule {
    /// Without the query string.
    pub path: Option<String>,
    pub path_prefix: Option<String>,
}

/// What becomes of a call that cannot be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unreadable {
    /// It gets an error that says what is wrong.
    #[default]
    Refuse,
    /// It passes: what is reserved follows from its length, and its model is not known.
    Pass,
}

/// What becomes of calls that the upstream refuses or fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamErrors {
    /// They cost no tokens, unless the upstream says that it used some. They count as requests.
    #[default]
    Free,
    /// They cost what the prompt is estimated at.
    Charge,
}

fn default_max_body_bytes() -> usize {
    262_144
}

fn default_max_output_tokens() -> Quantity {
    Quantity::clamped(4_096)
}

impl LlmConfig {
    /// What is wrong with it: the field, and why.
    pub fn check(&self) -> Result<(), (String, &'static str)> {
        if self.routes.is_empty() {
            return Err(("llm.routes".to_owned(), "must have at least one path or path_prefix"));
        }
        for (index, rule) in self.routes.iter().enumerate() {
            if rule.path.is_none() == rule.path_prefix.is_none() {
                let field = format!("llm.routes[{index}]");
                return Err((field, "must have either a path or a path_prefix"));
            }
        }
        if !(1_024..=16 << 20).contains(&self.max_body_bytes) {
            return Err(("llm.max_body_bytes".to_owned(), "must be 1024 to 16777216"));
        }
        Ok(())
    }

    /// Whether a request for `path` (with its query) may be a call.
    pub fn covers(&self, path: &[u8]) -> bool {
        let bare = path.split(|byte| *byte == b'?').next().unwrap_or(path);
        self.routes.iter().any(|rule| {
            rule.path.as_ref().is_some_and(|wanted| wanted.as_bytes() == bare)
                || rule
                    .path_prefix
                    .as_ref()
                    .is_some_and(|wanted| bare.starts_with(wanted.as_bytes()))
        })
    }
}
