//! Billing providers: Stripe and Chargebee behind one small client, and `manual`, which sends nothing.
//!
//! | module | subject |
//! |---|---|
//! | [`settings`] | what the configuration says |
//! | [`call`] | one call: its turn, its claim, its answer, and what an error means |
//! | [`pace`] | at most so many calls a second |
//! | [`claim`] | one worker at a time for the customer whose invoices are sent |
//! | [`bill`] | an invoice as providers get it |
//! | [`stripe`], [`chargebee`] | their calls |
//! | [`credit_notes`] | credit notes as providers get them |
//! | [`listed`] | invoices as they list them, to be compared with ours |

pub mod bill;
pub mod call;
pub mod chargebee;
pub mod claim;
pub mod credit_notes;
pub mod listed;
pub mod pace;
pub mod settings;
pub mod stripe;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::{chargebee::Chargebee, settings::Settings, stripe::Stripe};

/// Who sends a tenant's invoices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Kind {
    /// Nobody: they stay in Weir.
    Manual,
    Stripe,
    Chargebee,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Stripe => "stripe",
            Self::Chargebee => "chargebee",
        }
    }

    /// The variable without which it can't be used.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Manual => "",
            Self::Stripe => "WEIR_STRIPE_API_KEY",
            Self::Chargebee => "WEIR_CHARGEBEE_API_KEY",
        }
    }
}

/// The providers that are configured.
pub struct Providers {
    pub stripe: Option<Stripe>,
    pub chargebee: Option<Chargebee>,
}

impl Providers {
    pub fn new(settings: &Settings) -> Result<Self, call::ClientError> {
        Ok(Self {
            stripe: settings
                .stripe
                .as_ref()
                .map(|stripe| Stripe::new(stripe, settings.timeout))
                .transpose()?,
            chargebee: settings
                .chargebee
                .as_ref()
                .map(|chargebee| Chargebee::new(chargebee, settings.timeout))
                .transpose()?,
        })
    }

    /// Those that can be used.
    pub fn kinds(&self) -> Vec<Kind> {
        let stripe = self.stripe.as_ref().map(|_| Kind::Stripe);
        stripe.into_iter().chain(self.chargebee.as_ref().map(|_| Kind::Chargebee)).collect()
    }
}

/// `Basic` with a name and a password (RFC 7617).
pub fn basic_credential(name: &str, password: &str) -> reqwest::header::HeaderValue {
    credential(&format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))))
}

/// A header that does not show in logs. A key with characters that no header can have is no key of a
/// provider, and is refused by it.
fn credential(text: &str) -> reqwest::header::HeaderValue {
    let mut value = reqwest::header::HeaderValue::try_from(text)
        .unwrap_or_else(|_| reqwest::header::HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}
