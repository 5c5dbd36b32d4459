//! The order in which usage is debited, stored and answered, and what a repeat is told.

use serde_json::Value;
use weir_domain::protocol::{LeaseAnswer, TenantState};

use super::{
    seats::{Seat, Take, Taken},
    store::{self, Entry, Key, Usage},
};
use crate::{app::App, problem::ApiError};

/// What became of a wish to use something.
pub enum Outcome {
    /// It is debited and recorded; what the caller is told.
    Admitted(Value),
    /// It was meanwhile, under the same key; what the caller was told then.
    Before(Value),
    /// Nothing was debited or recorded.
    Refused(LeaseAnswer),
}

/// What the caller was told, where all was done under this key before; an error where the key stands for
/// something else.
pub async fn before(app: &App, key: &Key) -> Result<Option<Value>, ApiError> {
    let mut db = app.db.acquire().await?;
    let stored = store::find(&mut db, key).await?.filter(|stored| stored.paid);
    if stored.is_some() {
        count("repeat");
    }
    Ok(stored.map(|stored| stored.answer))
}

/// Debits `usage`, all of it or nothing, records it and says what `answer` makes of the debit.
pub async fn admit(
    app: &App,
    seat: Seat,
    usage: &Usage,
    key: Option<&Key>,
    answer: impl FnOnce(&Taken) -> Value,
) -> Result<Outcome, ApiError> {
    let taken = match seat.take(&app.leases, &usage.tenant, usage.amount).await? {
        Take::Taken(taken) => taken,
        Take::Refused(answer) => {
            count("refused");
            return Ok(Outcome::Refused(answer));
        }
    };
    if !taken.is_alive() {
        return Err(ApiError::Busy("the tokens were taken too slowly"));
    }
    let answer = answer(&taken);
    let minute = taken.now_ms.div_euclid(60_000);
    let entry = Entry { usage, minute, key, name: taken.name(), answer: &answer, paid: true };
    match (store::add(&app.db, &entry).await, key) {
        (Ok(false), Some(key)) => {
            // The same call came twice at the same time, and the other one was faster.
            taken.give_back(&app.leases).await;
            let lost = || ApiError::Busy("the same call is under way");
            before(app, key).await?.map(Outcome::Before).ok_or_else(lost)
        }
        (Ok(_), _) => {
            // The caller need not wait for it.
            let leases = app.leases.clone();
            tokio::spawn(async move { taken.spent(&leases).await });
            count("admitted");
            Ok(Outcome::Admitted(answer))
        }
        (Err(error), _) => {
            if store::is_undone(&error) {
                taken.give_back(&app.leases).await;
            }
            Err(store::too_large(error))
        }
    }
}

/// Records what was used before it was reported, and has the buckets pay for it, below zero if need be.
/// It is answered when both are done. If this is killed in between, a repeat does the rest.
pub async fn record(
    app: &App,
    mut seat: Seat,
    usage: &Usage,
    key: &Key,
    minute: i64,
    answer: Value,
) -> Result<Value, ApiError> {
    let name = seat.name();
    let entry = Entry { usage, minute, key: Some(key), name, answer: &answer, paid: false };
    // Not where it is there and not paid for.
    store::add(&app.db, &entry).await.map_err(store::too_large)?;
    // Whoever repeats this at the same time waits here.
    let mut tx = app.db.begin().await?;
    let lost = || ApiError::Busy("the report could not be stored");
    let stored = store::find(&mut tx, key).await?.ok_or_else(lost)?;
    if !stored.paid {
        seat.owe(&app.leases, &usage.tenant, usage.amount).await?;
        store::set_paid(&mut tx, key).await?;
        count("recorded");
    }
    tx.commit().await?;
    Ok(stored.answer)
}

/// Why a tenant may use nothing at all.
pub fn shut_out(state: TenantState) -> Option<&'static str> {
    match state {
        TenantState::Active => None,
        TenantState::Suspended => Some("suspended"),
        TenantState::Unknown => Some("unknown_tenant"),
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("weir_reports_total", "outcome" => outcome).increment(1);
}
