//! A tenant's own invoices as pages and files.

use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Redirect, Response},
};
use serde::Deserialize;
use weir_domain::id::TenantId;

use super::{PageError, session};
use crate::{
    app::App,
    extract::{Path, Query},
    invoice::{
        Invoice,
        read::{self, Filter},
    },
    print::{self, Medium},
    problem::ApiError,
};

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    #[default]
    Html,
    Pdf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FormatQuery {
    #[serde(default)]
    format: Format,
}

/// One invoice of the tenant that is signed in, to be printed.
pub(super) async fn show(
    State(app): State<App>,
    Path(id): Path<i64>,
    headers: HeaderMap,
    Query(query): Query<FormatQuery>,
) -> Result<Response, PageError> {
    let mut db = app.db.acquire().await?;
    let Some(tenant) = session::tenant(&mut db, &headers).await? else { return Ok(sign_in()) };
    let invoice = own(&mut db, &tenant, id).await?;
    let medium = match query.format {
        Format::Html => Medium::Html,
        Format::Pdf => Medium::Pdf,
    };
    Ok(print::invoice(&mut db, &invoice, medium).await?)
}

/// An invoice of this tenant; those of others do not exist to it.
async fn own(db: &mut sqlx::PgConnection, tenant: &TenantId, id: i64) -> Result<Invoice, ApiError> {
    let filter = Filter { tenant: Some(tenant), id: Some(id), ..Filter::default() };
    let found = read::list_in(db, &filter, 1).await?.pop();
    found.ok_or_else(|| ApiError::NotFound { what: "invoice", id: id.to_string() })
}

fn sign_in() -> Response {
    Redirect::to("/portal").into_response()
}
