//! The refresher: one worker of the gateway that hears of changes for all, and posts what workers
//! left that are gone. It is elected through shared data; when it is silent, another takes over.

use serde::{Deserialize, Serialize};
use weir_domain::{
    id::TenantId,
    protocol::{self, CONFIG_PATH, ConfigAnswer, RatingPolicy},
};

use crate::{
    ending::Ending,
    host::{self, Level},
    http_call::{self, Answer},
    rating::named,
    slot::{Slot, clock_offset_ns},
    stats::Counter,
    tenant::slot_key,
    tenants::Index,
    worker::{Call, Worker},
};

mod orphans;

const OWNER_KEY: &str = "weir/1/refresher";
const CHANGES_KEY: &str = "weir/1/changes";
/// The policy that gateways rate requests by.
const POLICY_KEY: &str = "weir/1/policy";
/// How often the owner says that it lives, and the others look, in ns.
const BEAT_NS: u64 = 500_000_000;
/// An owner that has been silent for this long has lost its office.
const SILENT_NS: u64 = 2_000_000_000;
/// The most changes that workers can catch up on one by one.
const MAX_RECENT: usize = 256;

/// Who the refresher is.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Owner {
    worker: String,
    beat_ns: u64,
}

/// What the refresher heard, for all workers of the gateway.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Changes {
    /// The control plane's revision that this tells of.
    revision: u64,
    /// Counts changes; a worker that has seen this number has nothing to catch up on.
    sequence: u64,
    /// The latest changes, the last of which has the number `sequence`; `None` is all tenants.
    recent: Vec<Option<TenantId>>,
    /// When all tenants may have changed.
    all_changed_ns: u64,
    /// Counts the policies that were kept at [`POLICY_KEY`].
    policies: u64,
    /// What to add to the monotonic clock to get the control plane's, in ns.
    clock_offset_ns: Option<i64>,
}

#[derive(Debug, Default)]
pub struct Refresher {
    looked_ns: u64,
    is_owner: bool,
    polling: bool,
    retry_ns: u64,
    failures: u32,
    /// The sequence of changes that this worker has heard.
    heard: Option<u64>,
    all_changed_ns: u64,
    clock_offset_ns: Option<i64>,
    /// The number of the policy that this worker has heard.
    policies: u64,
    /// A policy that does not compile here, and why.
    refused_policy: Option<(RatingPolicy, String)>,
    /// The control plane's revision that this worker has heard of.
    revision: u64,
    orphan_under_way: bool,
    /// The place to look for orphans at first.
    next_orphan: u32,
}

impl Refresher {
    #[cfg(feature = "trap")]
    pub fn is_owner(&self) -> bool {
        self.is_owner
    }
}

impl Changes {
    fn load() -> Self {
        host::read(CHANGES_KEY)
            .and_then(|bytes| postcard::from_bytes(&bytes).ok())
            .unwrap_or_default()
    }

    /// What a worker that heard up to `heard` has missed; `None` when that is no longer known.
    fn since(&self, heard: u64) -> Option<&[Option<TenantId>]> {
        let missed = usize::try_from(self.sequence.checked_sub(heard)?).ok()?;
        self.recent.get(self.recent.len().checked_sub(missed)?..)
    }

    fn add(&mut self, answer: &ConfigAnswer, now_ns: u64) {
        self.revision = answer.revision;
        self.clock_offset_ns = Some(clock_offset_ns(answer.now_ms, now_ns));
        if answer.reset {
            self.all_changed_ns = now_ns;
        }
        let all = answer.reset.then_some(None);
        let changed = all.into_iter().chain(answer.tenants.iter().cloned().map(Some));
        for change in changed {
            self.sequence += 1;
            self.recent.push(change);
        }
        let excess = self.recent.len().saturating_sub(MAX_RECENT);
        self.recent.drain(..excess);
    }
}

impl Refresher {
    /// When all tenants may have changed, as far as this worker has heard; what was known of a tenant
    /// before does not count.
    pub fn all_changed_ns(&self) -> u64 {
        self.all_changed_ns
    }

    /// The control plane's revision, as far as this worker has heard.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether it need not make a call soon.
    pub fn is_idle(&self) -> bool {
        self.polling || !self.is_owner
    }

    /// The same for what to add to the monotonic clock to get the control plane's.
    pub fn clock_offset_ns(&self) -> Option<i64> {
        self.clock_offset_ns
    }
}

impl Worker {
    /// Takes part in the election; does the refresher's work if this worker is it.
    pub fn refresh(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.refresher.looked_ns) >= BEAT_NS {
            self.refresher.looked_ns = now_ns;
            self.elect(now_ns);
            if self.refresher.is_owner {
                self.adopt_orphans(now_ns);
            }
        }
        let refresher = &mut self.refresher;
        if refresher.is_owner && !refresher.polling && now_ns >= refresher.retry_ns {
            self.poll_config(now_ns);
        }
    }

    fn elect(&mut self, now_ns: u64) {
        #[cfg(feature = "trap")]
        if !crate::trap::has_served() {
            return;
        }
        let mine = Owner { worker: self.name.clone(), beat_ns: now_ns };
        let owns = host::update(OWNER_KEY, |bytes| {
            let owner = bytes.and_then(|bytes| postcard::from_bytes::<Owner>(bytes).ok());
            match owner {
                Some(owner)
                    if owner.worker != mine.worker
                        && now_ns.saturating_sub(owner.beat_ns) < SILENT_NS =>
                {
                    (None, false)
                }
                _ => (postcard::to_allocvec(&mine).ok(), true),
            }
        });
        let owns = owns.unwrap_or(false);
        if owns && !self.refresher.is_owner {
            self.stats.count(Counter::RefresherTerms);
            host::log(Level::Info, &format!("weir: worker {} is the refresher", self.name));
        }
        self.refresher.is_owner = owns;
    }

    fn poll_config(&mut self, now_ns: u64) {
        let after = Changes::load().revision;
        let gateway = &self.gateway;
        let mut path =
            format!("{CONFIG_PATH}?version={}&after={after}&gateway={gateway}", protocol::VERSION);
        if let Some(version) = self.policy.version() {
            path.push_str(&format!("&policy={version}"));
        }
        match http_call::poll(&self.config.control_plane, &path) {
            Some(token) => {
                self.refresher.polling = true;
                self.calls.insert(token, Call::Config);
            }
            None => self.poll_failed(now_ns, "the call could not be made"),
        }
    }

    /// The answer to the long poll.
    pub fn on_config(&mut self, answer: &Answer, now_ns: u64) {
        self.refresher.polling = false;
        if self.ending == Ending::Running {
            self.elect(now_ns);
        }
        if !self.refresher.is_owner {
            // This worker stood still and another has the office, or it ends: what it is told may be
            // older than what was heard since.
            return;
        }
        let answer = match answer.parse::<ConfigAnswer>() {
            Ok(answer) => answer,
            Err(why) => return self.poll_failed(now_ns, &why),
        };
        let kept = answer.policy.as_ref().map_or(Ok(false), |policy| self.keep_policy(policy));
        // First the slots, so that whoever hears of a change finds its slot marked.
        for tenant in &answer.tenants {
            invalidate(&slot_key(tenant), now_ns);
        }
        host::update(CHANGES_KEY, |bytes| {
            let mut changes: Changes =
                bytes.and_then(|bytes| postcard::from_bytes(bytes).ok()).unwrap_or_default();
            changes.add(&answer, now_ns);
            changes.policies += u64::from(kept == Ok(true));
            (postcard::to_allocvec(&changes).ok(), ())
        });
        self.hear_changes(now_ns);
        if let Err(why) = kept {
            // It is told again, at once.
            return self.poll_failed(now_ns, &why);
        }
        self.refresher.failures = 0;
        self.refresher.retry_ns = 0;
        if self.refresher.is_owner {
            self.poll_config(now_ns);
        }
    }

    /// Rates requests by `policy`, and keeps it for the other workers; `false` where this is done already.
    /// One that does not compile leaves them all with the one they have.
    fn keep_policy(&mut self, policy: &RatingPolicy) -> Result<bool, String> {
        if let Some((refused, why)) = &self.refresher.refused_policy
            && refused == policy
        {
            return Err(why.clone());
        }
        if let Err(why) = self.rate_by(policy) {
            self.refresher.refused_policy = Some((policy.clone(), why.clone()));
            return Err(why);
        }
        let kept = host::update(POLICY_KEY, |bytes| {
            let encoded = postcard::to_allocvec(policy).ok();
            let is_there = bytes == encoded.as_deref();
            (encoded.filter(|_| !is_there), !is_there)
        });
        let kept = kept.ok_or("the policy could not be kept for other workers")?;
        if kept && policy.version != 0 {
            host::log(Level::Info, &format!("weir: requests are rated by {}", named(policy)));
        }
        Ok(kept)
    }

    /// Takes over the policy that the refresher has kept.
    fn hear_policy(&mut self, policies: u64) {
        if policies == std::mem::replace(&mut self.refresher.policies, policies) {
            return;
        }
        let kept = host::read(POLICY_KEY)
            .and_then(|bytes| postcard::from_bytes::<RatingPolicy>(&bytes).ok());
        if let Some(policy) = kept
            && let Err(why) = self.rate_by(&policy)
        {
            host::warn(&format!("weir: {why}"));
        }
    }

    fn poll_failed(&mut self, now_ns: u64, why: &str) {
        self.stats.count(Counter::ConfigCallFailures);
        host::warn(&format!("weir: changes are not heard of: {why}"));
        self.refresher.retry_ns = now_ns + http_call::backoff_ns(self.refresher.failures);
        self.refresher.failures += 1;
    }

    /// Does what this worker has to do about changes that the refresher heard.
    pub fn hear_changes(&mut self, now_ns: u64) {
        let changes = Changes::load();
        self.refresher.clock_offset_ns = changes.clock_offset_ns;
        self.refresher.revision = changes.revision;
        self.hear_policy(changes.policies);
        let heard = self.refresher.heard.replace(changes.sequence);
        self.refresher.all_changed_ns = changes.all_changed_ns;
        if heard == Some(changes.sequence) {
            return;
        }
        let missed = heard.and_then(|heard| changes.since(heard));
        match missed {
            Some(missed) if missed.iter().all(Option::is_some) => {
                for tenant in missed.iter().flatten() {
                    self.hear_change(tenant, now_ns);
                }
            }
            _ => self.hear_that_all_changed(now_ns),
        }
    }

    fn hear_change(&mut self, tenant: &TenantId, now_ns: u64) {
        self.tenants.forget_stranger(tenant);
        let Some(index) = self.tenants.index_of(tenant) else {
            return;
        };
        self.forget_verdicts(index, now_ns);
        let Some(tenant) = self.tenants.get_mut(index) else {
            return;
        };
        // A slot in which no change was ever noted was made after the refresher noted this one in all
        // that there were, maybe by an answer from before it.
        host::update(&tenant.slot_key(), |bytes| {
            let mut slot = Slot::decode(bytes);
            if bytes.is_none() || slot.changed_ns != 0 {
                return (None, ());
            }
            slot.invalidate(now_ns);
            (slot.encode(), ())
        });
    }

    fn hear_that_all_changed(&mut self, now_ns: u64) {
        self.tenants.forget_strangers();
        for index in self.tenants.indexes() {
            self.forget_verdicts(index, now_ns);
            if let Some(tenant) = self.tenants.get_mut(index) {
                invalidate(&tenant.slot_key(), now_ns);
            }
        }
    }

    fn forget_verdicts(&mut self, index: Index, now_ns: u64) {
        self.put_back(index);
        if let Some(tenant) = self.tenants.get_mut(index) {
            tenant.note_change(now_ns);
        }
    }

    /// Gives up the office, so that another worker need not wait for this one to fall silent.
    pub fn resign(&mut self) {
        if !std::mem::take(&mut self.refresher.is_owner) {
            return;
        }
        host::update(OWNER_KEY, |bytes| {
            let owner = bytes.and_then(|bytes| postcard::from_bytes::<Owner>(bytes).ok());
            let mine = owner.is_some_and(|owner| owner.worker == self.name);
            (mine.then(Vec::new), ())
        });
    }
}

fn invalidate(slot_key: &str, now_ns: u64) {
    host::update(slot_key, |bytes| {
        if bytes.is_none() {
            return (None, ());
        }
        let mut slot = Slot::decode(bytes);
        slot.invalidate(now_ns);
        (slot.encode(), ())
    });
}

#[cfg(test)]
mod tests;
