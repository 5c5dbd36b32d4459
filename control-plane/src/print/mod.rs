//! Invoices and credit notes for people: printable HTML, PDF, and text.
//!
//! | module | subject |
//! |---|---|
//! | [`sheet`] | what stands on the page, in words |
//! | [`html`] | the page as HTML that needs nothing else |
//! | [`text`] | the page as text |
//! | [`pdf`] | the page as PDF |
//! | [`layout`] | where things stand on the pages of a PDF |
//! | [`font`] | how wide text is, and its glyphs |

mod font;
mod html;
mod layout;
mod pdf;
mod sheet;
mod text;

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use sqlx::PgConnection;

pub use sheet::Sheet;

use crate::{
    invoice::{Invoice, credit::CreditNote},
    problem::ApiError,
};

/// What a document may be printed as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    Html,
    Pdf,
}

/// The page loads nothing, runs nothing, and brings its own style.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The invoice as a page or a file.
pub async fn invoice(
    db: &mut PgConnection,
    invoice: &Invoice,
    medium: Medium,
) -> Result<Response, ApiError> {
    answer(Sheet::read(db, invoice).await?, medium).await
}

/// The invoice as text, for a terminal.
pub async fn invoice_text(db: &mut PgConnection, invoice: &Invoice) -> Result<String, ApiError> {
    Ok(text::render(&Sheet::read(db, invoice).await?))
}

/// The same of a credit note.
pub async fn credit_note(
    db: &mut PgConnection,
    note: &CreditNote,
    medium: Medium,
) -> Result<Response, ApiError> {
    answer(Sheet::of_credit_note(db, note).await?, medium).await
}

async fn answer(sheet: Sheet, medium: Medium) -> Result<Response, ApiError> {
    let name = format!("{}.pdf", sheet.file_name());
    match medium {
        Medium::Html => {
            let text = html::render(&sheet).map_err(ApiError::internal)?;
            let kind = (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            Ok(([kind, (header::CONTENT_SECURITY_POLICY, POLICY)], text).into_response())
        }
        Medium::Pdf => {
            // Fonts are cut to what is used: milliseconds of work.
            let file = tokio::task::spawn_blocking(move || pdf::render(&sheet))
                .await
                .map_err(ApiError::internal)?
                .map_err(ApiError::internal)?;
            let headers = [
                (header::CONTENT_TYPE, "application/pdf".to_owned()),
                (header::CONTENT_DISPOSITION, format!("inline; filename=\"{name}\"")),
            ];
            Ok((headers, file).into_response())
        }
    }
}
