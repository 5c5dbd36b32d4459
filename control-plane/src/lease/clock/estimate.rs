//! The arithmetic of the clock: what one process believes of the time, and what may change that.
//!
//! All times are in µs. An *offset* is what to add to the process's monotonic clock to get the time
//! since 1970.

/// How far a step of Redis' clock is followed; it fills up again by [`DRIFT_PPM`].
const STEP_US: i64 = 100_000;
/// How much faster or slower than ours another clock may run.
const DRIFT_PPM: i64 = 500;
/// Hosts whose clocks are set show the same time within this.
const NEAR_US: i64 = 1_000_000;
/// How often the other clocks are asked while Redis' is out of line.
const CHECK_EVERY_US: i64 = 1_000_000;
/// An estimate that has not been compared for this long may have drifted (by 30 ms).
const STALE_US: i64 = 60_000_000;

/// Where an offset lies: another clock was read at some moment between sending and receiving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offset {
    least: i64,
    most: i64,
}

impl Offset {
    pub fn new(clock_us: i64, sent_us: i64, received_us: i64) -> Self {
        Self {
            least: clock_us.saturating_sub(received_us),
            most: clock_us.saturating_sub(sent_us.min(received_us)),
        }
    }

    fn middle(self) -> i64 {
        self.least.midpoint(self.most)
    }

    /// What must be added to `offset_us`, so that it lies in here.
    fn correction(self, offset_us: i64) -> i64 {
        offset_us.clamp(self.least, self.most).saturating_sub(offset_us)
    }
}

/// The three clocks that decide together when one is out of line.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// The wall clock of this process's host.
    pub own: Offset,
    pub redis: Offset,
    /// `None` when it can't be asked.
    pub postgres: Option<Offset>,
}

impl Clocks {
    /// The median. Of two clocks the one that is behind; where they differ, that one is in doubt.
    fn agreed(self) -> Offset {
        let mut clocks = vec![self.own, self.redis];
        clocks.extend(self.postgres);
        clocks.sort_by_key(|clock| clock.middle());
        let agreed = clocks.len().div_ceil(2) - 1;
        clocks.get(agreed).copied().unwrap_or(self.own)
    }
}

/// What Redis' clock has shown lately, compared with the estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redis {
    InLine,
    /// It is out of line, and the other clocks have not been asked why yet.
    Doubtful,
    /// It is out of line, and has to follow the estimate.
    Wrong,
}

/// What this process believes of the time.
#[derive(Debug)]
pub struct Estimate {
    offset_us: i64,
    pub redis: Redis,
    /// The last that was heard from Redis.
    heard: Offset,
    /// How far Redis' clock is followed at the moment.
    step_us: i64,
    step_at_us: i64,
    /// When it was last in line.
    in_line_at_us: i64,
    /// When the other clocks were last asked.
    checked_at_us: i64,
    /// Whether Postgres has ever been among them.
    is_anchored: bool,
}

impl Estimate {
    /// The first one, at `now_us` of the monotonic clock.
    pub fn first(clocks: Clocks, now_us: i64) -> Self {
        let offset_us = clocks.agreed().middle();
        let is_right = clocks.redis.correction(offset_us).abs() <= STEP_US;
        let agree = clocks.own.correction(clocks.redis.middle()).abs() <= NEAR_US;
        let redis = match clocks.postgres {
            // One of two is wrong, and nobody can say which.
            None if !agree => Redis::Doubtful,
            _ if is_right => Redis::InLine,
            _ => Redis::Wrong,
        };
        Self {
            // Redis' clock is the one that replicas have in common.
            offset_us: if is_right { clocks.redis.middle() } else { offset_us },
            redis,
            heard: clocks.redis,
            step_us: STEP_US,
            step_at_us: now_us,
            in_line_at_us: now_us,
            checked_at_us: now_us,
            is_anchored: clocks.postgres.is_some(),
        }
    }

    /// The time at `now_us` of the monotonic clock.
    pub fn time_us(&self, now_us: i64) -> i64 {
        self.offset_us.saturating_add(now_us)
    }

    /// How far Redis' clock is ahead of it.
    pub fn correction_us(&self) -> i64 {
        self.heard.correction(self.offset_us)
    }

    /// Whether Redis should be asked for its time before the estimate is used.
    pub fn is_stale(&self, now_us: i64) -> bool {
        now_us - self.in_line_at_us >= STALE_US && self.redis == Redis::InLine
    }

    /// Whether the other clocks should be asked.
    pub fn wants_check(&self, now_us: i64) -> bool {
        match self.redis {
            Redis::Doubtful => true,
            Redis::InLine if self.is_anchored => false,
            Redis::InLine | Redis::Wrong => now_us - self.checked_at_us >= CHECK_EVERY_US,
        }
    }

    /// Takes in what Redis' clock showed. A drift is followed, and a jump is not: true when it has
    /// just jumped.
    pub fn hear(&mut self, redis: Offset, now_us: i64) -> bool {
        self.heard = redis;
        self.fill_step(now_us);
        let off_us = redis.correction(self.offset_us);
        if off_us.abs() <= self.step_us {
            self.offset_us += off_us;
            self.step_us -= off_us.abs();
            // One that began in doubt needs to hear from Postgres.
            if self.is_anchored || self.redis != Redis::Doubtful {
                self.redis = Redis::InLine;
            }
            self.in_line_at_us = now_us.max(self.in_line_at_us);
            return false;
        }
        let has_jumped = self.redis == Redis::InLine;
        if has_jumped {
            self.redis = Redis::Doubtful;
        }
        has_jumped
    }

    /// Lets the three clocks decide; by how much the time was set, if it was. It stays where their
    /// median or Postgres, by whose clock periods are billed, agrees with it. Else it was wrong: this
    /// process stood still, or its monotonic clock did.
    pub fn check(&mut self, own: Offset, postgres: Option<Offset>, now_us: i64) -> Option<i64> {
        self.checked_at_us = now_us;
        let mut set = None;
        if let Some(billing) = postgres {
            self.is_anchored = true;
            let median = Clocks { own, redis: self.heard, postgres }.agreed();
            let off_us =
                lesser(median.correction(self.offset_us), billing.correction(self.offset_us));
            if off_us.abs() > NEAR_US {
                let is_right = self.heard.correction(self.offset_us + off_us).abs() <= STEP_US;
                let set_us = if is_right { self.heard.middle() - self.offset_us } else { off_us };
                self.offset_us += set_us;
                set = Some(set_us);
            } else {
                self.fill_step(now_us);
                let step_us = off_us.clamp(-self.step_us, self.step_us);
                self.offset_us += step_us;
                self.step_us -= step_us.abs();
            }
        }
        let is_right = self.heard.correction(self.offset_us).abs() <= self.step_us;
        // Without Postgres it can't be told from a process that stood still, unless this host's wall
        // clock agrees with it: a time that is late here alone would let others refill twice.
        let own_agrees = own.correction(self.offset_us).abs() <= NEAR_US;
        let is_sure = postgres.is_some() || own_agrees;
        self.redis = match is_right {
            true if is_sure || self.is_anchored => Redis::InLine,
            false if is_sure && self.is_anchored => Redis::Wrong,
            _ => Redis::Doubtful,
        };
        set
    }

    fn fill_step(&mut self, now_us: i64) {
        let passed_us = (now_us - self.step_at_us).max(0);
        self.step_us = self.step_us.min(STEP_US) + passed_us / (1_000_000 / DRIFT_PPM);
        self.step_at_us = self.step_at_us.max(now_us);
    }
}

/// The smaller one of two corrections; none where they go different ways.
fn lesser(one: i64, other: i64) -> i64 {
    if one.signum() == other.signum() { one.signum() * one.abs().min(other.abs()) } else { 0 }
}

#[cfg(test)]
mod tests;
