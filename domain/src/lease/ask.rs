//! How an ask is decided.

use super::{
    Account, Answer, Bucket, Call, Decided, Gateway, Held, MAX, Outcome, RECHECK_MS, REMEMBERED_MS,
    Refill, of, part, reservation, signed,
};
use crate::{
    bucket,
    limit::Unit,
    protocol::{LeaseAsk, MAX_PERIODIC_TTL_MS, MAX_TTL_MS},
    quantity::{Amount, Quantity},
};

/// What each unit should get, over all limits at once.
enum Share {
    Of(Amount),
    Refused,
    /// It is not here, but may be in a block on its way; or in Postgres, and nothing may be claimed.
    Unfed,
}

impl Account {
    /// Decides on `ask` of `(gateway, worker)`; without `claims`, with what there is.
    pub fn ask(
        &mut self,
        now_ms: i64,
        caller: (&str, &str),
        ask: &LeaseAsk,
        claims: bool,
    ) -> Answer {
        let mut after = self.clone();
        after.settle(now_ms);
        let answer = after.decide(caller, ask, claims);
        if let Answer::Decided(_) = answer {
            *self = after;
        }
        answer
    }

    fn decide(&mut self, (name, worker): (&str, &str), ask: &LeaseAsk, claims: bool) -> Answer {
        let mut gateway = self.gateways.get(name).cloned().unwrap_or_default();
        let calls = self.calls.get(name);
        let last = calls.and_then(|calls| calls.get(worker));
        if let Some(last) = last.filter(|last| ask.call <= last.number) {
            return Answer::Decided(self.again(ask, last, &gateway));
        }
        let forgotten = calls.is_none();
        self.renew(&mut gateway, forgotten);
        self.take_in(&mut gateway, ask);
        if ask.fresh && ask.stamp == gateway.lease.stamp {
            // After what it gives back was counted: only what it cannot account for is left behind.
            self.replace(&mut gateway);
        }
        self.gateways.insert(name.to_owned(), gateway);
        let should = match self.share(name, ask, claims) {
            Share::Of(should) => Some(should),
            Share::Refused => None,
            Share::Unfed => return Answer::Unfed,
        };
        if let Some(wishes) = should.and_then(|should| self.wishes(ask, should, claims)) {
            return Answer::Claim(wishes);
        }
        let granted = should.map(|should| self.grant(name, should, claims)).unwrap_or_default();
        self.note_reservation(name, ask, claims, should.is_some());
        self.answered(name, worker, ask, should.is_some(), granted)
    }

    /// The answer to a call that was decided before, or was overtaken by a later one.
    fn again(&self, ask: &LeaseAsk, last: &Call, gateway: &Gateway) -> Decided {
        let same = ask.call == last.number;
        let outcome = if same { Outcome::Replayed } else { Outcome::Outdated };
        let left_ms = last.ends_ms - self.now_ms;
        if same && last.stamp == gateway.lease.stamp && left_ms > 0 {
            let stamp = last.stamp.clone();
            return Decided { outcome, stamp, ttl_ms: left_ms, granted: last.granted };
        }
        let ttl_ms = (gateway.lease.ends_ms - self.now_ms).max(0);
        Decided { outcome, stamp: gateway.lease.stamp.clone(), ttl_ms, granted: Amount::ZERO }
    }

    /// Begins another lease, unless the gateway's lives and is on the same terms. Where its calls are
    /// forgotten, this one and others may be repeated, so what they say and give back must be of a
    /// lease that nobody knows any more.
    fn renew(&mut self, gateway: &mut Gateway, forgotten: bool) {
        let base = gateway.lease.stamp.rsplit_once('.').map_or("", |(base, _)| base);
        if gateway.lease.ends_ms <= self.now_ms || base != self.base || forgotten {
            self.replace(gateway);
        }
        if forgotten {
            gateway.old.stamp.clear();
        }
    }

    /// Begins another lease. What is held of the one before counts until its end.
    fn replace(&mut self, gateway: &mut Gateway) {
        self.leases += 1;
        let lease = Held { stamp: format!("{}.{}", self.base, self.leases), ..Held::default() };
        gateway.old = Held {
            amount: gateway.old.amount.saturating_add(gateway.lease.amount),
            ends_ms: gateway.ends_ms(),
            stamp: std::mem::replace(&mut gateway.lease, lease).stamp,
        };
    }

    /// Takes in what was spent, given back, and is owed. What was spent counts against what was
    /// replaced first: that never ends later, so what is held stays at or above what can be spent.
    fn take_in(&mut self, gateway: &mut Gateway, ask: &LeaseAsk) {
        let current = ask.stamp == gateway.lease.stamp;
        let old = !ask.stamp.is_empty() && ask.stamp == gateway.old.stamp;
        for unit in [Unit::Tokens, Unit::Requests] {
            let (mut spent, mut refund) = (of(ask.spent, unit), Quantity::ZERO);
            if current || old {
                let of_old = part(&mut gateway.old.amount, unit);
                let first = spent.min(*of_old);
                (*of_old, spent) = (of_old.saturating_sub(first), spent.saturating_sub(first));
                if old {
                    // It was of other terms, so no bucket gets it; but nobody will spend it.
                    *of_old = of_old.saturating_sub(of(ask.refund, unit));
                }
            }
            if current {
                let held = part(&mut gateway.lease.amount, unit);
                *held = held.saturating_sub(spent);
                refund = of(ask.refund, unit).min(*held);
                *held = held.saturating_sub(refund);
            }
            for bucket in self.buckets.iter_mut().filter(|bucket| bucket.unit == unit) {
                let level = (bucket.level + signed(refund)).min(MAX);
                bucket.level = (level - signed(of(ask.owe, unit))).max(-MAX);
            }
        }
    }

    /// What each unit should get, over all limits at once.
    fn share(&mut self, name: &str, ask: &LeaseAsk, claims: bool) -> Share {
        let since_ms = self.now_ms - 2 * self.lease_ttl_ms;
        let others = self
            .gateways
            .iter()
            .filter(|(other, at)| *other != name && at.seen_ms > since_ms)
            .count();
        let sharers = 1 + u32::try_from(others).unwrap_or(u32::MAX - 1);
        for bucket in &mut self.buckets {
            bucket.spared =
                reservation::spared(self.reservation.as_ref(), bucket, ask, self.now_ms);
        }
        let (mut should, mut unfed) = (ask.want, false);
        for bucket in &mut self.buckets {
            let need = of(ask.need, bucket.unit);
            let available = bucket.available(claims);
            let is_there = available >= signed(need);
            match &mut bucket.refill {
                _ if is_there => {}
                Refill::Continuous { .. } => return Share::Refused,
                Refill::Periodic { known, unclaimed, checked_ms, blocks, .. } => {
                    *known &= !claims || *checked_ms + RECHECK_MS > self.now_ms;
                    if *known && bucket.level + signed(*unclaimed) + blocks.coming() < signed(need)
                    {
                        return Share::Refused;
                    }
                    unfed |= *known || !claims;
                }
            }
            let want = of(ask.want, bucket.unit);
            let fair = bucket::grant(need, want, available.max(signed(need)), sharers);
            let part = part(&mut should, bucket.unit);
            *part = (*part).min(fair.unwrap_or(need));
        }
        if unfed { Share::Unfed } else { Share::Of(should) }
    }

    /// What must be claimed before this can be granted. What gets a part at least of what it should
    /// get goes without.
    fn wishes(
        &self,
        ask: &LeaseAsk,
        should: Amount,
        claims: bool,
    ) -> Option<Vec<Option<(i64, i64)>>> {
        let wish = |bucket: &Bucket| {
            let should = of(should, bucket.unit);
            let least = signed(of(ask.need, bucket.unit).max(should.min(Quantity::ONE)));
            let Refill::Periodic { known, unclaimed, .. } = bucket.refill else { return None };
            let missing = !known || (bucket.level < least && !unclaimed.is_zero());
            let short = |of: i64| (of - bucket.level).max(0);
            missing.then(|| (short(least), short(signed(should))))
        };
        let wishes: Vec<_> = self.buckets.iter().map(wish).collect();
        (claims && wishes.iter().any(Option::is_some)).then_some(wishes)
    }

    fn grant(&mut self, name: &str, should: Amount, claims: bool) -> Amount {
        let mut granted = should;
        for bucket in &self.buckets {
            let level = Quantity::clamped(u64::try_from(bucket.level).unwrap_or(0));
            let part = part(&mut granted, bucket.unit);
            *part = (*part).min(level);
        }
        for bucket in &mut self.buckets {
            bucket.level -= signed(of(granted, bucket.unit));
        }
        let others = self.gateways.iter();
        let others = others.filter(|(other, at)| *other != name && at.ends_ms() > self.now_ms);
        let parts = i64::from(self.plenty) * (1 + i64::try_from(others.count()).unwrap_or(MAX));
        if let Some(Gateway { lease, .. }) = self.gateways.get_mut(name) {
            lease.amount = lease.amount.saturating_add(granted);
            if !lease.amount.is_zero() {
                let shortest_ms = self.now_ms + self.lease_ttl_ms;
                let ends_ms =
                    ends_ms(&self.buckets, lease.amount, parts, claims, shortest_ms, self.now_ms);
                lease.ends_ms = lease.ends_ms.max(ends_ms);
            }
        }
        granted
    }

    fn note_reservation(&mut self, name: &str, ask: &LeaseAsk, claims: bool, met: bool) {
        self.reservation = if met {
            reservation::after_meeting(self.reservation.take(), ask.need, self.now_ms)
        } else {
            let ttl_ms = self.lease_ttl_ms;
            let before = self.reservation.take();
            reservation::after_refusing(
                before,
                &self.buckets,
                (name, ask.need),
                claims,
                self.now_ms,
                ttl_ms,
            )
        };
    }

    fn answered(
        &mut self,
        name: &str,
        worker: &str,
        ask: &LeaseAsk,
        met: bool,
        granted: Amount,
    ) -> Answer {
        let now_ms = self.now_ms;
        let Some(gateway) = self.gateways.get_mut(name) else { return Answer::Unfed };
        gateway.seen_ms = now_ms;
        let (stamp, ends_ms) = (gateway.lease.stamp.clone(), gateway.lease.ends_ms.max(now_ms));
        self.gateways.retain(|_, gateway| {
            gateway.ends_ms() > now_ms || gateway.seen_ms >= now_ms - REMEMBERED_MS
        });
        let call = Call { number: ask.call, ends_ms, granted, stamp: stamp.clone() };
        self.calls.entry(name.to_owned()).or_default().insert(worker.to_owned(), call);
        let outcome = if met { Outcome::Granted } else { Outcome::Refused };
        Answer::Decided(Decided { outcome, stamp, ttl_ms: ends_ms - now_ms, granted })
    }
}

/// When a lease ends with which a gateway holds `held`: as late as its limits allow where that is no more
/// than one of so many `parts` of what they have left, and after a lease's lifetime else; never after a
/// period.
fn ends_ms(
    buckets: &[Bucket],
    held: Amount,
    parts: i64,
    claims: bool,
    shortest_ms: i64,
    now_ms: i64,
) -> i64 {
    let mut ends_ms = now_ms + ms(MAX_PERIODIC_TTL_MS);
    let mut periods_end_ms = i64::MAX;
    let mut plenty = true;
    for bucket in buckets {
        let part = bucket.available(claims).max(0) / parts;
        plenty &= part >= signed(of(held, bucket.unit));
        match bucket.refill {
            Refill::Continuous { .. } => ends_ms = ends_ms.min(now_ms + ms(MAX_TTL_MS)),
            Refill::Periodic { ends_ms, .. } => periods_end_ms = periods_end_ms.min(ends_ms),
        }
    }
    let ends_ms = if plenty { ends_ms.max(shortest_ms) } else { shortest_ms };
    ends_ms.min(periods_end_ms)
}

fn ms(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
