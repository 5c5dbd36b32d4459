//! Requests that are paused for one tenant.

use std::collections::VecDeque;

use weir_domain::quantity::Amount;

use crate::rating::Rate;

/// A paused request.
#[derive(Debug, Clone)]
pub struct Waiter {
    pub context: u32,
    /// `None` until what it takes to rate it is known.
    pub rate: Option<Rate>,
    pub deadline_ns: u64,
    /// Its client left. The oldest in a list is never one of these.
    pub gone: bool,
}

/// Those who wait, oldest first. For most tenants nobody does, and then it takes no memory.
#[derive(Debug, Default)]
pub struct Waiters(Option<Box<Queue>>);

/// Never empty.
#[derive(Debug, Default)]
struct Queue {
    list: VecDeque<Waiter>,
    /// They don't stand in the order of their contexts: Envoy's numbers began anew, or a filter before
    /// this one held requests back.
    is_permuted: bool,
}

impl Waiters {
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub fn front(&self) -> Option<&Waiter> {
        self.0.as_ref()?.list.front()
    }

    pub fn front_mut(&mut self) -> Option<&mut Waiter> {
        self.0.as_mut()?.list.front_mut()
    }

    /// Has a request wait, behind the others.
    pub fn push(&mut self, waiter: Waiter) {
        let queue = self.0.get_or_insert_default();
        let last = queue.list.back();
        queue.is_permuted =
            last.is_some_and(|last| queue.is_permuted || waiter.context < last.context);
        queue.list.push_back(waiter);
    }

    /// The oldest does not wait any more.
    pub fn pop(&mut self) {
        if let Some(queue) = &mut self.0 {
            queue.list.pop_front();
        }
        self.drop_gone();
    }

    /// Takes the request `context` out; `false` if it is not among them. Envoy counts contexts up, so
    /// mostly it is found by halves, and those behind it don't move: when thousands leave at once, each
    /// costs next to nothing.
    pub fn forget(&mut self, context: u32) -> bool {
        let Some(Queue { list, is_permuted }) = self.0.as_deref_mut() else {
            return false;
        };
        let place = if *is_permuted {
            list.iter().position(|waiter| waiter.context == context)
        } else {
            list.binary_search_by_key(&context, |waiter| waiter.context).ok()
        };
        let Some(waiter) = place.and_then(|place| list.get_mut(place)) else {
            return false;
        };
        let waits = !std::mem::replace(&mut waiter.gone, true);
        waiter.rate = None;
        self.drop_gone();
        waits
    }

    /// The first one is always one that waits.
    fn drop_gone(&mut self) {
        let Some(queue) = &mut self.0 else {
            return;
        };
        while queue.list.front().is_some_and(|waiter| waiter.gone) {
            queue.list.pop_front();
        }
        if queue.list.is_empty() {
            self.0 = None;
        }
    }

    /// All that they take together, as far as is known.
    pub fn cost(&self) -> Amount {
        let all = self.0.iter().flat_map(|queue| &queue.list);
        let rates = all.filter_map(|waiter| waiter.rate.as_ref());
        rates.fold(Amount::ZERO, |sum, rate| sum.saturating_add(rate.cost))
    }

    /// Those who wait still; nobody does after this.
    pub fn take(&mut self) -> impl Iterator<Item = Waiter> + use<> {
        let all = self.0.take().into_iter().flat_map(|queue| queue.list);
        all.filter(|waiter| !waiter.gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiters(contexts: &[u32]) -> Waiters {
        let rate = Some(Rate::plain(Amount::request(weir_domain::quantity::Quantity::ONE)));
        let mut waiters = Waiters::default();
        for context in contexts {
            let rate = rate.clone();
            waiters.push(Waiter { context: *context, rate, deadline_ns: 0, gone: false });
        }
        waiters
    }

    #[test]
    fn who_left_is_not_waited_for() {
        let mut waiters = waiters(&[7, 9, 12, 1, 2]);
        assert!(!waiters.forget(8));
        assert!(waiters.forget(9) && !waiters.forget(9));
        assert_eq!(waiters.cost().tokens.get(), 4);
        assert!(waiters.forget(7), "and with it the one behind it");
        assert_eq!(waiters.front().unwrap().context, 12);
        assert!(waiters.forget(1), "after the contexts began anew");
        assert!(waiters.forget(12) && waiters.forget(2));
        assert!(waiters.is_empty());
    }

    #[test]
    fn they_are_found_in_whatever_order_they_came() {
        let mut waiters = waiters(&[9, 7, 12]);
        assert!(waiters.forget(7) && waiters.forget(9));
        waiters.pop();
        assert!(waiters.is_empty());
    }

    #[test]
    fn who_is_taken_out_waits_still() {
        let mut waiters = waiters(&[1, 2, 3]);
        assert!(waiters.forget(2));
        assert_eq!(waiters.take().map(|waiter| waiter.context).collect::<Vec<_>>(), [1, 3]);
        assert!(waiters.is_empty());
    }
}
