//! Gateways that do all that gateways may do, in the worst way, and the reference that they are held
//! against.

use super::*;

#[derive(Debug, Clone)]
pub(super) enum Step {
    Pass {
        ms: i64,
    },
    /// A worker begins a call, or repeats the one under way.
    Call {
        worker: usize,
        need: u64,
        want: u64,
        says: bool,
        gives_back: bool,
        owes: bool,
        fresh: bool,
    },
    /// A call arrives, maybe not for the first time; where it has to claim, maybe in vain.
    Arrive {
        call: usize,
        again: bool,
        claims: bool,
        strands: bool,
    },
    /// An answer arrives, or is lost.
    Answer {
        answer: usize,
        arrives: bool,
    },
    Spend {
        gateway: usize,
        tokens: u64,
    },
    TopUp {
        requests: i64,
    },
    LoseAll,
    LoseBucket {
        index: usize,
    },
    LoseCalls {
        gateway: usize,
    },
}

#[derive(Debug, Clone, Default)]
struct InHand {
    stamp: String,
    ends_ms: i64,
    decided_ms: i64,
    free: Amount,
    /// Not said yet.
    spent: Amount,
}

#[derive(Debug, Clone)]
struct UnderWay {
    worker: usize,
    ask: LeaseAsk,
    sent_ms: i64,
    /// Which sending of it this is.
    sending: u64,
}

pub(super) struct World {
    pub(super) now_ms: i64,
    pub(super) account: Account,
    /// The first lease since all was lost.
    first_lease: u64,
    in_hand: Vec<InHand>,
    pending: Vec<Option<UnderWay>>,
    sendings: u64,
    calls: Vec<UnderWay>,
    answers: Vec<(UnderWay, Decided, i64)>,
    /// The reference: a bucket that each admission is taken from at once.
    naive: Level,
    /// Of this period: admitted, released by Postgres, fed to Redis, and owed; in requests.
    admitted: i64,
    claimed: i64,
    adjustment: i64,
    fed: i64,
    owed: i64,
    owed_tokens: i64,
}

impl World {
    pub(super) fn new() -> Self {
        let buckets = vec![tokens_by_rate(), requests_by_period()];
        Self {
            now_ms: 0,
            account: Account { plenty: 2, ..Account::new(buckets, "p0", 0, TTL_MS) },
            first_lease: 1,
            in_hand: vec![InHand::default(); GATEWAYS],
            pending: vec![None; GATEWAYS * WORKERS],
            sendings: 0,
            calls: Vec::new(),
            answers: Vec::new(),
            naive: Level { level: signed(TOKENS), fraction: 0, at_ms: 0 },
            admitted: 0,
            claimed: 0,
            adjustment: 0,
            fed: 0,
            owed: 0,
            owed_tokens: 0,
        }
    }

    pub(super) fn take(&mut self, step: Step) {
        match step {
            Step::Pass { ms } => self.pass(ms),
            Step::Call { worker, need, want, says, gives_back, owes, fresh } => {
                self.call(worker, (need, want), [says, gives_back, owes, fresh]);
            }
            Step::Arrive { call, again, claims, strands } => {
                self.arrive(call, again, claims, strands);
            }
            Step::Answer { answer, arrives } if !self.answers.is_empty() => {
                let answer = self.answers.swap_remove(answer % self.answers.len());
                if arrives {
                    self.answer(answer);
                }
            }
            Step::Answer { .. } => {}
            Step::Spend { gateway, tokens } => self.spend(gateway, tokens),
            Step::TopUp { requests } => self.adjustment += requests,
            Step::LoseAll => {
                self.forgive();
                self.first_lease += 1_000;
                self.account.lose(self.now_ms, self.first_lease - 1);
            }
            Step::LoseBucket { index } => {
                if index == 1 {
                    self.forgive();
                }
                self.account.lose_bucket(self.now_ms, index);
            }
            Step::LoseCalls { gateway } => self.account.lose_calls(&gateway.to_string()),
        }
    }

    /// A debt is lost with its bucket.
    fn forgive(&mut self) {
        self.owed += self.account.buckets()[1].level.min(0);
    }

    pub(super) fn pass(&mut self, ms: i64) {
        let period = self.now_ms / PERIOD_MS;
        self.now_ms += ms;
        let next = self.now_ms / PERIOD_MS;
        if next > period {
            (self.admitted, self.claimed, self.adjustment, self.fed, self.owed) = (0, 0, 0, 0, 0);
            self.account.settle(self.now_ms);
            self.account.turn_period(&format!("p{next}"), (next + 1) * PERIOD_MS);
        }
    }

    fn call(
        &mut self,
        worker: usize,
        (need, want): (u64, u64),
        [says, back, owes, fresh]: [bool; 4],
    ) {
        self.sendings += 1;
        let (sent_ms, sending) = (self.now_ms, self.sendings);
        let again = self.pending[worker].take();
        let ask = again.map(|before| before.ask).unwrap_or_else(|| {
            let in_hand = &mut self.in_hand[worker / WORKERS];
            let take = |asked: bool, from: &mut Amount| {
                if asked { std::mem::take(from) } else { Amount::ZERO }
            };
            LeaseAsk {
                stamp: in_hand.stamp.clone(),
                spent: take(says, &mut in_hand.spent),
                refund: take(back, &mut in_hand.free),
                owe: amount(u64::from(owes) * need, u64::from(owes)),
                fresh,
                ..an_ask(sending, amount(need, need.min(1)), amount(want, want))
            }
        });
        let call = UnderWay { worker, ask, sent_ms, sending };
        self.pending[worker] = Some(call.clone());
        self.calls.push(call);
    }

    fn arrive(&mut self, call: usize, again: bool, claims: bool, strands: bool) {
        if self.calls.is_empty() {
            return;
        }
        let index = call % self.calls.len();
        let call = if again { self.calls[index].clone() } else { self.calls.swap_remove(index) };
        let gateway = (call.worker / WORKERS).to_string();
        let worker = (call.worker % WORKERS).to_string();
        for _ in 0..4 {
            match self.account.ask(self.now_ms, (&gateway, &worker), &call.ask, claims) {
                Answer::Claim(wishes) => {
                    self.claim(wishes[1].expect("only requests are claimed"), strands)
                }
                Answer::Unfed => return,
                Answer::Decided(decided) => {
                    if matches!(decided.outcome, Outcome::Granted | Outcome::Refused) {
                        self.owed += signed(call.ask.owe.requests);
                        self.owed_tokens += signed(call.ask.owe.tokens);
                    }
                    let (need, granted) = (call.ask.need, decided.granted);
                    assert!(call.ask.want.covers(granted), "no more than was wanted");
                    let fresh = decided.outcome == Outcome::Granted;
                    assert!(!fresh || granted.covers(need), "all of the need, or nothing");
                    return self.answers.push((call, decided, self.now_ms));
                }
            }
        }
    }

    /// What Postgres does: it releases, and Redis is fed once at most.
    pub(super) fn claim(&mut self, (least, welcome): (i64, i64), strands: bool) {
        let unclaimed = REQUESTS + self.adjustment - self.claimed;
        let block = unclaimed.min(least.max(welcome.min((unclaimed + 3) / 4))).max(0);
        self.claimed += block;
        if !strands {
            self.fed += block;
            let left = Quantity::clamped((unclaimed - block).unsigned_abs());
            let released = Released { claimed: self.claimed, is_settled: false };
            self.account.feed(self.now_ms, 1, block, left, Some(released));
        }
    }

    /// As the filter's slot takes it in.
    fn answer(&mut self, (call, decided, decided_ms): (UnderWay, Decided, i64)) {
        let pending = &mut self.pending[call.worker];
        if pending.as_ref().is_none_or(|pending| pending.sending != call.sending) {
            return;
        }
        *pending = None;
        let in_hand = &mut self.in_hand[call.worker / WORKERS];
        if decided.stamp != in_hand.stamp {
            if decided_ms < in_hand.decided_ms {
                return;
            }
            *in_hand = InHand { stamp: decided.stamp, ..InHand::default() };
        }
        in_hand.decided_ms = decided_ms;
        in_hand.ends_ms = call.sent_ms + decided.ttl_ms;
        in_hand.free = in_hand.free.saturating_add(decided.granted);
    }

    fn spend(&mut self, gateway: usize, tokens: u64) {
        let in_hand = &mut self.in_hand[gateway];
        let cost = amount(tokens, 1);
        let Some(rest) = in_hand.free.checked_sub(cost) else { return };
        if self.now_ms >= in_hand.ends_ms {
            return;
        }
        in_hand.free = rest;
        in_hand.spent = in_hand.spent.saturating_add(cost);
        self.admitted += 1;
        self.naive = self.naive.refilled(RATE, TOKENS, Quantity::ZERO, self.now_ms);
        self.naive.level -= signed(cost.tokens);
    }

    /// What gateways can still spend of leases of this life.
    fn can_spend(&self, of_this_life: bool) -> Amount {
        let known = |stamp: &str| {
            let number = stamp.rsplit_once('.').and_then(|(_, number)| number.parse::<u64>().ok());
            number.is_some_and(|number| !of_this_life || number >= self.first_lease)
        };
        let live = self.in_hand.iter().filter(|it| self.now_ms < it.ends_ms && known(&it.stamp));
        live.fold(Amount::ZERO, |sum, it| sum.saturating_add(it.free))
    }

    pub(super) fn check(&mut self) {
        self.account.settle(self.now_ms);
        assert!(self.naive.level >= 0, "more than capacity + rate × span: {:?}", self.naive);
        let of_period = REQUESTS + self.adjustment;
        assert!(self.admitted <= of_period, "{} of {of_period} in a period", self.admitted);
        let held = self.account.held();
        assert!(held.covers(self.can_spend(true)), "{held:?} of {:?}", self.in_hand);
        let [tokens, requests] = self.account.buckets() else { panic!("two buckets") };
        assert!(tokens.level <= signed(TOKENS.saturating_sub(held.tokens)), "{tokens:?}");
        assert!(tokens.level >= -self.owed_tokens && requests.level >= -self.owed);
        let in_hand = signed(self.can_spend(false).requests);
        let stranded = self.fed - (requests.level + self.owed) - in_hand - self.admitted;
        assert!(stranded >= 0, "{stranded} are stranded: {} fed, {requests:?}", self.fed);
    }
}
