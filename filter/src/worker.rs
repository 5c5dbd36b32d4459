//! One worker: decides over requests, and does the rest on its tick.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use hashbrown::HashMap;
use weir_domain::rate_limit_fields;

use crate::{
    config::{AfterGrace, Config, RateLimitFields},
    ending::Ending,
    host,
    http_call::Answer,
    lease_calls::LeaseCalls,
    llm::call::ModelCall,
    outage::Unleased,
    places,
    rating::{ActivePolicy, Rate, Rating},
    refresher::Refresher,
    refusal::Refused,
    stats::{Counter, Stats},
    streams::Verdict,
    tenant::Waiter,
    tenants::{Index, Known, Tenants},
    usage::{Frozen, UsageLog},
    usage_calls::UsageCalls,
};

mod draw;
mod tick;

pub use self::draw::Draw;

/// The most requests that wait at once in one worker.
const MAX_WAITING: usize = 10_000;
/// How often the tick comes when nothing is urgent.
pub const IDLE_TICK: Duration = Duration::from_millis(50);
/// How often it comes to a worker that has nothing to do, like the one of Envoy's main thread, which gets
/// no requests. It still says that it lives.
const RESTING_TICK: Duration = Duration::from_millis(250);
/// Who has not looked about for so long does so when a request comes.
const ASLEEP_NS: u64 = 2 * IDLE_TICK.as_nanos() as u64;
/// How soon it comes when a call is to be made that requests wait for. Where nobody waits, other tenants may
/// come to need one meanwhile, and one call serves all; what a slot has left when it runs low lasts for much
/// longer than until the next tick.
const URGENT_TICK: Duration = Duration::from_millis(1);

/// All that one VM remembers.
pub struct Worker {
    pub config: Config,
    /// The root context, which makes all calls: it lives as long as the VM.
    pub root: u32,
    /// This VM's name, and the number that stands for it in slots.
    pub name: String,
    pub number: u64,
    /// The Envoy process' name; empty until the first tick.
    pub gateway: String,
    pub tenants: Tenants,
    /// Tenants to ask for on the next tick.
    pub to_ask: Vec<Index>,
    /// Tenants that count usage.
    pub counting: Vec<Index>,
    /// Tenants that hold a slice or a lease, and which sweep looks after them; the soonest first.
    pub watched: BinaryHeap<Reverse<(u32, Index)>>,
    /// The same of those that are looked after before their time, while the worker has no traffic.
    pub hurried: BinaryHeap<Reverse<(u32, Index)>>,
    /// Tenants with waiting requests.
    pub waiting: Vec<Index>,
    pub waiting_requests: usize,
    /// For whose lease requests are, or were, paused; by their context.
    pub paused: HashMap<u32, Index>,
    /// What becomes of those who were paused: to be told to Envoy when the worker is not at work.
    pub verdicts: Vec<(u32, Verdict)>,
    /// What the answers to admitted requests will say, by their context.
    pub answers: HashMap<u32, AnswerFields>,
    /// Calls of language models under way, by their context.
    pub model_calls: HashMap<u32, ModelCall>,
    pub policy: ActivePolicy,
    pub usage: UsageLog,
    pub usage_calls: UsageCalls,
    pub lease_calls: LeaseCalls,
    pub refresher: Refresher,
    /// Whether it may be the refresher. Not where a newer configuration may know better whom to ask.
    may_refresh: bool,
    pub stats: Stats,
    /// The gateway's generation, as this worker last saw it.
    pub generation: u64,
    /// What each HTTP call under way is for, by its token.
    pub calls: HashMap<u32, Call>,
    pub ending: Ending,
    tick: Duration,
    served_ns: u64,
    swept_ns: u64,
    /// When it last heard of changes.
    heard_ns: u64,
    /// When a sweep last found that something was admitted.
    pub busy_ns: u64,
    /// Whether the last sweep had all go back.
    pub is_hurrying: bool,
    pub forgot_ns: u64,
}

/// What an HTTP call under way is for.
#[derive(Debug)]
pub enum Call {
    /// The tenants asked for.
    Leases(Vec<Index>),
    Usage,
    /// A batch of a worker that is gone, and the place where it is kept.
    Orphan {
        place: u32,
        batch: Frozen,
    },
    Config,
}

/// What becomes of a request.
pub enum Decision {
    /// It passes; with what its answer says about it, if anything.
    Admit(Option<AnswerFields>),
    /// It is paused until [`Worker`] resumes or refuses it.
    Wait(Index),
    Refuse(Refused),
}

/// What the answer to an admitted request says about it.
#[derive(Debug)]
pub enum AnswerFields {
    /// The values of `RateLimit-Policy` and `RateLimit`.
    RateLimit { policy: String, remaining: String },
    /// Why it passed without a lease.
    Unleased(Unleased),
}

impl Worker {
    pub fn new(config: Config, root: u32) -> Self {
        let name = host::nonce().unwrap_or_default();
        let number = name.get(..16).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
        Self {
            config,
            root,
            name,
            number,
            gateway: String::new(),
            tenants: Tenants::default(),
            to_ask: Vec::new(),
            counting: Vec::new(),
            watched: BinaryHeap::new(),
            hurried: BinaryHeap::new(),
            waiting: Vec::new(),
            waiting_requests: 0,
            paused: HashMap::new(),
            verdicts: Vec::new(),
            answers: HashMap::new(),
            model_calls: HashMap::new(),
            policy: ActivePolicy::default(),
            usage: UsageLog::default(),
            usage_calls: UsageCalls::default(),
            lease_calls: LeaseCalls::default(),
            refresher: Refresher::default(),
            may_refresh: true,
            stats: Stats::default(),
            generation: 0,
            calls: HashMap::new(),
            ending: Ending::Running,
            tick: Duration::ZERO,
            served_ns: 0,
            swept_ns: 0,
            heard_ns: 0,
            busy_ns: 0,
            is_hurrying: false,
            forgot_ns: 0,
        }
    }

    /// Decides over the request `context` of the tenant with `credential`.
    #[inline]
    pub fn decide(&mut self, context: u32, credential: &[u8]) -> Decision {
        let now_ns = host::now_ns();
        if now_ns.saturating_sub(self.heard_ns) >= ASLEEP_NS {
            self.wake(now_ns);
        }
        let index = match self.tenants.find(credential, now_ns) {
            Known::Tenant(index) => index,
            Known::Stranger => return Decision::Refuse(Refused::UnknownTenant),
            Known::Overloaded => match self.find_by_lease(credential) {
                Some(index) => index,
                None => return Decision::Refuse(Refused::Overloaded),
            },
        };
        let rate = match self.rate(context, index, now_ns) {
            Rating::Rated(rate) => rate,
            Rating::NotYet => return self.decide_unrated(context, index, now_ns),
            Rating::Refused(refused) => return Decision::Refuse(refused),
        };
        let Some(tenant) = self.tenants.get_mut(index) else {
            return Decision::Refuse(Refused::UnknownTenant);
        };
        if tenant.waiters.is_empty()
            && !self.usage_calls.is_stuck()
            && tenant.take(&rate, now_ns, &mut self.usage)
        {
            return self.admitted(context, index, &rate, now_ns);
        }
        self.decide_slowly(context, index, rate, now_ns)
    }

    /// Hears what a worker that ticks as often as others has heard.
    #[inline(never)]
    fn wake(&mut self, now_ns: u64) {
        if !self.gateway.is_empty() {
            self.hear(now_ns);
            self.rest_no_longer();
        }
    }

    /// Hears what the refresher and others have written down for all.
    fn hear(&mut self, now_ns: u64) {
        self.heard_ns = now_ns;
        self.generation = places::generation();
        self.hear_changes(now_ns);
    }

    /// There is something to do that ticks do.
    pub fn rest_no_longer(&mut self) {
        self.set_tick(self.tick.min(IDLE_TICK));
    }

    /// Whether it may be the refresher from now on.
    pub fn may_refresh(&mut self, may: bool) {
        if std::mem::replace(&mut self.may_refresh, may) && !may {
            self.resign();
        }
    }

    /// Whether requests that are admitted are told of their limits.
    pub fn tells_limits(&self) -> bool {
        self.config.rate_limit_fields == RateLimitFields::Always
    }

    /// The slice did not do.
    #[inline(never)]
    fn decide_slowly(&mut self, context: u32, index: Index, rate: Rate, now_ns: u64) -> Decision {
        if let Some(refused) = self.refused_at_once(index, now_ns) {
            return Decision::Refuse(refused);
        }
        // Oldest first: who comes while others wait, waits behind them.
        if self.tenants.get_mut(index).is_some_and(|tenant| tenant.waiters.is_empty()) {
            match self.draw(index, &rate, now_ns) {
                Draw::Took => return self.admitted(context, index, &rate, now_ns),
                Draw::Refused(refused) => return Decision::Refuse(refused),
                Draw::Empty => {}
            }
        }
        if self.is_cut_off(index, now_ns) {
            return self.decide_in_outage(context, index, &rate, now_ns);
        }
        self.wait(context, index, Some(rate), now_ns)
    }

    /// What the request costs is not known yet.
    #[inline(never)]
    fn decide_unrated(&mut self, context: u32, index: Index, now_ns: u64) -> Decision {
        if let Some(refused) = self.refused_at_once(index, now_ns) {
            return Decision::Refuse(refused);
        }
        if self.is_cut_off(index, now_ns) {
            let rate = self.plain_rate(context);
            return self.decide_in_outage(context, index, &rate, now_ns);
        }
        self.wait(context, index, None, now_ns)
    }

    /// Why a request is refused whatever it costs.
    fn refused_at_once(&mut self, index: Index, now_ns: u64) -> Option<Refused> {
        if self.usage_calls.is_stuck() && !self.counts_on() {
            return Some(Refused::UsageUnacknowledged);
        }
        match self.tenants.get_mut(index) {
            None => Some(Refused::UnknownTenant),
            Some(tenant) => tenant.is_suspended(now_ns).then_some(Refused::Suspended),
        }
    }

    /// Has the request wait for a lease, and where its rate is not known, for that.
    fn wait(&mut self, context: u32, index: Index, rate: Option<Rate>, now_ns: u64) -> Decision {
        if self.waiting_requests >= MAX_WAITING {
            return Decision::Refuse(Refused::Overloaded);
        }
        let deadline_ns = now_ns + self.config.max_wait_ms * 1_000_000;
        let asks = rate.is_some() || self.must_ask_to_rate(index, now_ns);
        if let Some(tenant) = self.tenants.get_mut(index) {
            tenant.waiters.push(Waiter { context, rate, deadline_ns, gone: false });
            self.waiting_requests += 1;
        }
        self.list_waiting(index);
        self.rest_no_longer();
        self.stats.count(Counter::Waited);
        if asks {
            self.ask_for(index);
        }
        Decision::Wait(index)
    }

    /// Whether requests go on though their usage has waited for too long to be stored.
    fn counts_on(&self) -> bool {
        self.config.outage.then == AfterGrace::Allow && !self.usage.is_overfull()
    }

    /// Counts an admission in the stats, or keeps what was taken as a reservation, and has the tenant
    /// looked after.
    #[inline]
    pub fn note_admission(&mut self, context: u32, index: Index, rate: &Rate, is_leased: bool) {
        self.stats.count(Counter::Admitted);
        let is_call = !self.model_calls.is_empty() && self.reserve(context, index, rate, is_leased);
        if !is_call {
            self.stats.add(Counter::AdmittedTokens, rate.cost.tokens.get());
        }
        self.list(index);
    }

    /// What an admission under a lease comes to.
    #[inline]
    pub fn admitted(&mut self, context: u32, index: Index, rate: &Rate, now_ns: u64) -> Decision {
        self.note_admission(context, index, rate, true);
        if !self.tells_limits() {
            return Decision::Admit(None);
        }
        self.tell_limits(index, now_ns)
    }

    #[inline(never)]
    fn tell_limits(&mut self, index: Index, now_ns: u64) -> Decision {
        let limits = self.tenants.get_mut(index).and_then(|tenant| tenant.limits(now_ns));
        let Some(limits) = limits else {
            return Decision::Admit(None);
        };
        Decision::Admit(Some(AnswerFields::RateLimit {
            policy: rate_limit_fields::policy_value(&limits),
            remaining: rate_limit_fields::remaining_value(&limits),
        }))
    }

    /// The answer to the call `token`, or that there was none.
    pub fn on_answer(&mut self, token: u32, answer: &Answer) {
        let now_ns = host::now_ns();
        #[cfg(feature = "trap")]
        if matches!(self.calls.get(&token), Some(Call::Leases(_))) {
            crate::trap::on_leases();
        }
        match self.calls.remove(&token) {
            Some(Call::Leases(asked)) => self.on_leases(asked, answer, now_ns),
            Some(Call::Usage) => self.on_usage(answer, now_ns),
            Some(Call::Orphan { place, batch }) => self.on_orphan(place, &batch, answer, now_ns),
            Some(Call::Config) => self.on_config(answer, now_ns),
            None => {}
        }
    }

    /// Has the next tick call for this tenant, unless a call is under way. It comes at once where requests
    /// wait.
    pub fn ask_for(&mut self, index: Index) {
        if let Some(tenant) = self.tenants.get_mut(index).filter(|tenant| tenant.call.is_none()) {
            let somebody_waits = !tenant.waiters.is_empty();
            if !std::mem::replace(&mut tenant.ask_queued, true) {
                self.to_ask.push(index);
            }
            self.set_tick(self.tick.min(if somebody_waits { URGENT_TICK } else { IDLE_TICK }));
        }
    }

    /// Joins the gateway: `false` when the shared data is not usable yet.
    pub fn start(&mut self, now_ns: u64) -> bool {
        let fresh =
            host::nonce().map(|nonce| format!("gw-{}", nonce.get(..16).unwrap_or_default()));
        let Some(fresh) = fresh.filter(|_| !self.name.is_empty()) else {
            return false;
        };
        let gateway = host::update("weir/1/gateway", |bytes| match bytes {
            Some(name) => (None, String::from_utf8_lossy(name).into_owned()),
            None => (Some(fresh.clone().into_bytes()), fresh.clone()),
        });
        let Some(gateway) = gateway.filter(|_| self.register(now_ns)) else {
            return false;
        };
        self.gateway = gateway;
        self.generation = places::generation();
        true
    }

    /// Counts a refusal; `false` when shadow mode lets the request through all the same.
    pub fn note_refusal(&mut self, refused: &Refused) -> bool {
        self.stats.count(refused.counter());
        if self.config.shadow {
            self.stats.count(Counter::ShadowRefused);
        }
        !self.config.shadow
    }
}
