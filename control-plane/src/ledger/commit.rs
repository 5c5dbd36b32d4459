//! One transaction that stores many batches: dedup state, records, rollup and quarantine together.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sqlx::{Connection, PgConnection};
use weir_domain::usage::UsageRecord;

use super::{batch::Incoming, records};

/// The longest model name that is recorded as it came, in characters.
const MAX_MODEL_LEN: usize = 128;

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Stored,
    /// It had been stored before; nothing changed.
    Repeat,
    /// It can never be stored: kept for people to look at, for this reason.
    Quarantined(String),
    /// Earlier batches of its worker are missing; nothing changed.
    Gap {
        expected: i64,
    },
}

/// Worker rows that this transaction has locked, and the database's clock.
struct Locked<'a> {
    last_sequences: BTreeMap<(&'a str, &'a str), i64>,
    now_minute: i64,
}

/// Stores `batches`, all or none, and says what became of each, in the same order.
///
/// Other transactions that touch the same rows, here or in other replicas, wait for this one. They
/// can't deadlock: each locks worker rows first and rollup rows after, both in the order of their keys.
///
/// A caller that stops waiting for it must close the connection.
pub async fn commit(
    db: &mut PgConnection,
    batches: &[&Incoming],
) -> Result<Vec<Outcome>, sqlx::Error> {
    let mut transaction = db.begin().await?;
    let mut locked = lock_workers(&mut transaction, batches).await?;
    let tenants = known_tenants(&mut transaction, batches).await?;

    let mut outcomes = vec![Outcome::Repeat; batches.len()];
    let mut in_order: Vec<_> = batches.iter().copied().zip(outcomes.iter_mut()).collect();
    in_order.sort_by_key(|(batch, _)| (batch.worker_key(), batch.sequence));
    let mut stored = Vec::new();
    let mut quarantined = Vec::new();
    for (batch, outcome) in in_order {
        let last = locked.last_sequences.entry(batch.worker_key()).or_default();
        *outcome = decide(batch, *last, &tenants, locked.now_minute);
        match outcome {
            Outcome::Stored => stored.push(batch),
            Outcome::Quarantined(reason) => quarantined.push((batch, reason.clone())),
            Outcome::Repeat | Outcome::Gap { .. } => continue,
        }
        *last = batch.sequence;
    }

    records::insert(&mut transaction, &stored).await?;
    add_to_rollup(&mut transaction, &stored).await?;
    quarantine(&mut transaction, &quarantined).await?;
    advance_workers(&mut transaction, &locked.last_sequences).await?;
    transaction.commit().await?;
    Ok(outcomes)
}

fn decide(batch: &Incoming, last: i64, tenants: &HashSet<String>, now_minute: i64) -> Outcome {
    if batch.sequence <= last {
        return Outcome::Repeat;
    }
    if batch.sequence != last + 1 {
        return Outcome::Gap { expected: last + 1 };
    }
    match batch.poison(tenants, now_minute) {
        Some(reason) => Outcome::Quarantined(reason),
        None => Outcome::Stored,
    }
}

async fn lock_workers<'a>(
    transaction: &mut PgConnection,
    batches: &[&'a Incoming],
) -> Result<Locked<'a>, sqlx::Error> {
    let keys: BTreeSet<_> = batches.iter().map(|batch| batch.worker_key()).collect();
    let (gateways, workers): (Vec<_>, Vec<_>) =
        keys.iter().map(|(gateway, worker)| ((*gateway).to_owned(), (*worker).to_owned())).unzip();
    // A new worker gets its row at once, so that there is a row to lock.
    let rows = sqlx::query!(
        r#"insert into usage_worker (gateway, worker, last_sequence)
           select gateway, worker, 0 from unnest($1::text[], $2::text[]) as given (gateway, worker)
           on conflict (gateway, worker) do update set seen_at = now()
           returning gateway, worker, last_sequence,
                     extract(epoch from now())::bigint / 60 as "now_minute!""#,
        &gateways,
        &workers,
    )
    .fetch_all(transaction)
    .await?;
    let now_minute = rows.first().map_or(0, |row| row.now_minute);
    let found: HashMap<_, _> =
        rows.into_iter().map(|row| ((row.gateway, row.worker), row.last_sequence)).collect();
    let last_sequences = keys
        .into_iter()
        .zip(gateways.into_iter().zip(workers))
        .map(|(key, owned)| (key, found.get(&owned).copied().unwrap_or_default()))
        .collect();
    Ok(Locked { last_sequences, now_minute })
}

async fn known_tenants(
    transaction: &mut PgConnection,
    batches: &[&Incoming],
) -> Result<HashSet<String>, sqlx::Error> {
    let named: BTreeSet<&str> = records(batches).map(|record| record.tenant.as_str()).collect();
    let named: Vec<&str> = named.into_iter().collect();
    let known = sqlx::query_scalar!("select id from tenant where id = any($1)", &named as _)
        .fetch_all(transaction)
        .await?;
    Ok(known.into_iter().collect())
}

async fn add_to_rollup(
    transaction: &mut PgConnection,
    batches: &[&Incoming],
) -> Result<(), sqlx::Error> {
    // In the order of the keys: that is the order in which rows get locked.
    let mut sums = BTreeMap::<_, (i64, i64)>::new();
    for record in records(batches) {
        let quarter = record.minute.div_euclid(15);
        let key = (record.tenant.as_str(), quarter, record.meter.as_str(), model(record));
        let sum = sums.entry(key).or_default();
        // A batch adds at most 2^53, and a transaction has far fewer than 2^10 batches.
        sum.0 = sum.0.saturating_add_unsigned(record.tokens.get());
        sum.1 = sum.1.saturating_add_unsigned(record.requests.get());
    }
    if sums.is_empty() {
        return Ok(());
    }
    let tenants: Vec<&str> = sums.keys().map(|key| key.0).collect();
    let quarters: Vec<i64> = sums.keys().map(|key| key.1).collect();
    let meters: Vec<&str> = sums.keys().map(|key| key.2).collect();
    let models: Vec<&str> = sums.keys().map(|key| key.3).collect();
    let tokens: Vec<i64> = sums.values().map(|sum| sum.0).collect();
    let requests: Vec<i64> = sums.values().map(|sum| sum.1).collect();
    sqlx::query!(
        "insert into usage_rollup (tenant_id, quarter, meter, model, tokens, requests)
         select tenant_id, to_timestamp(quarter * 900), meter, model, tokens, requests
         from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::bigint[])
              as given (tenant_id, quarter, meter, model, tokens, requests)
         on conflict (tenant_id, quarter, meter, model) do update
         set tokens = usage_rollup.tokens + excluded.tokens,
             requests = usage_rollup.requests + excluded.requests",
        &tenants as _,
        &quarters,
        &meters as _,
        &models as _,
        &tokens,
        &requests,
    )
    .execute(transaction)
    .await?;
    Ok(())
}

async fn quarantine(
    transaction: &mut PgConnection,
    batches: &[(&Incoming, String)],
) -> Result<(), sqlx::Error> {
    for (batch, reason) in batches {
        // Postgres takes neither broken UTF-8 nor NUL, and a quarantine must take everything.
        let storable = |text: &str| text.replace('\0', "\u{fffd}");
        sqlx::query!(
            "insert into usage_quarantine (gateway, worker, sequence, body, reason)
             values ($1, $2, $3, $4, $5) on conflict do nothing",
            batch.gateway,
            batch.worker,
            batch.sequence,
            storable(&String::from_utf8_lossy(&batch.body)),
            storable(reason),
        )
        .execute(&mut *transaction)
        .await?;
    }
    Ok(())
}

async fn advance_workers(
    transaction: &mut PgConnection,
    last_sequences: &BTreeMap<(&str, &str), i64>,
) -> Result<(), sqlx::Error> {
    let column =
        |of: fn(&(&str, &str)) -> String| last_sequences.keys().map(of).collect::<Vec<_>>();
    let gateways = column(|key| key.0.to_owned());
    let workers = column(|key| key.1.to_owned());
    let sequences: Vec<i64> = last_sequences.values().copied().collect();
    sqlx::query!(
        "update usage_worker set last_sequence = given.sequence
         from unnest($1::text[], $2::text[], $3::bigint[]) as given (gateway, worker, sequence)
         where usage_worker.gateway = given.gateway and usage_worker.worker = given.worker
           and last_sequence <> given.sequence",
        &gateways,
        &workers,
        &sequences,
    )
    .execute(&mut *transaction)
    .await?;
    // A new worker whose first batch is missing was refused, and leaves no row.
    if sequences.contains(&0) {
        sqlx::query!(
            "delete from usage_worker where last_sequence = 0 and (gateway, worker) in
                 (select gateway, worker from unnest($1::text[], $2::text[]) as given (gateway, worker))",
            &gateways,
            &workers,
        )
        .execute(transaction)
        .await?;
    }
    Ok(())
}

fn records<'a>(batches: &[&'a Incoming]) -> impl Iterator<Item = &'a UsageRecord> {
    batches.iter().flat_map(|batch| batch.records())
}

/// A model that can't be stored as a name counts as `other`: what was admitted is still billed.
pub(super) fn model(record: &UsageRecord) -> &str {
    let model = record.model.as_str();
    let is_name = model.chars().count() <= MAX_MODEL_LEN && !model.chars().any(char::is_control);
    if is_name { model } else { "other" }
}
