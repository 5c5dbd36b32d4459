//! The configuration of `weir`: a file, and the environment, which wins.

use anyhow::{Context, Result};
use serde_json::json;

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

/// A version that finds a newer one's schema says so and leaves it alone; replicas that run go on.
#[tokio::test]
async fn a_schema_of_a_newer_version_is_named() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(0)).await?;
    let newer =
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
                 values (9999, 'of the future', true, '', 0)";
    fleet.stack.database.query(newer).await?;
    let output = fleet.stack.weir(&["migrate"]).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("newer version of Weir (migration 9999)"),
        "{said}"
    );
    fleet.tenant("acme", &[], &[]).await
}

/// What is wrong with the settings of a provider is named before anything starts, and no secret is
/// shown; what is right is taken.
#[tokio::test]
async fn settings_of_providers_are_checked() -> Result<()> {
    let fleet = Fleet::with(|stack| stack.gateways(0)).await?;
    let file = fleet.stack.folder().join("weir.toml");
    let path = file.to_str().context("a path in UTF-8")?;
    let stripe = "stripe_api_key = \"sk_test_secret\"\n";
    let chargebee =
        "chargebee_url = \"https://acme.chargebee.com\"\nchargebee_api_key = \"live_secret\"\n";
    for (settings, error) in [
        (stripe.to_owned(), None),
        (format!("{stripe}stripe_webhook_secret = \"whsec_secret\""), None),
        (format!("{stripe}stripe_url = \"http://127.0.0.1:12111\""), None),
        (chargebee.to_owned(), None),
        ("stripe_api_key = \"pk_test_secret\"".to_owned(), Some("begins with sk_ or rk_")),
        ("stripe_webhook_secret = \"whsec_secret\"".to_owned(), Some("stripe_api_key is not")),
        (format!("{stripe}stripe_webhook_secret = \"secret\""), Some("begins with whsec_")),
        (format!("{stripe}stripe_url = \"http://api.stripe.com\""), Some("in clear")),
        (format!("{stripe}stripe_url = \"api.stripe.com\""), Some("stripe_url")),
        (
            format!("{stripe}stripe_url = \"https://api.stripe.com/v1\""),
            Some("must not have a path"),
        ),
        (format!("{stripe}stripe_calls_per_s = 0"), Some("stripe_calls_per_s is 0")),
        ("provider_timeout_ms = 10".to_owned(), Some("500 to 120000")),
        ("chargebee_api_key = \"live_secret\"".to_owned(), Some("chargebee_url is not")),
        (
            "chargebee_url = \"https://acme.chargebee.com\"".to_owned(),
            Some("chargebee_api_key is not"),
        ),
        (
            format!("{chargebee}chargebee_webhook_user = \"chargebee\""),
            Some("chargebee_webhook_password is not"),
        ),
        (
            format!(
                "{chargebee}chargebee_webhook_user = \"chargebee\"\nchargebee_webhook_password = \"short_secret\""
            ),
            Some("16 characters"),
        ),
        ("stripe_key = \"sk_test_secret\"".to_owned(), Some("stripe_key")),
    ] {
        std::fs::write(&file, &settings)?;
        let output = fleet.stack.weir(&["--config", path, "migrate"]).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), error.is_none(), "{settings}: {said}");
        assert!(said.contains(error.unwrap_or("")), "{settings}: {said}");
        assert!(!said.contains("_secret\"") && !said.contains("test_secret"), "{settings}: {said}");
    }
    // Nobody is moved to a provider that is not configured, or to one that lacks what it needs.
    fleet.tenant("acme", &[], &[]).await?;
    for (provider, field) in [
        (json!({ "kind": "stripe", "email": "a@b.example" }), "provider.kind"),
        (json!({ "kind": "manual", "email": "a@b.example" }), "provider.kind"),
        (json!({ "kind": "paypal" }), "provider.kind"),
        (json!({ "kind": "stripe", "email": "nobody" }), "provider.email"),
        (json!({ "kind": "stripe", "iban": "CH" }), "provider.iban"),
    ] {
        let patch = json!({ "provider": provider });
        let answer = fleet.admin.patch("/tenants/acme", &patch).await?;
        assert_eq!(answer.status, 400, "{patch}: {}", answer.body);
        assert_eq!(answer.json()?["errors"][0]["field"], field, "{patch}: {}", answer.body);
    }
    let tenant = fleet.admin.get("/tenants/acme").await?.ok()?;
    assert_eq!(tenant["provider"], json!({ "kind": "manual" }));
    Ok(())
}
