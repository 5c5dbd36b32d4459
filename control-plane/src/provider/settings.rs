//! What the configuration says about providers, checked.

use std::time::Duration;

use reqwest::Url;
use thiserror::Error;

use crate::config::{Config, Secret};

/// Where Stripe's API is, unless something stands in for it.
pub const STRIPE_URL: &str = "https://api.stripe.com";

/// Which providers can be used, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    pub stripe: Option<StripeSettings>,
    pub chargebee: Option<ChargebeeSettings>,
    /// How long a call may take.
    pub timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct StripeSettings {
    pub url: Url,
    pub api_key: Secret,
    pub calls_per_s: u32,
    pub webhook_secret: Option<Secret>,
}

#[derive(Debug, Clone)]
pub struct ChargebeeSettings {
    pub url: Url,
    pub api_key: Secret,
    pub calls_per_s: u32,
    /// Name and password of webhook calls.
    pub webhook: Option<(Secret, Secret)>,
}

/// What is wrong with the configuration of a provider.
#[derive(Debug, Error)]
pub enum SettingsError {
    #[error("{field} is {value:?}, it must be an address such as {example}: {why}")]
    Url { field: &'static str, value: String, example: &'static str, why: String },
    #[error(
        "{field} begins with http://, which would send the API key in clear; use https:// (http:// is for 127.0.0.1 and localhost)"
    )]
    Clear { field: &'static str },
    #[error("{field} is set, and {missing} is not; set both, or neither")]
    Half { field: &'static str, missing: &'static str },
    #[error("{field} {must}")]
    Form { field: &'static str, must: &'static str },
    #[error("{field} is {value}, it must be {allowed}")]
    Range { field: &'static str, value: u32, allowed: &'static str },
}

impl Settings {
    pub fn of(config: &Config) -> Result<Self, SettingsError> {
        range("provider_timeout_ms", config.provider_timeout_ms, 500, 120_000, "500 to 120000")?;
        range("stripe_calls_per_s", config.stripe_calls_per_s, 1, 1_000, "1 to 1000")?;
        range("chargebee_calls_per_s", config.chargebee_calls_per_s, 1, 1_000, "1 to 1000")?;
        Ok(Self {
            stripe: stripe(config)?,
            chargebee: chargebee(config)?,
            timeout: Duration::from_millis(config.provider_timeout_ms.into()),
        })
    }
}

fn stripe(config: &Config) -> Result<Option<StripeSettings>, SettingsError> {
    let half = |field| SettingsError::Half { field, missing: "stripe_api_key" };
    let Some(api_key) = given(config.stripe_api_key.as_ref()) else {
        if given(config.stripe_webhook_secret.as_ref()).is_some() {
            return Err(half("stripe_webhook_secret"));
        }
        return if stated(config.stripe_url.as_deref()).is_some() {
            Err(half("stripe_url"))
        } else {
            Ok(None)
        };
    };
    if !["sk_", "rk_"].iter().any(|prefix| api_key.reveal().starts_with(prefix)) {
        return Err(SettingsError::Form {
            field: "stripe_api_key",
            must: "must be a secret or restricted key, which begins with sk_ or rk_",
        });
    }
    let webhook_secret = given(config.stripe_webhook_secret.as_ref());
    if webhook_secret.as_ref().is_some_and(|secret| !secret.reveal().starts_with("whsec_")) {
        return Err(SettingsError::Form {
            field: "stripe_webhook_secret",
            must: "must be the signing secret of the webhook endpoint, which begins with whsec_",
        });
    }
    let url = stated(config.stripe_url.as_deref()).unwrap_or(STRIPE_URL);
    let url = address("stripe_url", url, STRIPE_URL)?;
    Ok(Some(StripeSettings {
        url,
        api_key,
        calls_per_s: config.stripe_calls_per_s,
        webhook_secret,
    }))
}

fn chargebee(config: &Config) -> Result<Option<ChargebeeSettings>, SettingsError> {
    let user = given(config.chargebee_webhook_user.as_ref());
    let password = given(config.chargebee_webhook_password.as_ref());
    let half = |field, missing| Err(SettingsError::Half { field, missing });
    let url = stated(config.chargebee_url.as_deref());
    let (url, api_key) = match (url, given(config.chargebee_api_key.as_ref())) {
        (Some(url), Some(api_key)) => (url, api_key),
        (Some(_), None) => return half("chargebee_url", "chargebee_api_key"),
        (None, Some(_)) => return half("chargebee_api_key", "chargebee_url"),
        (None, None) if user.is_some() => return half("chargebee_webhook_user", "chargebee_url"),
        (None, None) if password.is_some() => {
            return half("chargebee_webhook_password", "chargebee_url");
        }
        (None, None) => return Ok(None),
    };
    let webhook = match (user, password) {
        (Some(user), Some(password)) => Some((user, password)),
        (None, None) => None,
        (Some(_), None) => return half("chargebee_webhook_user", "chargebee_webhook_password"),
        (None, Some(_)) => return half("chargebee_webhook_password", "chargebee_webhook_user"),
    };
    if webhook.as_ref().is_some_and(|(_, password)| password.reveal().chars().count() < 16) {
        return Err(SettingsError::Form {
            field: "chargebee_webhook_password",
            must: "must have at least 16 characters",
        });
    }
    Ok(Some(ChargebeeSettings {
        url: address("chargebee_url", url, "https://acme.chargebee.com")?,
        api_key,
        calls_per_s: config.chargebee_calls_per_s,
        webhook,
    }))
}

/// An empty text counts as none: that is how docker compose passes on what is not set.
fn given(secret: Option<&Secret>) -> Option<Secret> {
    secret.filter(|secret| !secret.reveal().is_empty()).cloned()
}

/// The same for an address.
fn stated(url: Option<&str>) -> Option<&str> {
    url.filter(|url| !url.trim().is_empty())
}

fn address(field: &'static str, text: &str, example: &'static str) -> Result<Url, SettingsError> {
    let wrong = |why: &str| SettingsError::Url {
        field,
        value: text.to_owned(),
        example,
        why: why.to_owned(),
    };
    let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    let local = ["127.0.0.1", "localhost", "[::1]"].contains(&url.host_str().unwrap_or(""));
    match url.scheme() {
        "https" => {}
        "http" if local => {}
        "http" => return Err(SettingsError::Clear { field }),
        _ => return Err(wrong("it must begin with https://")),
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it must not have a path"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it must not have a password; the API key has its own variable"));
    }
    Ok(url)
}

fn range(
    field: &'static str,
    value: u32,
    min: u32,
    max: u32,
    allowed: &'static str,
) -> Result<(), SettingsError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(SettingsError::Range { field, value, allowed })
    }
}
