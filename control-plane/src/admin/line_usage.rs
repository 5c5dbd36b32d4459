//! The usage that a line of an invoice has billed, by quarter hour: as JSON in pages, or as CSV.

use std::{fmt, str::FromStr};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_domain::limit::Unit;

use super::{
    negotiation,
    page::{Cursor, Page, PageLimit, PageQuery},
};
use crate::{
    app::App,
    extract::{Path, Query},
    invoice::line_usage::{self, LineUsage, QuarterUsage},
    problem::ApiError,
};

/// How many rows of CSV are read at once.
const CHUNK: i64 = 5_000;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get))
}

/// A line of an invoice, by the invoice's id and from 1.
#[derive(Debug, Deserialize)]
struct Place {
    invoice: i64,
    line: i32,
}

/// The usage that a line of an invoice has billed.
#[derive(Debug, Serialize, ToSchema)]
struct BilledUsage {
    /// The id of the invoice.
    invoice: i64,
    /// From 1.
    line: i32,
    /// What the line counts: the sum of that is its quantity. Null for an adjustment, which may be of both.
    unit: Option<Unit>,
    /// The sums of all pages. What an adjustment takes away is negative.
    tokens: i64,
    requests: i64,
    /// In the order of quarter hour, meter and model.
    items: Vec<Row>,
    /// To be sent as `after` for the next page; null on the last one.
    #[schema(required)]
    next: Option<String>,
}

/// What was billed of a quarter hour, meter and model.
#[derive(Debug, Serialize, ToSchema)]
struct Row {
    /// Its first instant.
    quarter: Timestamp,
    meter: String,
    /// Empty where no model is known.
    model: String,
    tokens: i64,
    requests: i64,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    Json,
    /// All rows, with a head.
    Csv,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct UsageQuery {
    /// By the header `Accept` where it is not given.
    #[param(value_type = Option<Format>, inline)]
    format: Option<Format>,
    /// The most items in an answer in JSON.
    #[serde(default)]
    #[param(value_type = Option<u16>, minimum = 1, maximum = 500, default = 50)]
    limit: PageLimit,
    /// The `next` of the page before; the first page without it. Not for CSV, which has no pages.
    #[param(value_type = Option<String>)]
    after: Option<Cursor>,
}

/// The usage that a line has billed, by quarter hour, meter and model. Its sums are the line's quantity, also
/// where usage has arrived since: that is with the adjustment line that bills it.
#[utoipa::path(
    get, path = "/invoices/{invoice}/lines/{line}/usage", tag = "invoices",
    params(("invoice" = i64, Path), ("line" = i32, Path, description = "From 1."), UsageQuery),
    responses(
        (status = 200, content((BilledUsage = "application/json"), (String = "text/csv"))),
        (status = 409, body = crate::problem::Problem, content_type = "application/problem+json", description = "The line bills no usage, or another invoice bills it again."),
    ),
)]
async fn get(
    State(app): State<App>,
    Path(Place { invoice, line }): Path<Place>,
    headers: HeaderMap,
    Query(query): Query<UsageQuery>,
) -> Result<Response, ApiError> {
    let UsageQuery { format, limit, after } = query;
    let known = [("application/json", Format::Json), ("text/csv", Format::Csv)];
    let format = negotiation::format(format, &headers, &known, Format::Json);
    let page = PageQuery { limit, after };
    let after: Option<Key> = page.after()?;
    if matches!(format, Format::Csv) && after.is_some() {
        return Err(ApiError::field("after", "CSV has no pages; leave it out"));
    }
    let mut usage = LineUsage::of(&app.db, invoice, line).await?;
    if let Format::Csv = format {
        let name = format!("invoice-{invoice}-line-{line}-usage.csv");
        let headers = [
            (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
            (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
        ];
        return Ok((headers, csv(usage)).into_response());
    }
    let rows = usage.page(after.as_ref().map(|key| &key.0), page.fetch()).await?;
    let Page { items, next } = Page::new(rows, &page, |row| Key(key(row)));
    let items = items.into_iter().map(Row::of).collect();
    let LineUsage { unit, tokens, requests, .. } = usage;
    let billed = BilledUsage { invoice, line, unit, tokens, requests, items, next };
    Ok(Json(billed).into_response())
}

impl Row {
    fn of(usage: QuarterUsage) -> Self {
        let QuarterUsage { quarter, meter, model, tokens, requests } = usage;
        Self { quarter, meter, model, tokens, requests }
    }
}

/// All usage of a line, read while it is sent. Where Postgres fails meanwhile, the answer is cut off.
fn csv(usage: LineUsage) -> Body {
    let chunks = stream::try_unfold(Some((usage, None)), async |state| {
        let Some((mut usage, after)) = state else { return Ok(None) };
        let rows = usage.page(after.as_ref(), CHUNK).await?;
        let is_last = (rows.len() as i64) < CHUNK;
        let last = rows.last().map(key);
        let text = text(rows, after.is_none()).map_err(ApiError::internal)?;
        Ok::<_, ApiError>(Some((text, (!is_last).then_some((usage, last)))))
    });
    Body::from_stream(chunks)
}

fn text(rows: Vec<QuarterUsage>, has_head: bool) -> Result<Bytes, csv::Error> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    if has_head {
        writer.write_record(["quarter", "meter", "model", "tokens", "requests"])?;
    }
    for row in rows {
        writer.serialize(Row::of(row))?;
    }
    Ok(writer.into_inner().map_err(|error| error.into_error())?.into())
}

fn key(row: &QuarterUsage) -> line_usage::Key {
    (row.quarter, row.meter.clone(), row.model.clone())
}

/// By what the list is ordered, as text. No part of it has line breaks.
struct Key(line_usage::Key);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (quarter, meter, model) = &self.0;
        write!(f, "{quarter}\n{meter}\n{model}")
    }
}

impl FromStr for Key {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '\n').map(str::to_owned);
        let mut part = || parts.next().filter(|part| !part.contains('\0')).ok_or(());
        Ok(Self((part()?.parse().map_err(|_| ())?, part()?, part()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_commas_and_quotes_stay_one_field() {
        let row = QuarterUsage {
            quarter: "2026-01-31T10:15:00Z".parse().unwrap(),
            meter: "default".to_owned(),
            model: "a,\"b\"".to_owned(),
            tokens: -5,
            requests: 1,
        };
        let expected = "quarter,meter,model,tokens,requests\n2026-01-31T10:15:00Z,default,\"a,\"\"b\"\"\",-5,1\n";
        assert_eq!(text(vec![row], true).unwrap(), expected);
    }

    #[test]
    fn a_key_survives_its_text() {
        let text = "2026-01-01T00:00:00Z\ndefault\n";
        assert_eq!(text.parse::<Key>().map(|key| key.to_string()), Ok(text.to_owned()));
        assert!("2026-01-01T00:00:00Z\nacme".parse::<Key>().is_err());
    }
}
