//! Debits for callers without a gateway: this process asks for leases as a gateway of its own.
//!
//! Each debit has a *seat*, a worker of that gateway, to itself: the calls of a worker are numbered, and
//! the script answers one at a time. A lease is asked for that is as large as the cost, and said as
//! spent once the usage is stored. If this process dies in between, what it had debited stays unspent.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rand::RngExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use weir_domain::{
    id::TenantId,
    protocol::{self, LeaseAnswer, LeaseAsk, LeaseRequest, LimitStatus, TenantState},
    quantity::Amount,
};

use crate::{
    lease::{Leases, answer},
    problem::ApiError,
};

/// How many calls of services are under way at once; the others wait. Fewer than there are connections to
/// Postgres by default, since each may hold one while Redis waits for a claim that needs another.
const SEATS: usize = 12;
/// How long a caller waits for a seat.
const WAIT: Duration = Duration::from_secs(5);
/// How often a call to Redis is sent whose answer was lost, and how long it waits between them.
const ATTEMPTS: usize = 3;
const PAUSE: Duration = Duration::from_millis(100);

/// All seats of this process.
pub struct Seats {
    /// A name that no other gateway has.
    gateway: String,
    free: Mutex<Vec<Numbered>>,
    permits: Arc<Semaphore>,
}

/// A worker, and the last call that it made.
struct Numbered {
    worker: String,
    call: u64,
}

/// A seat that is in use.
pub struct Seat {
    seats: Arc<Seats>,
    worker: String,
    call: u64,
    _permit: OwnedSemaphorePermit,
}

/// What became of a wish.
pub enum Take {
    Taken(Taken),
    /// The tenant has not that much, or may not use the API at all.
    Refused(LeaseAnswer),
}

/// Tokens and requests that are debited, and not yet admitted.
pub struct Taken {
    seat: Seat,
    tenant: TenantId,
    amount: Amount,
    stamp: String,
    ends: Instant,
    /// The clock under which it was debited, in ms since 1970.
    pub now_ms: i64,
    /// Where the limits stand without it.
    pub limits: Vec<LimitStatus>,
}

impl Seats {
    pub fn new() -> Arc<Self> {
        let nonce: u128 = rand::rng().random();
        let free = (0..SEATS).map(|number| Numbered { worker: number.to_string(), call: 0 });
        Arc::new(Self {
            gateway: format!("api-{nonce:032x}"),
            free: Mutex::new(free.collect()),
            permits: Arc::new(Semaphore::new(SEATS)),
        })
    }

    /// A free seat; there is one soon unless too much is going on.
    pub async fn sit(self: &Arc<Self>) -> Result<Seat, ApiError> {
        let busy = || ApiError::Busy("too many calls are under way");
        let permit = tokio::time::timeout(WAIT, Arc::clone(&self.permits).acquire_owned()).await;
        let permit = permit.map_err(|_| busy())?.map_err(ApiError::internal)?;
        let Numbered { worker, call } = self.free().pop().ok_or_else(busy)?;
        Ok(Seat { seats: Arc::clone(self), worker, call, _permit: permit })
    }

    fn free(&self) -> MutexGuard<'_, Vec<Numbered>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let worker = std::mem::take(&mut self.worker);
        self.seats.free().push(Numbered { worker, call: self.call });
    }
}

impl Seat {
    /// A name that nothing else has or gets: gateway, worker, and a number that no call uses.
    pub fn name(&mut self) -> (&str, &str, u64) {
        self.call += 1;
        (&self.seats.gateway, &self.worker, self.call)
    }

    /// Debits all of `amount`, or nothing.
    pub async fn take(
        mut self,
        leases: &Leases,
        tenant: &TenantId,
        amount: Amount,
    ) -> Result<Take, ApiError> {
        let sent = Instant::now();
        let wish = LeaseAsk { need: amount, want: amount, ..nothing(tenant) };
        let answer = self.ask(leases, wish).await?;
        if !answer.granted.covers(amount) || amount.is_zero() {
            let is_explained = answer.limits.iter().any(|limit| limit.violated);
            if answer.state == TenantState::Active && !is_explained {
                return Err(ApiError::Busy("the tokens were taken too slowly"));
            }
            return Ok(Take::Refused(answer));
        }
        let mut limits = answer.limits;
        for limit in &mut limits {
            // What a gateway holds counts as remaining; this will be spent.
            limit.remaining = limit.remaining.saturating_sub(answer::of(amount, limit.unit));
        }
        Ok(Take::Taken(Taken {
            seat: self,
            tenant: tenant.clone(),
            amount,
            stamp: answer.stamp,
            ends: sent + Duration::from_millis(answer.ttl_ms),
            now_ms: answer.now_ms,
            limits,
        }))
    }

    /// The buckets pay `amount`, below zero if need be.
    pub async fn owe(
        &mut self,
        leases: &Leases,
        tenant: &TenantId,
        amount: Amount,
    ) -> Result<(), ApiError> {
        self.ask(leases, LeaseAsk { owe: amount, ..nothing(tenant) }).await.map(drop)
    }

    /// The same call is repeated where its answer was lost: it is carried out once.
    async fn ask(&mut self, leases: &Leases, ask: LeaseAsk) -> Result<LeaseAnswer, ApiError> {
        self.call += 1;
        let request = LeaseRequest {
            version: protocol::VERSION,
            gateway: self.seats.gateway.clone(),
            revision: 0,
            worker: self.worker.clone(),
            leases: vec![LeaseAsk { call: self.call, ..ask }],
        };
        let mut answered = leases.answer(&request).await;
        for _ in 1..ATTEMPTS {
            if !matches!(answered, Err(ApiError::Unavailable(..))) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            answered = leases.answer(&request).await;
        }
        let undecided = || ApiError::Busy("the tenant's buckets could not be decided on");
        answered?.pop().filter(|answer| answer.call == self.call).ok_or_else(undecided)
    }
}

impl Taken {
    /// Names the debit: gateway, worker, call.
    pub fn name(&self) -> (&str, &str, u64) {
        (&self.seat.seats.gateway, &self.seat.worker, self.seat.call)
    }

    /// Whether it may still be admitted. Later, a continuous limit may have refilled in its place.
    pub fn is_alive(&self) -> bool {
        Instant::now() < self.ends
    }

    /// It was admitted. Where Redis does not hear of it, it counts as held until the lease ends.
    pub async fn spent(mut self, leases: &Leases) {
        let said = LeaseAsk { spent: self.amount, ..self.of_lease() };
        self.say(leases, said).await;
    }

    /// It was not admitted. Where Redis does not hear of it, it stays unspent.
    pub async fn give_back(mut self, leases: &Leases) {
        let said = LeaseAsk { refund: self.amount, ..self.of_lease() };
        self.say(leases, said).await;
    }

    fn of_lease(&self) -> LeaseAsk {
        LeaseAsk { stamp: self.stamp.clone(), ..nothing(&self.tenant) }
    }

    async fn say(&mut self, leases: &Leases, said: LeaseAsk) {
        if let Err(error) = self.seat.ask(leases, said).await {
            tracing::warn!(tenant = %self.tenant, "a lease for a service ends unsettled: {error}");
        }
    }
}

fn nothing(tenant: &TenantId) -> LeaseAsk {
    LeaseAsk {
        tenant: tenant.clone(),
        call: 0,
        stamp: String::new(),
        need: Amount::ZERO,
        want: Amount::ZERO,
        spent: Amount::ZERO,
        refund: Amount::ZERO,
        owe: Amount::ZERO,
        fresh: false,
    }
}
