//! The configuration of `weir`: a file, and the environment, which wins.

use anyhow::{Context, Result};

use crate::harness::Fleet;

/// What the file says counts, what the environment says counts more, and a mistake is named.
#[tokio::test]
async fn a_file_is_read_and_the_environment_wins() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(0)).await?;
    let file = fleet.stack.folder().join("weir.toml");
    let path = file.to_str().context("a path in UTF-8")?;
    let migrate = async || fleet.stack.weir(&["--config", path, "migrate"]).await;

    let missing = migrate().await?;
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains(path), "{missing:?}");
    // The stack sets database_url in the environment.
    for (text, error) in [
        ("database_connections = 2\n", None),
        ("database_url = \"mysql://nobody@127.0.0.1/none\"\n", None),
        ("database_connections = 0\n", Some("database_connections")),
        ("database_conections = 2\n", Some("database_conections")),
        ("lease_ttl_ms = 10001\n", Some("lease_ttl_ms")),
        ("lease_ttl_ms = \n", Some("weir.toml")),
    ] {
        std::fs::write(&file, text)?;
        let output = migrate().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), error.is_none(), "{text}: {said}");
        assert!(said.contains(error.unwrap_or("")), "{text}: {said}");
    }
    Ok(())
}
