//! The law of a continuous limit, over every span of a run: admitted ≤ capacity + rate × span.

use anyhow::{Result, ensure};

/// What a client saw admitted; times are ms of one clock, the first rounded down, the second up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Admission {
    pub(super) sent_ms: u64,
    pub(super) answered_ms: u64,
    pub(super) tokens: u64,
}

/// Redis' clock shows whole ms.
const CLOCK_MS: u64 = 2;
/// Stands at the beginnings of spans that hold nothing yet.
const NOTHING: i64 = 1 << 60;

/// Checks every span, from each request that was admitted to each answer: all that was sent after
/// its beginning and answered before its end was admitted in it.
pub(super) fn check(mut seen: Vec<Admission>, capacity: u64, per_second: u64) -> Result<()> {
    seen.sort_by_key(|admission| admission.answered_ms);
    let mut begins: Vec<u64> = seen.iter().map(|admission| admission.sent_ms).collect();
    begins.sort_unstable();
    let rate = i64::try_from(per_second)?;
    // For each beginning: 1000 × what was admitted since then, plus rate × its time. So the span that
    // ends now and exceeds the law by the most is where that is the most.
    let mut spans = Maximum::new(begins.len());
    let mut before = 0;
    for (index, begins_ms) in begins.iter().enumerate() {
        let now = i64::try_from(*begins_ms)? * rate - NOTHING;
        spans.add_from(index, now - before);
        before = now;
    }
    for admission in seen {
        let begun = begins.partition_point(|begins_ms| *begins_ms <= admission.sent_ms);
        let own = begins.partition_point(|begins_ms| *begins_ms < admission.sent_ms);
        spans.add_until(begun, i64::try_from(admission.tokens)? * 1_000);
        // Spans that begin with this one hold something from now on.
        if spans.at(own) < -NOTHING / 2 {
            spans.add_from(own, NOTHING);
            spans.add_from(begun, -NOTHING);
        }
        let ends = i64::try_from(admission.answered_ms + CLOCK_MS)?;
        let excess = spans.maximum() - rate * ends - 1_000 * i64::try_from(capacity + 1)?;
        ensure!(
            excess <= 0,
            "{} too many in a span that ends at {} ms, of {capacity} + {per_second} per second",
            (excess + 999) / 1_000,
            admission.answered_ms
        );
    }
    Ok(())
}

/// Numbers in a row: adds to many at once, and knows the largest. (A segment tree.)
struct Maximum {
    count: usize,
    /// Of each node, what was added to all below it, and the largest below it with that.
    nodes: Vec<(i64, i64)>,
}

impl Maximum {
    fn new(count: usize) -> Self {
        let count = count.next_power_of_two();
        Self { count, nodes: vec![(0, 0); 2 * count] }
    }

    fn maximum(&self) -> i64 {
        self.nodes[1].1
    }

    fn at(&self, index: usize) -> i64 {
        let path = std::iter::successors(Some(self.count + index), |node| Some(node / 2));
        path.take_while(|node| *node > 0).map(|node| self.nodes[node].0).sum()
    }

    /// Adds to all from `index` on.
    fn add_from(&mut self, index: usize, number: i64) {
        self.add(1, 0, self.count, index..self.count, number);
    }

    /// Adds to all before `index`.
    fn add_until(&mut self, index: usize, number: i64) {
        self.add(1, 0, self.count, 0..index, number);
    }

    fn add(
        &mut self,
        node: usize,
        first: usize,
        end: usize,
        to: std::ops::Range<usize>,
        number: i64,
    ) {
        if to.start >= end || to.end <= first {
            return;
        }
        if to.start <= first && end <= to.end {
            self.nodes[node].0 += number;
            self.nodes[node].1 += number;
            return;
        }
        let middle = usize::midpoint(first, end);
        self.add(2 * node, first, middle, to.clone(), number);
        self.add(2 * node + 1, middle, end, to, number);
        let below = self.nodes[2 * node].1.max(self.nodes[2 * node + 1].1);
        self.nodes[node].1 = self.nodes[node].0 + below;
    }
}

/// Each pair of a beginning and an end, one by one.
fn holds_pair_by_pair(seen: &[Admission], capacity: u64, per_second: u64) -> bool {
    seen.iter().all(|first| {
        seen.iter().filter(|last| last.answered_ms >= first.sent_ms).all(|last| {
            let within = seen
                .iter()
                .filter(|one| one.sent_ms >= first.sent_ms && one.answered_ms <= last.answered_ms);
            let sum: u64 = within.map(|one| one.tokens).sum();
            let span_ms = last.answered_ms + CLOCK_MS - first.sent_ms;
            1_000 * sum <= 1_000 * (capacity + 1) + per_second * span_ms
        })
    })
}

#[test]
fn what_each_pair_says_is_found() {
    let mut numbers = crate::leases::Numbers(7);
    let (mut held, mut broken) = (0, 0);
    for _ in 0..500 {
        let seen: Vec<_> = (0..40)
            .map(|_| {
                let sent_ms = numbers.below(1_000);
                let answered_ms = sent_ms + numbers.below(60);
                Admission { sent_ms, answered_ms, tokens: 1 + numbers.below(3) }
            })
            .collect();
        let holds = holds_pair_by_pair(&seen, 24, 60);
        assert_eq!(check(seen.clone(), 24, 60).is_ok(), holds, "{seen:?}");
        if holds { held += 1 } else { broken += 1 }
    }
    assert!(held > 50 && broken > 50, "{held} of {broken}");
}
