//! What stands on every invoice, and when invoices are due.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::input::Lines;
use crate::{app::App, extract::JsonBody, problem::ApiError};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get, put))
}

/// What stands on every invoice. Invoices keep what was set when they were made.
#[derive(Debug, Serialize, ToSchema)]
struct InvoiceSettings {
    /// Name, address and tax number of who bills, in lines.
    seller: String,
    /// Below the lines of the invoice, such as how to pay.
    note: String,
    /// How many days after its date an invoice is due.
    payment_days: i32,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct InvoiceSettingsPut {
    #[schema(value_type = String, examples("Weir Ltd\n1 River Street\nZürich\nVAT CHE-123.456.789"))]
    seller: Lines,
    #[schema(value_type = String)]
    note: Lines,
    payment_days: PaymentDays,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(try_from = "i32")]
#[schema(minimum = 0, maximum = 3650)]
struct PaymentDays(i32);

impl TryFrom<i32> for PaymentDays {
    type Error = String;

    fn try_from(days: i32) -> Result<Self, String> {
        match days {
            0..=3_650 => Ok(Self(days)),
            _ => Err(format!("{days} is not a number of days; use 0 to 3650")),
        }
    }
}

/// What stands on every invoice.
#[utoipa::path(get, path = "/invoice-settings", tag = "invoices", responses((status = 200, body = InvoiceSettings)))]
async fn get(State(app): State<App>) -> Result<Json<InvoiceSettings>, ApiError> {
    let settings = sqlx::query_as!(
        InvoiceSettings,
        "select seller, note, payment_days from invoice_settings",
    )
    .fetch_one(&app.db)
    .await?;
    Ok(Json(settings))
}

/// Sets it, for invoices that are made from now on.
#[utoipa::path(put, path = "/invoice-settings", tag = "invoices", request_body = InvoiceSettingsPut, responses((status = 200, body = InvoiceSettings)))]
async fn put(
    State(app): State<App>,
    JsonBody(new): JsonBody<InvoiceSettingsPut>,
) -> Result<Json<InvoiceSettings>, ApiError> {
    let settings = sqlx::query_as!(
        InvoiceSettings,
        "update invoice_settings set seller = $1, note = $2, payment_days = $3
         returning seller, note, payment_days",
        new.seller.as_str(),
        new.note.as_str(),
        new.payment_days.0,
    )
    .fetch_one(&app.db)
    .await?;
    tracing::info!(?settings, "the settings of invoices were changed");
    Ok(Json(settings))
}
