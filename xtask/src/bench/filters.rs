//! The configurations that Weir is measured beside: `envoy/envoy.yaml` with another filter in
//! Weir's place, so that all else is the same.

use std::path::Path;

use anyhow::{Context, Result};

/// What stands where Weir does.
pub(super) enum Peer<'a> {
    /// Weir itself.
    Weir,
    Bare,
    /// A wasm module that does nothing.
    Wasm(&'a Path),
    LocalRatelimit,
    /// Asks the rate limit service on this port for each request.
    RatelimitService(u16),
    /// Envoy answers 429 itself, with a body of so many bytes.
    DirectAnswer(usize),
}

const FILTERS: &str = "http_filters:\n";
const ROUTER: &str = "- name: envoy.filters.http.router\n";
const ROUTE: &str = "route: { cluster: upstream, timeout: 60s }";
/// The service counts per tenant.
const RATE_LIMITED_ROUTE: &str = "route: { cluster: upstream, timeout: 60s, rate_limits: [\
     { actions: [{ request_headers: { header_name: x-tenant-id, descriptor_key: tenant } }] }] }";
const CLUSTERS: &str = "  clusters:\n";

impl Peer<'_> {
    /// Puts it into a configuration that has Weir.
    pub(super) fn instead_of_weir(&self, config: &str) -> Result<String> {
        if matches!(self, Self::Weir) {
            return Ok(config.to_owned());
        }
        let start = config.find(FILTERS).context("no http_filters")? + FILTERS.len();
        let router = config.find(ROUTER).context("no router")?;
        let (before, after) = (&config[..start], &config[router..]);
        let indent = " ".repeat(18);
        let filter = self.filter().map_or_else(String::new, |text| indented(&text, &indent));
        let config = format!("{before}{filter}{indent}{after}");
        let config = match self {
            Self::RatelimitService(_) => config.replace(ROUTE, RATE_LIMITED_ROUTE),
            Self::DirectAnswer(bytes) => config.replace(
                ROUTE,
                &format!(
                    "direct_response: {{ status: 429, body: {{ inline_string: \"{}\" }} }}",
                    "x".repeat(*bytes)
                ),
            ),
            _ => config,
        };
        Ok(config.replacen(CLUSTERS, &format!("{CLUSTERS}{}", self.cluster()), 1))
    }

    fn filter(&self) -> Option<String> {
        Some(match self {
            Self::Weir | Self::Bare | Self::DirectAnswer(_) => return None,
            Self::Wasm(module) => format!(
                r#"- name: noop
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
    config:
      name: noop
      vm_config:
        vm_id: noop
        runtime: envoy.wasm.runtime.v8
        code: {{ local: {{ filename: "{}" }} }}
"#,
                module.display()
            ),
            Self::LocalRatelimit => r#"- name: envoy.filters.http.local_ratelimit
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
    stat_prefix: local
    token_bucket: { max_tokens: 1000000000, tokens_per_fill: 1000000000, fill_interval: 1s }
    filter_enabled: { default_value: { numerator: 100 } }
    filter_enforced: { default_value: { numerator: 100 } }
"#
            .to_owned(),
            Self::RatelimitService(_) => r#"- name: envoy.filters.http.ratelimit
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
    domain: bench
    failure_mode_deny: true
    timeout: 1s
    rate_limit_service:
      transport_api_version: V3
      grpc_service: { envoy_grpc: { cluster_name: ratelimit } }
"#
            .to_owned(),
        })
    }

    fn cluster(&self) -> String {
        let Self::RatelimitService(port) = self else { return String::new() };
        format!(
            r#"    - name: ratelimit
      type: STATIC
      connect_timeout: 1s
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {{ http2_protocol_options: {{}} }}
      load_assignment:
        cluster_name: ratelimit
        endpoints:
          - lb_endpoints:
              - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}
"#
        )
    }
}

fn indented(text: &str, indent: &str) -> String {
    text.lines().map(|line| format!("{indent}{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_stands_where_weir_does() -> Result<()> {
        let shipped = include_str!("../../../envoy/envoy.yaml");
        let peers =
            [Peer::Bare, Peer::LocalRatelimit, Peer::RatelimitService(7), Peer::DirectAnswer(3)];
        for (peer, shows) in peers.iter().zip(["", "local_ratelimit", "port_value: 7", "\"xxx\""]) {
            let config = peer.instead_of_weir(shipped)?;
            assert!(!config.contains("name: weir\n                    typed_config"), "{config}");
            assert!(config.contains(shows) && config.contains(ROUTER), "{config}");
        }
        Ok(())
    }
}
