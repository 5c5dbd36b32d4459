//! Invoices, and the same at a provider.
//!
//! The provider's list is walked once, a page of it at a time, and each page is looked up here in one
//! statement; so ten thousand invoices take a hundred calls. What seems to differ is looked at again, one
//! by one: it may have changed between the two looks.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use futures_util::TryStreamExt;
use jiff::Timestamp;
use sqlx::PgPool;
use tokio::time::sleep;
use weir_domain::{currency::Currency, money::Money};

use super::{
    Scope,
    deliveries::{Outline, failed, outline},
    report::{Check, Difference, Section},
    verdict::{Ours, values},
};
use crate::{
    delivery::backoff,
    provider::{
        Kind, Providers, bill,
        call::{Failure, Refusal},
        listed::{Listed, Page, Status, Window},
    },
};

/// How often a call that fails for the moment is made.
const ATTEMPTS: i32 = 7;
/// How long what seems to differ may take to agree after all, such as between a call and the note of it.
const SETTLES_WITHIN: Duration = Duration::from_millis(300);

/// Compares total, currency and state of all invoices that were delivered, and looks for deliveries that have
/// failed and for invoices at the provider that carry a reference of ours and are not known here.
pub(super) async fn compare(
    db: &PgPool,
    calls: &Providers,
    provider: Kind,
    scope: &Scope,
) -> Result<Section, Failure> {
    let (check, second) = match provider {
        Kind::Chargebee => (Check::Chargebee, "Chargebee"),
        Kind::Stripe | Kind::Manual => (Check::Stripe, "Stripe"),
    };
    let Outline { delivered, on_its_way, window } = outline(db, provider, scope).await?;
    let mut section = Section {
        check,
        first: "invoices",
        second,
        compared: delivered,
        differing: 0,
        differences: Vec::new(),
        awaited: on_its_way,
        awaited_differences: Vec::new(),
    };
    add(&mut section, failed(db, provider, scope).await?, scope);
    let Some(window) = window else { return Ok(section) };
    let deployment = bill::deployment(db).await?;
    let walk = Walk { db, calls, provider, scope, window: &window, deployment };
    let suspects = walk.suspects().await?;
    if !suspects.is_empty() {
        sleep(SETTLES_WITHIN).await;
    }
    for id in suspects {
        add(&mut section, walk.look_again(&id).await?, scope);
    }
    Ok(section)
}

fn add(section: &mut Section, found: Vec<Difference>, scope: &Scope) {
    section.differing += i64::try_from(found.len()).unwrap_or(i64::MAX);
    let told = i64::try_from(section.differences.len()).unwrap_or(i64::MAX);
    let room = usize::try_from(scope.limit.saturating_sub(told)).unwrap_or(0);
    section.differences.extend(found.into_iter().take(room));
}

struct Walk<'a> {
    db: &'a PgPool,
    calls: &'a Providers,
    provider: Kind,
    scope: &'a Scope,
    window: &'a Window,
    deployment: String,
}

impl Walk<'_> {
    /// The provider's ids of all that does not agree at first sight.
    async fn suspects(&self) -> Result<BTreeSet<String>, Failure> {
        let mut suspects = BTreeSet::new();
        let mut seen = HashSet::new();
        let mut after: Option<String> = None;
        loop {
            let Page { invoices, next } = self.page(after.as_deref()).await?;
            let ours = self.ours(&invoices).await?;
            for listed in &invoices {
                let ours = ours.get(&listed.id);
                seen.extend(ours.map(|ours| ours.invoice));
                if self.disagrees(ours, listed) {
                    suspects.insert(listed.id.clone());
                }
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
        self.add_missing(&seen, &mut suspects).await?;
        Ok(suspects)
    }

    async fn page(&self, after: Option<&str>) -> Result<Page, Failure> {
        let mut attempts = 1;
        loop {
            let answer = self.calls.list(self.provider, self.window, after).await;
            if let Some(page) = settled(answer, &mut attempts).await? {
                return Ok(page);
            }
        }
    }

    async fn look_up(&self, id: &str) -> Result<Option<Listed>, Failure> {
        let mut attempts = 1;
        loop {
            let answer = self.calls.look_up(self.provider, id).await;
            if let Some(listed) = settled(answer, &mut attempts).await? {
                return Ok(listed);
            }
        }
    }

    fn disagrees(&self, ours: Option<&Ours>, listed: &Listed) -> bool {
        match ours {
            Some(ours) => !values(ours, Some(listed)).is_empty(),
            None => self.reference(listed).is_some(),
        }
    }

    /// Our reference in an invoice that asks, or asked, for money.
    fn reference<'l>(&self, listed: &'l Listed) -> Option<&'l str> {
        let asks = matches!(listed.status, Status::Open | Status::Paid);
        let reference = listed.reference.as_deref().filter(|_| asks)?;
        bill::is_of(reference, &self.deployment).then_some(reference)
    }

    /// Delivered invoices that were not in the provider's list.
    async fn add_missing(
        &self,
        seen: &HashSet<i64>,
        suspects: &mut BTreeSet<String>,
    ) -> Result<(), Failure> {
        let mut delivered = sqlx::query!(
            r#"select invoice_id, provider_invoice_id as "provider_invoice_id!"
               from delivery join invoice on invoice.id = invoice_id
               where provider = $4 and delivery.state = 'done' and provider_invoice_id is not null
                 and invoice.state <> 'void'
                 and ($1::text is null or delivery.tenant_id = $1)
                 and ($2::timestamptz is null or period_end > $2)
                 and ($3::timestamptz is null or period_start < $3)"#,
            self.scope.tenant(),
            self.scope.first() as _,
            self.scope.end() as _,
            self.provider.as_str(),
        )
        .fetch(self.db);
        while let Some(row) = delivered.try_next().await? {
            if !seen.contains(&row.invoice_id) {
                suspects.insert(row.provider_invoice_id);
            }
        }
        Ok(())
    }

    /// Compares one invoice as it is here and there at this moment.
    async fn look_again(&self, id: &str) -> Result<Vec<Difference>, Failure> {
        let listed = self.look_up(id).await?;
        let ours = match &listed {
            Some(listed) => self.ours(std::slice::from_ref(listed)).await?.remove(id),
            None => self.delivered_as(&[id]).await?.remove(id),
        };
        let (ours, values) = match (ours, &listed) {
            (Some(ours), listed) => {
                let values = values(&ours, listed.as_ref());
                (ours, values)
            }
            (None, Some(listed)) => {
                let (total, currency) = (listed.total, &listed.currency);
                let theirs = format!("{id}, {total} {currency}, {}", listed.status.as_str());
                if self.is_lost(listed).await? {
                    return Ok(self.lost(theirs).into_iter().collect());
                }
                let Some(ours) = self.referred(listed).await? else { return Ok(Vec::new()) };
                (ours, vec![("an invoice that was not delivered from here", None, Some(theirs))])
            }
            (None, None) => return Ok(Vec::new()),
        };
        if !ours.in_scope {
            return Ok(Vec::new());
        }
        Ok(values.into_iter().map(|value| ours.difference(value)).collect())
    }

    /// Those that are known here, by the provider's id.
    async fn ours(&self, listed: &[Listed]) -> Result<HashMap<String, Ours>, Failure> {
        let ids: Vec<&str> = listed.iter().map(|invoice| invoice.id.as_str()).collect();
        self.delivered_as(&ids).await
    }

    async fn delivered_as(&self, ids: &[&str]) -> Result<HashMap<String, Ours>, Failure> {
        let rows = sqlx::query!(
            r#"select provider_invoice_id as "id!", invoice.id as invoice, number, invoice.tenant_id, period_start,
                      period_end, total_minor, currency, invoice.state,
                      (select coalesce(sum(amount_minor), 0) from credit_note
                       where credit_note.invoice_id = invoice.id)::bigint as "credited_minor!",
                      delivery.state = 'done' as "is_delivered!",
                      ($1::text is null or delivery.tenant_id = $1)
                        and ($2::timestamptz is null or period_end > $2)
                        and ($3::timestamptz is null or period_start < $3) as "in_scope!"
               from delivery join invoice on invoice.id = invoice_id
               where provider = $4 and provider_invoice_id = any($5)"#,
            self.scope.tenant(),
            self.scope.first() as _,
            self.scope.end() as _,
            self.provider.as_str(),
            ids as _,
        )
        .fetch_all(self.db)
        .await?;
        rows.into_iter()
            .map(|row| {
                let ours = Ours {
                    invoice: row.invoice,
                    number: row.number,
                    tenant: row.tenant_id,
                    period: (row.period_start, row.period_end),
                    total: Money::new(row.total_minor, currency(&row.currency)?),
                    credited: Money::new(row.credited_minor, currency(&row.currency)?),
                    state: row.state,
                    is_delivered: row.is_delivered,
                    in_scope: row.in_scope,
                };
                Ok((row.id, ours))
            })
            .collect()
    }

    /// Whether it refers to an invoice that is not here any more.
    async fn is_lost(&self, listed: &Listed) -> Result<bool, Failure> {
        let Some(reference) = self.reference(listed) else { return Ok(false) };
        let known = sqlx::query_scalar!(
            r#"select exists (select from delivery where reference = $1) as "is_known!""#,
            reference,
        );
        Ok(!known.fetch_one(self.db).await?)
    }

    /// Nobody knows whose it was and of which period; so it is told only where all are compared.
    fn lost(&self, theirs: String) -> Option<Difference> {
        let Scope { tenant: None, from: None, to: None, .. } = self.scope else { return None };
        let at = |second| Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
        Some(Difference {
            tenant: None,
            invoice: None,
            number: None,
            from: at(self.window.from),
            to: at(self.window.to),
            what: "an invoice that is gone here".to_owned(),
            first: None,
            second: Some(theirs),
            difference: None,
        })
    }

    /// The invoice that another one at the provider refers to, unless its delivery has yet to find that
    /// one.
    async fn referred(&self, listed: &Listed) -> Result<Option<Ours>, Failure> {
        let Some(reference) = self.reference(listed) else { return Ok(None) };
        let row = sqlx::query!(
            r#"select invoice.id, number, invoice.tenant_id, period_start, period_end, total_minor, currency,
                      invoice.state,
                      ($1::text is null or invoice.tenant_id = $1)
                        and ($2::timestamptz is null or period_end > $2)
                        and ($3::timestamptz is null or period_start < $3) as "in_scope!"
               from delivery join invoice on invoice.id = invoice_id
               where reference = $5
                 and not (provider = $4 and delivery.state <> 'done' and provider_invoice_id is null)"#,
            self.scope.tenant(),
            self.scope.first() as _,
            self.scope.end() as _,
            self.provider.as_str(),
            reference,
        )
        .fetch_optional(self.db)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Ours {
            invoice: row.id,
            number: row.number,
            tenant: row.tenant_id,
            period: (row.period_start, row.period_end),
            total: Money::new(row.total_minor, currency(&row.currency)?),
            credited: Money::zero(currency(&row.currency)?),
            state: row.state,
            is_delivered: false,
            in_scope: row.in_scope,
        }))
    }
}

fn currency(code: &str) -> Result<Currency, Failure> {
    Currency::new(code).map_err(|error| Refusal::found(error.to_string()))
}

/// `None` after a wait where the call failed for the moment and may be made again.
async fn settled<T>(answer: Result<T, Failure>, attempts: &mut i32) -> Result<Option<T>, Failure> {
    let asked = match answer {
        Err(Failure::Later { wait, .. }) if *attempts < ATTEMPTS => wait,
        Err(Failure::Unknown(_) | Failure::Burnt(_)) if *attempts < ATTEMPTS => None,
        answer => return answer.map(Some),
    };
    sleep(backoff::wait(*attempts, asked)).await;
    *attempts += 1;
    Ok(None)
}
