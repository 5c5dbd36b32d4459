//! A small closed-loop HTTP load: each client sends its next request when the last is answered.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::task::JoinSet;

/// When a load ends, whichever comes first.
#[derive(Debug, Clone, Copy)]
pub struct Until {
    pub requests: u64,
    pub elapsed: Duration,
}

impl Until {
    /// So many requests, however long they take.
    pub fn requests(requests: u64) -> Self {
        Self { requests, elapsed: Duration::from_secs(24 * 3600) }
    }

    /// So long, however many they are.
    pub fn elapsed(elapsed: Duration) -> Self {
        Self { requests: u64::MAX, elapsed }
    }
}

/// Who calls what, how.
#[derive(Debug, Clone)]
pub struct Load {
    /// Such as `http://127.0.0.1:10000/orders`; with several, clients take turns.
    pub urls: Vec<String>,
    /// Sent with each request, such as `("x-tenant-id", "acme")`.
    pub headers: Vec<(String, String)>,
    pub clients: usize,
    /// A client waits so long between an answer and its next request.
    pub pause: Duration,
}

impl Load {
    /// As this tenant, known by the header that `envoy/envoy.yaml` reads.
    pub fn of_tenant(url: impl Into<String>, tenant: &str, clients: usize) -> Self {
        let headers = vec![("x-tenant-id".to_owned(), tenant.to_owned())];
        Self { urls: vec![url.into()], headers, clients, pause: Duration::ZERO }
    }

    /// Runs it to its end; the answers are counted as they come in.
    pub async fn run(&self, until: Until, counts: &Arc<Counts>) -> Result<()> {
        let deadline = Instant::now() + until.elapsed;
        let started = Arc::new(AtomicU64::new(0));
        let mut clients = JoinSet::new();
        for index in 0..self.clients {
            let client = self.client()?;
            let url = self.urls[index % self.urls.len()].clone();
            let (pause, started, counts) = (self.pause, started.clone(), counts.clone());
            clients.spawn(async move {
                while Instant::now() < deadline
                    && started.fetch_add(1, Ordering::SeqCst) < until.requests
                {
                    counts.add(status_of(client.get(&url)).await);
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                }
            });
        }
        while let Some(ended) = clients.join_next().await {
            ended?;
        }
        Ok(())
    }

    /// A connection pool of its own per client, so that connections spread over Envoy's workers.
    fn client(&self) -> Result<reqwest::Client> {
        let mut headers = reqwest::header::HeaderMap::new();
        for (name, value) in &self.headers {
            headers.insert(reqwest::header::HeaderName::try_from(name)?, value.parse()?);
        }
        let client = reqwest::Client::builder().default_headers(headers);
        Ok(client.timeout(Duration::from_secs(30)).build()?)
    }
}

/// The status of the whole answer; 0 when there was none.
async fn status_of(request: reqwest::RequestBuilder) -> u16 {
    let Ok(answer) = request.send().await else { return 0 };
    let status = answer.status().as_u16();
    // Read to the end, so that the connection is used again.
    answer.bytes().await.map_or(0, |_| status)
}

/// Answers by status; 0 stands for requests without an answer.
#[derive(Debug, Default)]
pub struct Counts {
    by_status: std::sync::Mutex<BTreeMap<u16, u64>>,
}

impl Counts {
    pub fn by_status(&self) -> BTreeMap<u16, u64> {
        self.lock().clone()
    }

    pub fn of(&self, status: u16) -> u64 {
        self.lock().get(&status).copied().unwrap_or(0)
    }

    pub fn total(&self) -> u64 {
        self.lock().values().sum()
    }

    fn add(&self, status: u16) {
        *self.lock().entry(status).or_insert(0) += 1;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u16, u64>> {
        self.by_status.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
