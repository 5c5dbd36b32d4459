//! One call of a provider: its turn, the claim, the request, and what an error means.

use std::time::{Duration, Instant};

use metrics::{counter, histogram};
use reqwest::{
    Client, Method, Url,
    header::{HeaderMap, HeaderValue, RETRY_AFTER},
    redirect,
};
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::{Kind, claim::Claim, pace::Pace};

/// The most that is read of an answer, in bytes.
const MAX_ANSWER: usize = 8 << 20;
/// How long no call is made after an answer that says "too many" and not until when.
const TOO_MANY: Duration = Duration::from_secs(1);
/// The longest that a provider may make us wait.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// Why there is no client; the text says what to do.
#[derive(Debug, Error)]
#[error("no calls of billing providers are possible: {0}")]
pub struct ClientError(#[from] reqwest::Error);

/// Why a call did not yield what was asked for.
#[derive(Debug, Error)]
pub enum Failure {
    /// There was no whole answer: it may have been carried out, or may be carried out still. The same
    /// call with the same key is safe.
    #[error("{0}")]
    Unknown(String),
    /// Not carried out now: the same call with the same key, later.
    #[error("{text}")]
    Later { text: String, wait: Option<Duration> },
    /// The provider keeps this error under the key, and would repeat it.
    #[error("{0}")]
    Burnt(String),
    /// To repeat it would be refused again.
    #[error("{0}")]
    Refused(Refusal),
    #[error("another worker has taken over")]
    Lost,
    #[error("Postgres: {0}")]
    Sql(#[from] sqlx::Error),
}

/// What the provider says is wrong with a call, or what Weir says of its answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct Refusal {
    /// 0 where the provider was not asked or did not refuse.
    pub status: u16,
    pub code: String,
    pub param: String,
    pub text: String,
}

impl Refusal {
    /// Something that Weir found.
    pub fn found(text: impl Into<String>) -> Failure {
        let (code, param) = Default::default();
        Failure::Refused(Self { status: 0, code, param, text: text.into() })
    }
}

/// One call.
#[derive(Debug)]
pub struct Call<'a> {
    pub method: Method,
    /// Segments of the path.
    pub path: &'a [&'a str],
    /// The query of a GET, the form of anything else.
    pub params: Vec<(String, String)>,
    /// The idempotency key.
    pub key: Option<&'a str>,
    /// Names the endpoint in metrics.
    pub endpoint: &'static str,
}

/// A whole answer.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body of a success.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Failure::Unknown(format!("the answer can't be read: {error}")))
    }

    /// Until when a provider asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        let header = self.headers.get(RETRY_AFTER)?.to_str().ok()?;
        let seconds: u64 = header.trim().parse().ok()?;
        Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
    }
}

/// Makes the calls of one provider.
pub struct Caller {
    provider: Kind,
    http: Client,
    base: Url,
    /// The header `authorization`.
    credential: HeaderValue,
    /// The header that carries idempotency keys.
    key_header: &'static str,
    pace: Pace,
}

impl Caller {
    pub fn new(
        provider: Kind,
        base: Url,
        credential: HeaderValue,
        key_header: &'static str,
        headers: HeaderMap,
        (pace, timeout): (Pace, Duration),
    ) -> Result<Self, ClientError> {
        // An error says that it is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder()
            .timeout(timeout)
            .connect_timeout(timeout)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .build()?;
        Ok(Self { provider, http, base, credential, key_header, pace })
    }

    /// Makes `call` when its turn has come, if the claim still holds. Any status is an answer.
    pub async fn make(&self, claim: &Claim, call: Call<'_>) -> Result<Answer, Failure> {
        self.pace.turn(call.endpoint).await;
        claim.outlast_call().await?;
        self.counted(call).await
    }

    /// Makes a call that changes nothing when its turn has come. It needs no claim.
    pub async fn look(&self, call: Call<'_>) -> Result<Answer, Failure> {
        self.pace.turn(call.endpoint).await;
        self.counted(call).await
    }

    async fn counted(&self, call: Call<'_>) -> Result<Answer, Failure> {
        let endpoint = call.endpoint;
        let started = Instant::now();
        let result = self.send(call).await;
        let outcome = match &result {
            Ok(answer) => match answer.status {
                200..300 => "ok",
                429 => "too_many",
                400..500 => "refused",
                _ => "error",
            },
            Err(_) => "no_answer",
        };
        let provider = self.provider.as_str();
        counter!("weir_provider_calls_total", "provider" => provider, "endpoint" => endpoint, "outcome" => outcome)
            .increment(1);
        histogram!("weir_provider_call_seconds", "provider" => provider).record(started.elapsed());
        if let Ok(answer) = &result
            && answer.status == 429
        {
            self.pace.hold_off(answer.retry_after().unwrap_or(TOO_MANY));
        }
        result
    }

    async fn send(&self, call: Call<'_>) -> Result<Answer, Failure> {
        let Call { method, path, params, key, .. } = call;
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut request = if method == Method::GET {
            url.query_pairs_mut().extend_pairs(params);
            self.http.get(url)
        } else {
            self.http.request(method, url).form(&params)
        };
        request = request.header(reqwest::header::AUTHORIZATION, self.credential.clone());
        if let Some(key) = key {
            request = request.header(self.key_header, key);
        }
        let no_answer = |error: reqwest::Error| {
            // Without the address: the query may name the customer.
            let error = error.without_url();
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            Failure::Unknown(format!("no answer: {error}{}", cause.unwrap_or_default()))
        };
        let mut answer = request.send().await.map_err(no_answer)?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(no_answer)? {
            body.extend_from_slice(&part);
            if body.len() > MAX_ANSWER {
                return Err(Failure::Unknown(format!(
                    "the answer is longer than {MAX_ANSWER} bytes"
                )));
            }
        }
        Ok(Answer { status, headers, body })
    }
}
