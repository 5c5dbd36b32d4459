//! Writing usage records: `COPY` in its binary format, which costs Postgres and us the least.
//!
//! <https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4>

use sqlx::PgConnection;
use weir_domain::usage::UsageRecord;

use super::{batch::Incoming, commit::model};

const STATEMENT: &str = "copy usage_record
    (gateway, worker, sequence, position, tenant_id, minute, meter, model, policy_version, tokens, requests)
    from stdin (format binary)";
const COLUMNS: i16 = 11;
/// Signature, flags, and the length of a header extension: none of the latter two.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const END: i16 = -1;
/// From 1970 to 2000, where Postgres' timestamps start.
const EPOCH_MINUTES: i64 = 10_957 * 24 * 60;
const MINUTE_US: i64 = 60_000_000;
/// A record is about this long, in bytes.
const ROW_BYTES: usize = 200;

/// Inserts the records of `batches`. A caller that stops waiting for it must close the connection.
pub(super) async fn insert(
    transaction: &mut PgConnection,
    batches: &[&Incoming],
) -> Result<(), sqlx::Error> {
    let count: usize = batches.iter().map(|batch| batch.records().len()).sum();
    if count == 0 {
        return Ok(());
    }
    let mut rows = Vec::with_capacity(count.saturating_mul(ROW_BYTES));
    rows.extend_from_slice(HEADER);
    for batch in batches {
        for (position, record) in (0_i32..).zip(batch.records()) {
            push(&mut rows, batch, position, record);
        }
    }
    rows.extend_from_slice(&END.to_be_bytes());
    let mut copy = transaction.copy_in_raw(STATEMENT).await?;
    copy.send(rows).await?;
    copy.finish().await.map(drop)
}

fn push(rows: &mut Vec<u8>, batch: &Incoming, position: i32, record: &UsageRecord) {
    let minute_us = record.minute.saturating_sub(EPOCH_MINUTES).saturating_mul(MINUTE_US);
    let policy_version = i32::try_from(record.policy_version).unwrap_or(i32::MAX);
    rows.extend_from_slice(&COLUMNS.to_be_bytes());
    field(rows, batch.gateway.as_bytes());
    field(rows, batch.worker.as_bytes());
    field(rows, &batch.sequence.to_be_bytes());
    field(rows, &position.to_be_bytes());
    field(rows, record.tenant.as_str().as_bytes());
    field(rows, &minute_us.to_be_bytes());
    field(rows, record.meter.as_str().as_bytes());
    field(rows, model(record).as_bytes());
    field(rows, &policy_version.to_be_bytes());
    field(rows, &record.tokens.get().to_be_bytes());
    field(rows, &record.requests.get().to_be_bytes());
}

/// Texts are far shorter than 2 GiB: a batch is bounded.
fn field(rows: &mut Vec<u8>, bytes: &[u8]) {
    rows.extend_from_slice(&i32::try_from(bytes.len()).unwrap_or(i32::MAX).to_be_bytes());
    rows.extend_from_slice(bytes);
}
