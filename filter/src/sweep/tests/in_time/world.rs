//! A gateway in made-up time.

use weir_domain::{
    id::TenantId,
    protocol::{LeaseAnswer, LeaseAsk, LeaseResponse, TenantState},
    quantity::{Amount, Quantity},
};

use super::{super::super::*, MINUTE, SECOND};
use crate::{
    config::Config,
    http_call::Answer,
    rating::Rate,
    tenant::{PendingCall, slot_key},
    tenants::Known,
    worker::Draw,
};

const CONFIG: &[u8] = br#"{
    "control_plane": { "cluster": "weir", "token": "t" },
    "identity": { "kind": "header", "name": "x-tenant-id" }
}"#;

fn requests(count: u64) -> Amount {
    Amount::request(Quantity::ONE)
        .max(Amount { tokens: Quantity::clamped(count), requests: Quantity::clamped(count) })
}

/// Workers of one gateway, one tenant, and a control plane that answers at once.
pub(super) struct World {
    pub(super) workers: Vec<Worker>,
    pub(super) tenant: TenantId,
    pub(super) now_ns: u64,
    /// Leases last until then at most.
    pub(super) period_ends_ns: u64,
    pub(super) has_plenty: bool,
    /// Whether the first worker has traffic.
    pub(super) is_busy: bool,
    pub(super) stamp: u32,
    pub(super) lease_ends_ns: u64,
    pub(super) asks: Vec<(u64, LeaseAsk)>,
    /// What was free or in slices when a lease ended.
    pub(super) stranded: u64,
}

impl World {
    pub(super) fn new(tenant: &str, workers: usize) -> Self {
        let config = Config::parse(Some(CONFIG)).unwrap();
        let worker = |number| {
            let mut worker = Worker::new(config.clone(), 0);
            // So that it renews each in its own time, and not at the last moment.
            for other in 0..=number {
                worker.tenants.find(format!("other-{other}").as_bytes(), 0);
            }
            worker
        };
        Self {
            workers: (0..workers).map(worker).collect(),
            tenant: TenantId::new(tenant).unwrap(),
            now_ns: 1_000 * MINUTE,
            period_ends_ns: u64::MAX,
            has_plenty: true,
            is_busy: true,
            stamp: 1,
            lease_ends_ns: 0,
            asks: Vec::new(),
            stranded: 0,
        }
    }

    pub(super) fn slot(&self) -> Slot {
        Slot::decode(host::read(&slot_key(&self.tenant)).as_deref())
    }

    pub(super) fn index(&mut self, worker: usize) -> Index {
        match self.workers[worker].tenants.find(self.tenant.as_str().as_bytes(), self.now_ns) {
            Known::Tenant(index) => index,
            _ => panic!("the tenant is known"),
        }
    }

    pub(super) fn answer(&mut self, worker: usize, ask: &LeaseAsk) {
        let answer = LeaseResponse { leases: vec![self.decide(ask)] };
        let answer = Answer::new(Some(200), serde_json::to_vec(&answer).unwrap());
        let index = self.index(worker);
        self.workers[worker].on_leases(vec![index], &answer, self.now_ns);
    }

    pub(super) fn decide(&mut self, ask: &LeaseAsk) -> LeaseAnswer {
        let ends_ns = self.now_ns + if self.has_plenty { 2 * MINUTE } else { 2 * SECOND };
        // Who only has a lease renewed gets nothing more of what is scarce.
        let is_scarce = !self.has_plenty && ask.need.is_zero();
        let granted = if is_scarce { Amount::ZERO } else { ask.want };
        let has_ended = self.lease_ends_ns <= self.now_ns;
        if has_ended && !ask.stamp.is_empty() {
            self.stamp += 1;
        }
        if has_ended || !granted.is_zero() || self.has_plenty {
            self.lease_ends_ns = self.lease_ends_ns.max(ends_ns).min(self.period_ends_ns);
        }
        LeaseAnswer {
            tenant: ask.tenant.clone(),
            call: ask.call,
            state: TenantState::Active,
            stamp: format!("base.{}", self.stamp),
            granted,
            ttl_ms: self.lease_ends_ns.saturating_sub(self.now_ns) / 1_000_000,
            now_ms: 1_700_000_000_000,
            plan: String::new(),
            retry_after_ms: 0,
            ask_again_ms: 0,
            limits: Vec::new(),
        }
    }

    /// Lets time pass, sweep by sweep.
    pub(super) fn pass(&mut self, span_ns: u64) {
        let until_ns = self.now_ns + span_ns;
        while self.now_ns < until_ns {
            self.now_ns += SWEEP_NS;
            if self.is_busy {
                self.workers[0].busy_ns = self.now_ns;
            }
            self.note_stranded();
            for worker in 0..self.workers.len() {
                self.count_nothing(worker);
                self.workers[worker].sweep(self.now_ns);
                self.calls(worker);
            }
        }
    }

    /// What was counted is on its way to the ledger.
    pub(super) fn count_nothing(&mut self, worker: usize) {
        let (index, worker) = (self.index(worker), &mut self.workers[worker]);
        worker.tenants.get_mut(index).unwrap().close_minute(&mut worker.usage);
    }

    pub(super) fn calls(&mut self, worker: usize) {
        self.workers[worker].call_for_leases(self.now_ns);
        let index = self.index(worker);
        let tenant = self.workers[worker].tenants.get_mut(index).unwrap();
        if let Some(ask) = tenant.call.as_ref().map(|call| call.ask.clone()) {
            self.answer(worker, &ask);
            self.asks.push((self.now_ns, ask));
        }
    }

    pub(super) fn note_stranded(&mut self) {
        let slot = self.slot();
        if !slot.stamp.is_empty() && slot.end_ns <= self.now_ns && !slot.free.is_zero() {
            self.stranded += slot.free.requests.get();
            host::clear(&slot_key(&self.tenant));
        }
    }

    /// A request, which asks for a lease where it has to; `false` if it had to.
    pub(super) fn request(&mut self, worker: usize) -> bool {
        let (index, rate) = (self.index(worker), Rate::plain(requests(1)));
        let at_once = matches!(self.workers[worker].draw(index, &rate, self.now_ns), Draw::Took);
        if !at_once {
            self.lease(worker, 32);
            let drawn = self.workers[worker].draw(index, &rate, self.now_ns);
            assert!(matches!(drawn, Draw::Took), "there is a lease");
        }
        self.workers[worker].list(index);
        at_once
    }

    /// A lease of so many requests.
    pub(super) fn lease(&mut self, worker: usize, count: u64) {
        let index = self.index(worker);
        let ask = LeaseAsk {
            tenant: self.tenant.clone(),
            call: 0,
            stamp: self.slot().stamp,
            need: requests(1),
            want: requests(count),
            spent: Amount::ZERO,
            refund: Amount::ZERO,
            owe: Amount::ZERO,
            fresh: false,
        };
        let tenant = self.workers[worker].tenants.get_mut(index).unwrap();
        tenant.call = Some(Box::new(PendingCall {
            ask: ask.clone(),
            generation: 0,
            sent_ns: self.now_ns,
            retry_ns: 0,
            failures: 0,
        }));
        self.answer(worker, &ask);
    }

    pub(super) fn asks_since(&self, since_ns: u64) -> usize {
        self.asks.iter().filter(|(at_ns, _)| *at_ns >= since_ns).count()
    }

    pub(super) fn refunded(&self) -> u64 {
        self.asks.iter().map(|(_, ask)| ask.refund.requests.get()).sum()
    }
}
