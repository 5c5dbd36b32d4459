//! Who sends a tenant's invoices, and as which customer.

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;
use weir_domain::id::TenantId;

use super::input::{Email, Name};
use crate::{
    problem::ApiError,
    provider::{Kind, settings::Settings},
};

/// The longest id of a customer at a provider, in characters.
const MAX_CUSTOMER: usize = 100;

/// Who sends the invoices that become final from now on.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TenantProvider {
    pub kind: Kind,
    /// The provider's id of the customer, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer: Option<String>,
    /// The customer's name at the provider; the tenant's where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

/// Who shall send the invoices. The provider is told name and email when it makes the customer, and
/// not afterwards.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantProviderInput {
    pub kind: Kind,
    /// The provider's id of a customer that exists there; without it one is made with the first
    /// invoice, and one that is known stays.
    #[schema(min_length = 1, max_length = 100)]
    customer: Option<String>,
    /// The customer's name; the tenant's where it is not given.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200)]
    name: Option<Name>,
    /// Where Stripe sends invoices to; needed there unless `customer` is given.
    #[schema(value_type = Option<String>, max_length = 254)]
    email: Option<Email>,
}

impl TenantProviderInput {
    /// What is wrong with it, by itself and with this configuration.
    pub fn check(&self, settings: &Settings) -> Result<(), ApiError> {
        let configured = match self.kind {
            Kind::Manual => true,
            Kind::Stripe => settings.stripe.is_some(),
            Kind::Chargebee => settings.chargebee.is_some(),
        };
        if !configured {
            return Err(ApiError::field(
                "provider.kind",
                format!(
                    "{} is not configured; set {} and restart the control plane",
                    self.kind.as_str(),
                    self.kind.variable()
                ),
            ));
        }
        let named = self.customer.is_some() || self.name.is_some() || self.email.is_some();
        if self.kind == Kind::Manual && named {
            return Err(ApiError::field(
                "provider.kind",
                "with manual nothing is sent, so it has no customer, name or email",
            ));
        }
        if self.kind == Kind::Stripe && self.customer.is_none() && self.email.is_none() {
            return Err(ApiError::field(
                "provider.email",
                "Stripe sends invoices by email; give the customer's address, or the id of a customer there",
            ));
        }
        let allowed = |one: char| one.is_ascii_graphic();
        if let Some(customer) = &self.customer
            && !((1..=MAX_CUSTOMER).contains(&customer.len()) && customer.chars().all(allowed))
        {
            return Err(ApiError::field(
                "provider.customer",
                format!("an id of a customer has 1 to {MAX_CUSTOMER} characters without spaces"),
            ));
        }
        Ok(())
    }

    /// Stores it. The caller holds the tenant's row.
    pub async fn store(&self, tx: &mut PgConnection, tenant: &TenantId) -> Result<(), ApiError> {
        if self.kind != Kind::Manual {
            sqlx::query!(
                "insert into provider_customer as known (tenant_id, provider, name, email, customer_id)
                 values ($1, $2, $3, $4, $5)
                 on conflict (tenant_id, provider) do update
                 set name = excluded.name, email = excluded.email,
                     customer_id = coalesce(excluded.customer_id, known.customer_id)",
                tenant.as_str(),
                self.kind.as_str(),
                self.name.as_ref().map(Name::as_str),
                self.email.as_ref().map(Email::as_str),
                self.customer,
            )
            .execute(&mut *tx)
            .await?;
        }
        sqlx::query!(
            "update tenant set provider = $2, updated_at = now() where id = $1",
            tenant.as_str(),
            self.kind.as_str(),
        )
        .execute(tx)
        .await?;
        Ok(())
    }
}
