//! Load that goes on until it is stopped, and what its clients saw.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tokio::task::JoinSet;

use super::span::{self, Admission};
use crate::harness::Fleet;

/// One request, as its client saw it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// The place of its gateway in the stack.
    pub(crate) gateway: usize,
    pub(crate) sent: Instant,
    pub(crate) answered: Instant,
    /// 0 when there was no answer.
    pub(crate) status: u16,
}

/// Clients that ask again when they are answered, until they are told to stop.
pub(crate) struct Traffic {
    seen: Arc<Mutex<Vec<Seen>>>,
    stopped: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Traffic {
    /// So many clients of `tenant` at each gateway; each waits for `pause` after an answer.
    pub(crate) fn start(
        fleet: &Fleet,
        tenant: &str,
        clients: &[usize],
        pause: Duration,
    ) -> Result<Self> {
        let mut traffic =
            Self { seen: Arc::default(), stopped: Arc::default(), clients: JoinSet::new() };
        for (gateway, clients) in clients.iter().enumerate() {
            let url = fleet.stack.gateways[gateway].url();
            for _ in 0..*clients {
                // Each has connections of its own, so that they spread over the workers.
                let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?;
                let request = client.get(&url).header("x-tenant-id", tenant).build()?;
                let (seen, stopped) = (Arc::clone(&traffic.seen), Arc::clone(&traffic.stopped));
                traffic.clients.spawn(async move {
                    while !stopped.load(Ordering::Relaxed) {
                        let answer = ask(&client, &request, gateway).await;
                        lock(&seen).push(answer);
                        tokio::time::sleep(pause).await;
                    }
                });
            }
        }
        Ok(traffic)
    }

    /// How many were answered like this so far.
    pub(crate) fn count(&self, status: u16) -> usize {
        lock(&self.seen).iter().filter(|seen| seen.status == status).count()
    }

    /// What was answered last at a gateway: its status, and how long ago it was sent and answered.
    pub(super) fn last_at(&self, gateway: usize) -> Option<(u16, Duration, Duration)> {
        let seen = lock(&self.seen);
        let last = seen.iter().rfind(|seen| seen.gateway == gateway)?;
        Some((last.status, last.sent.elapsed(), last.answered.elapsed()))
    }

    /// How many of those that were sent to a gateway since then were answered like this.
    pub(super) fn count_since(&self, gateway: usize, status: u16, since: Instant) -> usize {
        let is_one =
            |seen: &&Seen| seen.gateway == gateway && seen.status == status && seen.sent >= since;
        lock(&self.seen).iter().filter(is_one).count()
    }

    /// Whether each gateway has admitted one that was sent since then.
    pub(crate) fn is_served_since(&self, since: Instant, gateways: usize) -> bool {
        let seen = lock(&self.seen);
        (0..gateways).all(|gateway| {
            seen.iter()
                .any(|seen| seen.gateway == gateway && seen.status == 200 && seen.sent >= since)
        })
    }

    /// When each gateway has last begun to answer like this and nothing else, of what was sent since
    /// then; none until each has.
    pub(crate) fn all_answer_since(
        &self,
        since: Instant,
        status: u16,
        gateways: usize,
    ) -> Option<Instant> {
        let seen = lock(&self.seen);
        let first_of_last = |gateway: usize| {
            let answers = seen.iter().rev().filter(|seen| seen.gateway == gateway);
            let answers = answers.take_while(|seen| seen.status == status && seen.sent >= since);
            answers.last().map(|seen| seen.answered)
        };
        (0..gateways).map(first_of_last).try_fold(since, |latest, at| Some(latest.max(at?)))
    }

    /// Waits for the answers under way.
    pub(crate) async fn stop(mut self) -> Result<Trace> {
        self.stopped.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended?;
        }
        let mut seen = std::mem::take(&mut *lock(&self.seen));
        seen.sort_by_key(|seen| seen.answered);
        Ok(Trace(seen))
    }
}

fn lock(seen: &Mutex<Vec<Seen>>) -> MutexGuard<'_, Vec<Seen>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn ask(client: &reqwest::Client, request: &reqwest::Request, gateway: usize) -> Seen {
    let sent = Instant::now();
    let status = async {
        let answer = client.execute(request.try_clone()?).await.ok()?;
        let status = answer.status().as_u16();
        // Read to the end, so that the connection is used again.
        answer.bytes().await.ok().map(|_| status)
    };
    let status = status.await.unwrap_or(0);
    Seen { gateway, sent, answered: Instant::now(), status }
}

/// What clients saw, in the order of the answers.
pub(crate) struct Trace(pub(crate) Vec<Seen>);

impl Trace {
    /// What clients saw of several loads, as of one.
    pub(crate) fn merged(traces: Vec<Self>) -> Self {
        let mut seen: Vec<_> = traces.into_iter().flat_map(|trace| trace.0).collect();
        seen.sort_by_key(|seen| seen.answered);
        Self(seen)
    }

    pub(crate) fn of(&self, status: u16) -> impl Iterator<Item = &Seen> {
        self.0.iter().filter(move |seen| seen.status == status)
    }

    pub(crate) fn admitted(&self) -> u64 {
        u64::try_from(self.of(200).count()).unwrap_or(u64::MAX)
    }

    /// Every request was admitted or refused for want of tokens.
    pub(crate) fn only_admits_and_limits(&self) -> Result<()> {
        let other = self.0.iter().find(|seen| ![200, 429].contains(&seen.status));
        ensure!(other.is_none(), "{other:?}");
        Ok(())
    }

    /// Whatever span is looked at, it holds what the capacity and the rate allow at most: all that
    /// was asked for after its beginning and answered before its end was admitted in it.
    pub(crate) fn keeps_the_law(&self, capacity: u64, per_second: u64) -> Result<()> {
        self.keeps_the_law_at(capacity, per_second, |_| 1)
    }

    /// The same, with the tokens that a request takes.
    pub(crate) fn keeps_the_law_at(
        &self,
        capacity: u64,
        per_second: u64,
        tokens: impl Fn(&Seen) -> u64,
    ) -> Result<()> {
        let Some(epoch) = self.0.iter().map(|seen| seen.sent).min() else { return Ok(()) };
        let ms = |at: Instant| u64::try_from((at - epoch).as_millis());
        let admission = |seen: &Seen| {
            Ok(Admission {
                sent_ms: ms(seen.sent)?,
                answered_ms: ms(seen.answered)? + 1,
                tokens: tokens(seen),
            })
        };
        span::check(self.of(200).map(admission).collect::<Result<_>>()?, capacity, per_second)
    }
}
