//! The configuration of a gateway of this stack, and how it is replaced while the gateway runs.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{ControlPlane, Stack, envoy_config::PrivateConfig, wait_for};
use crate::workspace;

/// How long Envoy may take.
const RELOAD_WITHIN: Duration = Duration::from_secs(15);

impl Stack {
    /// Replaces the plugin's configuration of a gateway, in a stack that is
    /// [`reloadable`](super::Builder::reloadable). Envoy has taken it in when this returns.
    pub async fn reload_gateway(&self, index: usize, plugin: &Value) -> Result<()> {
        let gateway = &self.gateways[index];
        let taken_in = async || {
            let stats = gateway.stats().await?;
            let counts = |name: &&String| {
                name.ends_with("listener_manager.listener_modified")
                    || name.ends_with(".weir.config_reload")
            };
            let reloads: u64 = stats.keys().filter(counts).map(|name| stats[name]).sum();
            let warming = stats.get("listener_manager.total_listeners_warming");
            anyhow::Ok((reloads, warming == Some(&0)))
        };
        let (before, _) = taken_in().await?;
        self.configure(index, plugin, gateway.ports())?;
        wait_for("Envoy to take in its new configuration", RELOAD_WITHIN, async || {
            let (now, settled) = taken_in().await?;
            Ok((now > before && settled).then_some(()))
        })
        .await
    }

    /// The configuration of the gateway with this index, ports; what of it is read from
    /// a file of its own is in place when this returns.
    pub(super) fn configure(
        &self,
        index: usize,
        plugin: &Value,
        (port, admin_port): (u16, u16),
    ) -> Result<String> {
        let ports = match self.links.get(index) {
            Some(link) => link.ports().to_vec(),
            None => self.control_planes.iter().map(ControlPlane::port).collect(),
        };
        let shipped = workspace().join("envoy/envoy.yaml");
        let shipped =
            fs::read_to_string(&shipped).with_context(|| shipped.display().to_string())?;
        let text = PrivateConfig {
            port,
            admin_port,
            control_plane_ports: &ports,
            upstream_port: self.upstream_port.unwrap_or_else(|| self.upstream.port()),
            filter: &self.filter.display().to_string(),
            gateway_token: &self.gateway_token,
            plugin,
            edits: &self.edits,
        }
        .apply_to(&shipped)?;
        let file = fs::canonicalize(self.folder())?.join(format!("envoy-{index}-part.yaml"));
        let (rest, part) = self.reloadable.split(&text, &file.display().to_string())?;
        let Some(part) = part else {
            return Ok(rest);
        };
        // Envoy looks at the file when another one is moved there.
        let new = file.with_extension("new");
        fs::write(&new, part)?;
        fs::rename(&new, &file)?;
        Ok(rest)
    }
}
