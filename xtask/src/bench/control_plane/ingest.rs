//! Usage into Postgres through the edge API, beside a bare `COPY` of the same rows into a table like
//! that of the ledger.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::task::JoinSet;
use weir_domain::{
    id::{Meter, TenantId},
    protocol,
    quantity::Quantity,
    usage::{UsageBatch, UsageRecord},
};

use super::tenants::{self, COUNT};
use crate::{bench::stats::Spread, stack::Stack};

const ROUNDS: u64 = 5;
const GATEWAYS: u64 = 4;
/// Of each gateway; each has one batch under way.
const WORKERS: u64 = 4;
/// Of each worker in each round.
const BATCHES: u64 = 4;
/// As many as a gateway sends at most.
const RECORDS: u64 = 5_000;

/// Records per second, one of each per round.
pub(super) struct Ingest {
    weir: Vec<f64>,
    bare: Vec<f64>,
}

impl Ingest {
    pub(super) fn per_second(&self) -> Spread {
        Spread::of(&self.weir)
    }

    pub(super) fn bare_per_second(&self) -> Spread {
        Spread::of(&self.bare)
    }

    pub(super) fn ratio(&self) -> Spread {
        let ratios: Vec<f64> =
            self.weir.iter().zip(&self.bare).map(|(weir, bare)| weir / bare).collect();
        Spread::of(&ratios)
    }
}

pub(super) async fn measure(stack: &Stack) -> Result<Ingest> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build()?;
    let url = format!("{}{}", stack.control_planes[0].url(), protocol::USAGE_PATH);
    stack.database.query("create table bare (like usage_record including all)").await?;
    let mut measured = Ingest { weir: Vec::new(), bare: Vec::new() };
    for round in 0..=ROUNDS {
        let minute = stack.database.query("select extract(epoch from now())::bigint / 60").await?;
        let bodies = bodies(round, minute.trim().parse()?)?;
        let began = Instant::now();
        let mut workers = JoinSet::new();
        for batches in bodies {
            workers.spawn(post_all(
                client.clone(),
                url.clone(),
                stack.gateway_token.clone(),
                batches,
            ));
        }
        while let Some(done) = workers.join_next().await {
            done??;
        }
        let weir = began.elapsed().as_secs_f64();
        let records = (GATEWAYS * WORKERS * BATCHES * RECORDS) as f64;
        let bare = copy(stack, round).await?;
        // The first round only fills caches.
        if round > 0 {
            measured.weir.push(records / weir);
            measured.bare.push(records / bare);
        }
    }
    Ok(measured)
}

/// What each worker sends in a round, in its order. All workers of a gateway see the same tenants, since
/// Envoy spreads connections over them; gateways see different ones.
fn bodies(round: u64, minute: i64) -> Result<Vec<Vec<Vec<u8>>>> {
    (0..GATEWAYS * WORKERS)
        .map(|worker| (0..BATCHES).map(|place| body(round, worker, place, minute)).collect())
        .collect()
}

fn body(round: u64, worker: u64, place: u64, minute: i64) -> Result<Vec<u8>> {
    let gateway = worker / WORKERS;
    let first = (gateway * BATCHES + place) * RECORDS;
    let records = (0..RECORDS).map(|number| {
        // A prime stride: neighbours in a batch are no neighbours in the table.
        let tenant = (first + number) * 7_919 % COUNT;
        Ok(UsageRecord {
            tenant: TenantId::new(tenants::id(tenant))?,
            minute,
            meter: Meter::default(),
            model: String::new(),
            policy_version: 0,
            tokens: Quantity::clamped(100 + number),
            requests: Quantity::clamped(1 + number % 5),
        })
    });
    let batch = UsageBatch {
        version: protocol::VERSION,
        gateway: format!("gateway-{gateway}"),
        worker: format!("{worker:032x}"),
        sequence: round * BATCHES + place + 1,
        records: records.collect::<Result<_>>()?,
    };
    Ok(serde_json::to_vec(&batch)?)
}

async fn post_all(
    client: reqwest::Client,
    url: String,
    token: String,
    batches: Vec<Vec<u8>>,
) -> Result<()> {
    for body in batches {
        let request =
            client.post(&url).bearer_auth(&token).header("content-type", "application/json");
        let answer = request.body(body).send().await?;
        let status = answer.status();
        ensure!(status.is_success(), "{url} answered {status}: {}", answer.text().await?);
    }
    Ok(())
}

/// Copies the round's rows; how long that took, in seconds.
async fn copy(stack: &Stack, round: u64) -> Result<f64> {
    // The server reads and writes the file itself: no client slows it down.
    let file = "bench-usage.copy";
    let (first, last) = (round * BATCHES + 1, (round + 1) * BATCHES);
    let rows = format!("select * from usage_record where sequence between {first} and {last}");
    stack.database.query(&format!("copy ({rows}) to program 'cat > {file}'")).await?;
    let began = Instant::now();
    stack.database.query(&format!("copy bare from program 'cat {file}'")).await?;
    Ok(began.elapsed().as_secs_f64())
}
