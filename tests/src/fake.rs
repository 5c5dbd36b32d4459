//! Stateful stand-ins for billing providers, with their idempotency keys, their strictness about
//! parameters, and faults that strike a chosen call.
//!
//! ```ignore
//! let stripe = FakeStripe::start().await?;
//! stripe.strike("POST invoices", Fault::CutAfter);   // the next such call is carried out, unanswered
//! stripe.struck().await?;                            // …and now it has been
//! ```

pub(crate) mod chargebee;
pub(crate) mod form;
mod keys;
mod limit;
pub(crate) mod stripe;

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

pub(crate) use self::limit::Limit;
use self::{
    keys::{Kept, begin, execute, finish, keep},
    limit::Second,
};
use crate::harness::wait_for;

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// 429 with this `Retry-After`; not carried out, and the key is not used up.
    TooMany(u64),
    /// 409: something else holds a lock; not carried out, and the key is not used up.
    Conflict,
    /// 500; not carried out. The key repeats it.
    ErrorBefore,
    /// 500 though it was carried out. The key repeats it.
    ErrorAfter,
    /// Carried out and never answered.
    SilentAfter,
    /// The connection is cut; not carried out.
    CutBefore,
    /// The connection is cut when it has been carried out.
    CutAfter,
    /// The connection is cut, and then it is carried out; until then the key is in use.
    Late(Duration),
    /// Answered after this time.
    Slow(Duration),
    /// Never answered and not carried out: for killing the caller here.
    HoldBefore,
    /// A 402; not carried out.
    Refused,
    /// A 401: the API key is not accepted.
    LockedOut,
}

/// One call as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// Such as `POST invoices/add_lines`; ids are left out.
    pub(crate) endpoint: String,
    /// The id in the path.
    pub(crate) id: Option<String>,
    pub(crate) params: Vec<(String, String)>,
    pub(crate) key: Option<String>,
}

impl Request {
    /// The value of a parameter, empty without one.
    pub(crate) fn param(&self, name: &str) -> &str {
        let found = self.params.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.as_str())
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Value,
}

impl Reply {
    pub(crate) fn new(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), body }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// What differs between providers.
pub(crate) trait Provider: Send + 'static {
    /// The header that carries idempotency keys.
    const KEY_HEADER: &'static str;
    /// For how long a key is remembered, in seconds.
    const KEY_WINDOW_S: u64;

    /// The endpoint and the id in the path; `None` where there is no such path.
    fn route(method: &str, path: &str) -> Option<(String, Option<String>)>;
    /// What is wrong with the credential and other headers.
    fn authorize(&self, headers: &hyper::HeaderMap) -> Result<(), Reply>;
    /// What is wrong with the parameters; nothing is kept under the key then.
    fn check(&self, request: &Request) -> Result<(), Reply>;
    /// Carries a call out at a time, in seconds.
    fn execute(&mut self, request: &Request, now_s: u64) -> Result<Value, Reply>;
    /// The error with this status and code.
    fn error(status: u16, code: &str, message: &str) -> Reply;
}

struct Shared<P> {
    provider: P,
    keys: HashMap<String, Kept>,
    faults: VecDeque<(String, Fault)>,
    calls: Vec<Request>,
    struck: usize,
    limit: Option<Limit>,
    second: Second,
    refused: usize,
    /// Its clock.
    now_s: u64,
}

/// A running stand-in; it ends when it is dropped.
pub(crate) struct Fake<P> {
    port: u16,
    shared: Arc<Mutex<Shared<P>>>,
    server: JoinHandle<()>,
    expected: Mutex<usize>,
}

impl<P> Drop for Fake<P> {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl<P: Provider> Fake<P> {
    pub(crate) async fn serving(provider: P) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Mutex::new(Shared {
            provider,
            keys: HashMap::new(),
            faults: VecDeque::new(),
            calls: Vec::new(),
            struck: 0,
            limit: None,
            second: Second::new(),
            refused: 0,
            now_s: std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs(),
        }));
        let served = Arc::clone(&shared);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&served);
                let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                tokio::spawn(async move {
                    // An error is a connection that was cut, by a fault or by the caller.
                    let _ =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { port, shared, server, expected: Mutex::new(0) })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The next call of this endpoint is struck, after those that were to be struck before.
    pub(crate) fn strike(&self, endpoint: &str, fault: Fault) {
        lock(&self.shared).faults.push_back((endpoint.to_owned(), fault));
        *lock(&self.expected) += 1;
    }

    /// Waits until all faults have struck.
    pub(crate) async fn struck(&self) -> Result<()> {
        let expected = *lock(&self.expected);
        wait_for("the call that is to be struck", crate::harness::SOON, async || {
            let state = lock(&self.shared);
            anyhow::ensure!(state.struck >= expected, "to come: {:?}", state.faults);
            Ok(Some(()))
        })
        .await
    }

    /// All keys are forgotten that were used before now.
    pub(crate) fn pass_key_window(&self) {
        lock(&self.shared).now_s += P::KEY_WINDOW_S + 1;
    }

    /// Lets its clock run ahead.
    pub(crate) fn pass(&self, seconds: u64) {
        lock(&self.shared).now_s += seconds;
    }

    /// The calls that arrived, without those that are no endpoint.
    pub(crate) fn calls(&self) -> Vec<Request> {
        lock(&self.shared).calls.clone()
    }

    /// More calls than these in a second are answered with 429.
    pub(crate) fn allow(&self, limit: Limit) {
        lock(&self.shared).limit = Some(limit);
    }

    /// How many calls were too many.
    pub(crate) fn refused(&self) -> usize {
        lock(&self.shared).refused
    }

    /// Looks at or changes what the provider has.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut P) -> T) -> T {
        look(&mut lock(&self.shared).provider)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error cuts the connection.
async fn answer<P: Provider>(
    shared: Arc<Mutex<Shared<P>>>,
    request: hyper::Request<Incoming>,
) -> Result<Response<Full<Bytes>>, io::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let reply = match read(&shared, &parts, &body) {
        Ok(request) => carry_out(&shared, request).await?,
        Err(reply) => reply,
    };
    let mut response = Response::new(Full::new(Bytes::from(reply.body.to_string())));
    *response.status_mut() = hyper::StatusCode::from_u16(reply.status).map_err(io::Error::other)?;
    for (name, value) in reply.headers {
        response.headers_mut().insert(name, value.parse().map_err(io::Error::other)?);
    }
    Ok(response)
}

fn read<P: Provider>(
    shared: &Mutex<Shared<P>>,
    parts: &hyper::http::request::Parts,
    body: &[u8],
) -> Result<Request, Reply> {
    let method = parts.method.as_str();
    let (endpoint, id) = P::route(method, parts.uri.path())
        .ok_or_else(|| P::error(404, "", "Unrecognized request URL"))?;
    lock(shared).provider.authorize(&parts.headers)?;
    let text = match method {
        "GET" => parts.uri.query().unwrap_or("").to_owned(),
        _ => String::from_utf8_lossy(body).into_owned(),
    };
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let is_form = header("content-type") == Some("application/x-www-form-urlencoded");
    if method == "POST" && !is_form {
        return Err(P::error(400, "", "Send a form"));
    }
    let request = Request {
        endpoint,
        id,
        params: form::parse(&text),
        key: header(P::KEY_HEADER).map(str::to_owned),
    };
    if method == "POST" && request.key.is_none() {
        return Err(P::error(400, "", "This stand-in wants a key with every POST"));
    }
    let mut state = lock(shared);
    state.calls.push(request.clone());
    let limit = state.limit;
    if state.second.exceeds(&request.endpoint, limit) {
        state.refused += 1;
        return Err(P::error(429, "rate_limit", "Too many"));
    }
    drop(state);
    Ok(request)
}

async fn carry_out<P: Provider>(
    shared: &Arc<Mutex<Shared<P>>>,
    request: Request,
) -> Result<Reply, io::Error> {
    let fault = {
        let mut state = lock(shared);
        let strikes =
            state.faults.front().is_some_and(|(endpoint, _)| *endpoint == request.endpoint);
        let fault = strikes.then(|| state.faults.pop_front()).flatten().map(|(_, fault)| fault);
        // A call that has been carried out is struck when that is so.
        if fault.is_some_and(|fault| fault == Fault::HoldBefore) {
            state.struck += 1;
        }
        fault
    };
    let cut = || io::Error::other("cut");
    let struck = || lock(shared).struck += 1;
    match fault {
        None => Ok(execute(shared, &request)),
        Some(Fault::TooMany(seconds)) => {
            struck();
            Ok(P::error(429, "rate_limit", "Too many").with("retry-after", seconds))
        }
        Some(Fault::Conflict) => {
            struck();
            Ok(P::error(409, "lock_timeout", "Somebody else works on this"))
        }
        Some(Fault::Refused) => {
            struck();
            Ok(P::error(402, "refused_here", "This is not possible"))
        }
        Some(Fault::LockedOut) => {
            struck();
            Ok(P::error(401, "", "Invalid API Key provided"))
        }
        Some(Fault::ErrorBefore) => {
            let error = P::error(500, "", "Something went wrong");
            keep(shared, &request, error.clone());
            struck();
            Ok(error)
        }
        Some(Fault::ErrorAfter) => {
            execute(shared, &request);
            let error = P::error(500, "", "Something went wrong");
            keep(shared, &request, error.clone());
            struck();
            Ok(error)
        }
        Some(Fault::SilentAfter) => {
            execute(shared, &request);
            struck();
            forever().await
        }
        Some(Fault::HoldBefore) => forever().await,
        Some(Fault::CutBefore) => {
            struck();
            Err(cut())
        }
        Some(Fault::CutAfter) => {
            execute(shared, &request);
            struck();
            Err(cut())
        }
        Some(Fault::Late(after)) => {
            begin(shared, &request);
            struck();
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                finish(&shared, &request);
            });
            Err(cut())
        }
        Some(Fault::Slow(after)) => {
            tokio::time::sleep(after).await;
            struck();
            Ok(execute(shared, &request))
        }
    }
}

async fn forever() -> Result<Reply, io::Error> {
    std::future::pending().await
}
