//! The templates, and what they are filled with.

use askama::Template;
use axum::{
    http::StatusCode,
    response::{Html, IntoResponse, Response},
};
use jiff::{SignedDuration, Timestamp, ToSpan, civil::Date, tz::TimeZone};
use rust_decimal::Decimal;

use super::{
    account::{Account, Bucket, MAX_PAST},
    format::{date_of, grouped, instant_in, last_day, waiting},
    words::{details, state, until},
};
use crate::{
    admin::{buckets, tenants::AccountState},
    credit_balance::CreditLeft,
    invoice::{Invoice, view::Line},
    ledger::DayTotal,
    problem::ApiError,
};

#[derive(Template)]
#[template(path = "portal/sign_in.html")]
pub(super) struct SignIn {
    /// What was wrong with the last attempt.
    pub(super) message: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "portal/failure.html")]
pub(super) struct Failure {
    pub(super) status: u16,
    pub(super) detail: String,
}

/// What a tenant sees of itself.
#[derive(Template)]
#[template(path = "portal/account.html")]
pub(super) struct Page {
    id: String,
    name: String,
    plan: String,
    suspended: bool,
    closed: bool,
    zone: String,
    as_of: String,
    period_start: String,
    period_end: String,
    requests: Number,
    tokens: Number,
    /// `None` while it is not known.
    limits: Option<Vec<LimitView>>,
    days: Vec<DayView>,
    chart: Chart,
    upcoming: InvoiceView,
    /// Of the period before.
    in_grace: Option<InvoiceView>,
    credits: Vec<CreditView>,
    invoices: Vec<InvoiceView>,
    more_invoices: bool,
}

/// A number as it is, and as people read it.
struct Number {
    value: String,
    text: String,
}

struct LimitView {
    name: String,
    unit: &'static str,
    remaining: Number,
    capacity: Number,
    percent: i128,
    /// A class of the stylesheet.
    level: &'static str,
    refill: String,
    /// May be empty, as the next.
    adjusted: String,
    reset: String,
}

struct DayView {
    date: Date,
    text: String,
    requests: Number,
    tokens: Number,
}

/// Columns for all days of the period, in a box of `width` × 100.
struct Chart {
    width: usize,
    columns: Vec<Column>,
    first: String,
    last: String,
    most: String,
}

struct Column {
    x: usize,
    y: i128,
    height: i128,
}

struct InvoiceView {
    /// `None` for the upcoming one.
    id: Option<i64>,
    number: String,
    state: &'static str,
    period: String,
    currency: String,
    lines: Vec<LineView>,
    total: Number,
    /// When it is final, or until when it is to be paid; may be empty.
    until: String,
    /// Empty where nothing was.
    credited: String,
}

/// A credit of which something is left.
struct CreditView {
    name: String,
    left: Number,
    currency: String,
    /// May be empty.
    expires: String,
}

struct LineView {
    name: String,
    /// May be empty.
    details: String,
    quantity: String,
    unit_price: String,
    amount: Number,
}

/// Renders a page.
pub(super) fn html(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => ApiError::internal(error).into_response(),
    }
}

impl Page {
    pub(super) fn of(account: Account) -> Self {
        let zone = &account.zone;
        let time = |instant| instant_in(zone, instant);
        let (from, to) = (account.upcoming.period_start, account.upcoming.period_end);
        let shown = usize::try_from(MAX_PAST).unwrap_or_default();
        let more_invoices = account.past.len() > shown;
        let past = account.past.iter().take(shown);
        let limits = account.buckets.map(|buckets| {
            buckets.into_iter().map(|bucket| LimitView::of(bucket, account.now, zone)).collect()
        });
        Self {
            limits,
            as_of: time(account.now),
            period_start: time(from),
            period_end: time(to),
            requests: Number::of(account.totals.requests.into()),
            tokens: Number::of(account.totals.tokens.into()),
            chart: Chart::of(&account.days, date_of(zone, from), last_day(zone, to)),
            // The latest first.
            days: account.days.iter().rev().map(DayView::of).collect(),
            upcoming: InvoiceView::of(&account.upcoming, zone),
            in_grace: account.in_grace.as_ref().map(|invoice| InvoiceView::of(invoice, zone)),
            credits: account.credits.iter().map(|credit| CreditView::of(credit, zone)).collect(),
            invoices: past.map(|past| InvoiceView::of(past, zone)).collect(),
            more_invoices,
            id: account.id.to_string(),
            name: account.name,
            plan: account.plan,
            suspended: account.state == AccountState::Suspended,
            closed: account.state == AccountState::Closed,
            zone: account.zone_name,
        }
    }
}

impl Number {
    fn of(value: i128) -> Self {
        Self { value: value.to_string(), text: grouped(&value.to_string()) }
    }

    fn money(amount: Decimal) -> Self {
        Self { value: amount.to_string(), text: grouped(&amount.to_string()) }
    }
}

impl LimitView {
    fn of(limit: Bucket, now: Timestamp, zone: &TimeZone) -> Self {
        let Bucket { bucket, refill } = limit;
        let remaining = i128::from(bucket.remaining);
        // What the period has in all. (Adjustments of continuous limits are not kept.)
        let capacity = (i128::from(bucket.capacity) + i128::from(bucket.adjustment)).max(0);
        let percent = (remaining * 100 / capacity.max(1)).clamp(0, 100);
        let level = match percent {
            _ if remaining <= 0 => "empty",
            0..10 => "low",
            _ => "",
        };
        let adjusted = match bucket.adjustment {
            0 => String::new(),
            cut @ ..0 => {
                format!("Cut by {} in this period", grouped(&cut.unsigned_abs().to_string()))
            }
            more => format!("Topped up by {} in this period", grouped(&more.to_string())),
        };
        Self {
            percent,
            level,
            refill,
            adjusted,
            reset: reset(&bucket, now, zone),
            remaining: Number::of(remaining),
            capacity: Number::of(capacity),
            unit: bucket.unit.as_str(),
            name: bucket.limit,
        }
    }
}

/// When the bucket is full again; nothing where it is.
fn reset(bucket: &buckets::Bucket, now: Timestamp, zone: &TimeZone) -> String {
    let seconds = i64::try_from(bucket.reset_s).unwrap_or(i64::MAX);
    // A slow limit that is far from full may be full after the calendar's end.
    let full = || now.checked_add(SignedDuration::from_secs(seconds)).ok();
    let at = bucket.period_end.or_else(full);
    let word = if bucket.period_end.is_some() { "Next" } else { "Full" };
    match at {
        Some(at) if seconds > 0 => {
            format!("{word} in {}: {}", waiting(seconds), instant_in(zone, at))
        }
        _ => String::new(),
    }
}

impl DayView {
    fn of(day: &DayTotal) -> Self {
        Self {
            date: day.day,
            text: day.day.strftime("%a %-d %b %Y").to_string(),
            requests: Number::of(day.requests.into()),
            tokens: Number::of(day.tokens.into()),
        }
    }
}

impl Chart {
    fn of(days: &[DayTotal], first: Date, last: Date) -> Self {
        let most = days.iter().map(|day| day.tokens).max().unwrap_or(0);
        let heights = first.series(1.day()).take_while(|day| *day <= last).take(400).map(|day| {
            let tokens = days.iter().find(|total| total.day == day).map_or(0, |total| total.tokens);
            let height = i128::from(tokens) * 100 / i128::from(most.max(1));
            // Little is more than nothing.
            if tokens > 0 { height.max(2) } else { 0 }
        });
        let columns: Vec<_> = heights
            .enumerate()
            .map(|(index, height)| Column { x: index * 10 + 1, y: 100 - height, height })
            .collect();
        let label = |day: Date| day.strftime("%-d %b").to_string();
        Self {
            width: columns.len() * 10,
            columns,
            first: label(first),
            last: label(last),
            most: grouped(&most.to_string()),
        }
    }
}

impl InvoiceView {
    fn of(invoice: &Invoice, zone: &TimeZone) -> Self {
        let (from, to) = (invoice.period_start, invoice.period_end);
        let number = invoice.number.as_deref();
        Self {
            id: invoice.id,
            number: number.unwrap_or("Number to come").to_owned(),
            state: state(invoice.state),
            period: format!("{} to {}", instant_in(zone, from), instant_in(zone, to)),
            currency: invoice.currency.to_string(),
            lines: invoice.lines.iter().map(LineView::of).collect(),
            total: Number::money(invoice.total),
            until: until(invoice, zone),
            credited: if invoice.credited.is_zero() {
                String::new()
            } else {
                grouped(&invoice.credited.to_string())
            },
        }
    }
}

impl CreditView {
    fn of(credit: &CreditLeft, zone: &TimeZone) -> Self {
        Self {
            name: credit.description.clone(),
            left: Number::money(credit.left.decimal()),
            currency: credit.left.currency().to_string(),
            expires: credit.expires_at.map(|at| instant_in(zone, at)).unwrap_or_default(),
        }
    }
}

impl LineView {
    fn of(line: &Line) -> Self {
        let none = || "–".to_owned();
        let quantity = line.quantity.zip(line.unit).map_or_else(none, |(quantity, unit)| {
            format!("{} {}", grouped(&quantity.to_string()), unit.as_str())
        });
        Self {
            name: line.name.clone(),
            details: details(line),
            quantity,
            unit_price: line.unit_price.map_or_else(none, |price| price.to_string()),
            amount: Number::money(line.amount),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weir_domain::limit::Unit;

    use super::*;

    #[test]
    fn what_comes_from_outside_is_escaped() {
        let page = Failure { status: 400, detail: "<script>".to_owned() };
        assert!(!page.render().unwrap().contains("<script>"));
    }

    #[test]
    fn a_limit_may_be_full_after_the_end_of_the_calendar() {
        let full_in = |reset_s| {
            let bucket = buckets::Bucket {
                limit: "rate".to_owned(),
                unit: Unit::Tokens,
                kind: "continuous",
                capacity: 100,
                remaining: 0,
                owed: 0,
                held: BTreeMap::new(),
                adjustment: 0,
                claimed: None,
                period_start: None,
                period_end: None,
                reset_s,
            };
            reset(&bucket, Timestamp::UNIX_EPOCH, &TimeZone::UTC)
        };
        assert_eq!(full_in(60), "Full in 1 min: 1 Jan 1970, 00:01");
        for reset_s in [631_107_417_601, u64::MAX] {
            assert_eq!(full_in(reset_s), "");
        }
    }
}
